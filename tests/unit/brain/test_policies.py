"""Ways to judge who is lost first: what each prefers, and its words."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.board import Board
from modelium.brain.draft import AT_ITS_TURN
from modelium.brain.placement.tenants import Tenants
from modelium.brain.plan import explain, plan
from modelium.brain.policies import POLICIES, policy_of
from modelium.brain.views import Views
from modelium.values import Demand, Eviction, ModelView, Policies, Usage, Verb
from tests.unit.brain.test_arrivals import asked
from tests.unit.brain.worlds import GIB, NOW, loaded, wanted, world


def first(eviction: Eviction, *views: ModelView) -> str:
    return in_order(views, Policies(eviction=eviction))[0].name


def in_order(views: Iterable[ModelView], policies: Policies) -> list[ModelView]:
    """As they would go for somebody who waits."""
    known = Views()
    tenants = Tenants(known)
    for view in views:
        known.put(view)
        tenants.put(view)
    tenants.judge(NOW, policies)
    return list(tenants.in_order(AT_ITS_TURN))


def used(idle_s: float, *gaps_s: float, requests: int = 10) -> Usage:
    return Usage(last_used_at=NOW - idle_s, arrivals=asked(*gaps_s), requests=requests)


def test_each_name_has_a_policy() -> None:
    assert set(POLICIES) == set(Eviction)
    assert (Eviction("cheapest"), Eviction("longest_unused")) == (Eviction.LEARNED, Eviction.LRU), "their first names"
    with pytest.raises(ValueError, match="random"):
        Eviction("random")


def test_what_is_lost_first() -> None:
    soon = loaded("soon", usage=used(500, *[600.0] * 9))
    just_used = loaded("just used", usage=used(20, *[3600.0] * 9))
    assert first(Eviction.LEARNED, soon, just_used) == "just used"
    for each in (Eviction.LRU, Eviction.RULES, Eviction.GDSF):
        assert first(each, soon, just_used) == "soon"
    small_slow = loaded("small and slow", GIB, load_seconds=60.0, usage=used(100))
    large_quick = loaded("large and quick", 4 * GIB, load_seconds=5.0, usage=used(90))
    for each in (Eviction.LEARNED, Eviction.RULES, Eviction.GDSF):
        assert first(each, small_slow, large_quick) == "large and quick"
    assert first(Eviction.LRU, small_slow, large_quick) == "small and slow"
    often, seldom = loaded("often", usage=used(60, requests=900)), loaded("seldom", usage=used(50, requests=9))
    assert first(Eviction.GDSF, often, seldom) == "seldom" and first(Eviction.RULES, often, seldom) == "often"


@given(st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 8)), min_size=1, max_size=8))
def test_without_history_the_longest_unused_goes_first_and_of_equals_the_largest(models: list[tuple[int, int]]) -> None:
    views = [
        loaded(f"m{i}", size * GIB, load_seconds=3.0 * size, usage=Usage(last_used_at=NOW - idle))
        for i, (idle, size) in enumerate(models)
    ]
    order = in_order(views, Policies())
    idle = [view.usage.idle_s(NOW) for view in order]
    assert idle == sorted(idle, reverse=True)
    same = [loaded(f"m{i}", size * GIB, usage=Usage(last_used_at=NOW - 60)) for i, (_, size) in enumerate(models)]
    sizes = [view.bytes_held for view in in_order(same, Policies())]
    assert sizes == sorted(sizes, reverse=True)


def test_a_model_that_was_just_loaded_is_not_the_first_to_go() -> None:
    new = loaded("new", usage=Usage(last_used_at=NOW - 3, requests=1), loaded_at=NOW - 3)
    known = loaded("known", usage=used(100, *[300.0] * 20))
    assert first(Eviction.LEARNED, new, known) == "known"


def test_with_rules_a_request_waits_for_rule_five() -> None:
    idle = loaded("idle", 6 * GIB, idle_s=200)
    policies = Policies(eviction=Eviction.RULES)
    [waits] = plan(world(idle, wanted("w", 6 * GIB), policies=policies)).decisions
    assert (waits.verb, waits.rule) == (Verb.WAIT, "plan.6")


def test_the_words_say_what_was_weighed() -> None:
    view = loaded("m", 16 * GIB, load_seconds=6.0, usage=used(600, *[3000.0] * 9))
    said = {each: policy_of(Policies(eviction=each)).explain(view, NOW) for each in Eviction}
    assert said[Eviction.LEARNED] == (
        "no request for 10 min, its next request is expected in 43 min, it loads in 6.0 s and frees 16.0 GiB"
    )
    assert said[Eviction.LRU] == "unused for 10 min"
    assert said[Eviction.RULES] == "unused for 10 min, it loads in 6.0 s and frees 16.0 GiB"
    assert said[Eviction.GDSF] == "10 requests, the last 10 min ago, it loads in 6.0 s and frees 16.0 GiB"
    new = loaded("m", usage=used(30))
    assert "too few before that to expect the next one" in POLICIES[Eviction.LEARNED].explain(new, NOW)


def test_a_decision_says_what_was_weighed() -> None:
    soon = loaded("soon", 4 * GIB, load_seconds=6.0, usage=used(580, *[600.0] * 9))
    later = loaded("later", 3 * GIB, load_seconds=6.0, usage=used(600, *[3000.0] * 9))
    pinned = loaded("pinned", GIB, usage=used(9000), pinned=True)
    made = plan(world(soon, later, pinned, wanted("w", 2 * GIB)))
    [gone] = made.actions
    assert gone.reason.startswith(
        "a waiting request for w waits; later goes, not soon: no request for 10 min, its next request is expected in 43 min, "
        "it loads in 6.0 s and frees 3.0 GiB; w needs 2.0 GiB"
    )
    first, second = gone.weighed
    assert (first.model, first.goes, first.idle_s, first.bytes, first.load_s) == ("later", True, 600.0, 3 * GIB, 6.0)
    assert (second.model, second.goes, second.kept_by) == ("soon", False, "nothing")
    assert first.harm < second.harm and first.next_s is not None and second.next_s is not None and second.next_s < 100


@pytest.mark.parametrize("eviction", [Eviction.LEARNED, Eviction.LRU])
def test_why_a_dearer_one_goes_is_that_the_other_frees_too_little(eviction: Eviction) -> None:
    small = loaded("small", GIB // 2, idle_s=600.0)
    large = loaded("large", 6 * GIB, idle_s=60.0)
    [gone] = plan(world(small, large, wanted("w", 5 * GIB), policies=Policies(eviction=eviction))).actions
    assert gone.model == "large" and "; large goes, not small, which frees only 512 MiB: " in gone.reason
    first, second = gone.weighed
    assert (second.model, second.kept_by) == ("small", "size") and second.harm < first.harm
    # Where it would have sufficed, the other one's loss is the greater, and nothing is said of sizes.
    [gone] = plan(world(loaded("small", 2 * GIB, idle_s=600.0), large, wanted("w", 2 * GIB))).actions
    assert gone.model == "small" and "which frees only" not in gone.reason and gone.weighed[1].kept_by == "nothing"


def test_at_most_some_are_shown() -> None:
    views = [loaded(f"m{i:02}", GIB // 4, idle_s=100.0 + i) for i in range(31)]
    [gone] = plan(world(*views, wanted("w", GIB // 2))).actions
    assert len(gone.weighed) == 8 and gone.weighed[0].model == "m30" and gone.weighed[1].model == "m29"


def test_two_that_go_together_are_not_weighed_against_each_other() -> None:
    views = [loaded(name, 2 * GIB, idle_s=idle) for name, idle in (("a", 300.0), ("b", 200.0), ("c", 100.0), ("d", 50.0))]
    gone = {action.model: action for action in plan(world(*views, wanted("w", 4 * GIB))).actions}
    assert set(gone) == {"a", "b"}
    for action in gone.values():
        assert [each.model for each in action.weighed] == [action.model, "c", "d"] and ", not c:" in action.reason


def test_why_a_model_stays_says_what_it_would_cost() -> None:
    observed = world(loaded("m", usage=used(10, *[60.0] * 9)))
    said = explain(Board.of(observed), NOW, "m")
    assert said is not None and said.verb is Verb.KEEP
    [itself] = said.weighed
    assert itself.model == "m" and not itself.goes and itself.next_s is not None and 40 < itself.next_s < 60


@given(
    st.lists(st.tuples(st.integers(1, 3), st.floats(0, 900), st.integers(0, 1)), max_size=8),
    st.integers(1, 8),
    st.sampled_from([each for each in Eviction if not Policies(eviction=each).unloads_idle]),
)
def test_for_what_is_expected_nobody_goes_whatever_the_policy(
    models: list[tuple[int, float, int]], need: int, eviction: Eviction
) -> None:
    views = [
        loaded(f"m{i}", size * GIB, usage=Usage(last_used_at=NOW - idle, in_flight=flight))
        for i, (size, idle, flight) in enumerate(models)
    ]
    policies = Policies(eviction=eviction)
    alone = [action.model for action in plan(world(*views, policies=policies)).actions]
    made = plan(world(*views, wanted("w", need * GIB, demand=Demand.EXPECTED), policies=policies))
    assert [action.model for action in made.actions if action.verb is Verb.UNLOAD] == alone

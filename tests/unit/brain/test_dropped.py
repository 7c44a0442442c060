"""What a drop would do to everybody else, before it is dropped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.board import Board
from modelium.brain.dropped import plan_with
from modelium.brain.plan import plan
from modelium.values import Demand, ModelOverride, ModelProfile, Observed, Plan, Policies, Verb
from tests.unit.brain.worlds import GIB, host, loaded, profile, world

BIG = profile("new", weight_bytes=4 * GIB, parameters=2**30)


def dropped(observed: Observed, new: ModelProfile, wanted: Demand = Demand.DISCOVERY) -> Plan:
    return plan_with(Board.of(observed), observed.now, new, wanted)


def test_where_there_is_room_it_is_loaded_and_nobody_goes() -> None:
    made = dropped(world(loaded("a", 2 * GIB)), profile("new"))
    assert [(action.model, action.verb) for action in made.actions] == [("new", Verb.LOAD)]


def test_without_room_it_waits_and_its_first_request_makes_room() -> None:
    observed = world(loaded("a", 4 * GIB, idle_s=100), loaded("b", 3 * GIB, idle_s=10))
    made = dropped(observed, BIG)
    first, *others = made.decisions
    assert (first.model, first.verb, first.rule) == ("new", Verb.WAIT, "plan.4")
    assert [(action.model, action.verb, action.beneficiary) for action in made.actions] == [("a", Verb.UNLOAD, "new")]
    assert ("new", "plan.5") in [(decision.model, decision.rule) for decision in others]


def test_what_is_too_big_or_was_decided_by_hand_is_said() -> None:
    [refused] = dropped(world(devices=(host(budget=2 * GIB),)), BIG).decisions
    assert (refused.verb, refused.rule) == (Verb.REFUSE, "plan.2")
    stated = {"new": ModelOverride(memory_bytes=GIB)}
    [load] = dropped(world(devices=(host(budget=2 * GIB),), overrides=stated), BIG).actions
    assert load.verb is Verb.LOAD


def test_what_its_drop_does_not_load_waits_for_its_first_request_and_that_is_told_as_well() -> None:
    made = dropped(world(loaded("a", 2 * GIB)), profile("new"), Demand.NONE)
    first, then = made.decisions
    assert (first.verb, first.rule) == (Verb.WAIT, "plan.4")
    assert first.reason.startswith("its first request loads it (orchestration.load_on_discovery: false)")
    assert then.verb is Verb.LOAD and "its discovery" not in then.reason
    [refused] = dropped(world(devices=(host(budget=2 * GIB),)), BIG, Demand.NONE).decisions
    assert refused.verb is Verb.REFUSE, "no request will ever load it"


def test_what_a_policy_wants_loaded_makes_room_at_its_drop() -> None:
    observed = world(loaded("a", 4 * GIB, idle_s=100), loaded("b", 3 * GIB, idle_s=10))
    made = dropped(observed, BIG, Demand.POLICY)
    assert [(action.model, action.verb, action.beneficiary) for action in made.actions] == [("a", Verb.UNLOAD, "new")]


@given(
    st.lists(st.tuples(st.integers(1, 2), st.floats(0, 900), st.booleans()), max_size=6), st.sampled_from([BIG, profile("new")])
)
def test_it_speaks_of_others_only_where_they_make_room(models: list[tuple[int, float, bool]], new: ModelProfile) -> None:
    views = [loaded(f"m{i}", size * GIB // 2, idle_s=idle, pinned=pinned) for i, (size, idle, pinned) in enumerate(models)]
    observed = world(*views, policies=Policies())
    assert plan(observed).actions == ()
    gone = [action for action in dropped(observed, new).actions if action.model != "new"]
    assert all(action.verb is Verb.UNLOAD and action.beneficiary == "new" for action in gone)
    assert not any(view.pinned for view in views if view.name in {action.model for action in gone})

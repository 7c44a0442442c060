"""Eviction's five rules, in their order and in their words; also for requests with ``evict_for_requests: idle``."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.board import Board
from modelium.brain.eviction import deciding_rule, explain_keep, in_order_of_sacrifice
from modelium.brain.plan import explain, plan
from modelium.values import EvictForRequests, Eviction, Policies, Usage, Verb
from tests.unit.brain.worlds import GIB, MIB, NOW, host, loaded, wanted, world

POLICIES = Policies(evict_after_idle_seconds=300, evict_for_requests=EvictForRequests.IDLE)
TO_THE_LETTER = Policies(unload_without_pressure=True)
LONG_AGO = NOW - 400


@pytest.mark.parametrize(
    ("changes", "rule", "words"),
    [
        ({"pinned": True}, 1, "pinned"),
        ({"always_loaded": True}, 1, "always_loaded"),
        ({"usage": Usage(last_used_at=LONG_AGO, in_flight=2)}, 1, "2 requests in flight"),
        ({"waiting": 3}, 1, "3 requests waiting"),
        ({"usage": Usage(qps=0.6, last_used_at=LONG_AGO)}, 2, "0.60 requests/s"),
        ({"usage": Usage(qps=0.5, last_used_at=LONG_AGO)}, 3, "0.500 requests/s"),
        ({"usage": Usage(qps=0.02, last_used_at=LONG_AGO)}, 3, "0.020 requests/s"),
        ({"usage": Usage(qps=0.01, last_used_at=NOW - 299)}, 4, "idle for 299 s"),
        ({"usage": Usage(qps=0.0, last_used_at=LONG_AGO)}, 5, "idle for 400 s"),
    ],
)
def test_the_first_rule_that_holds_decides(changes: dict[str, Any], rule: int, words: str) -> None:
    view = loaded("m", **changes)
    assert deciding_rule(view, NOW, POLICIES) == rule
    assert words in explain_keep(view, rule, NOW, POLICIES)


def test_without_pressure_an_idle_model_stays_until_somebody_needs_its_room() -> None:
    kept = explain(Board.of(world(loaded("m", idle_s=100_000))), NOW, "m")
    assert kept is not None and (kept.verb, kept.rule) == (Verb.KEEP, "evict.5")
    assert "nobody needs what it holds (unload_without_pressure: false)" in kept.reason


@pytest.mark.parametrize("policies", [TO_THE_LETTER, Policies(eviction=Eviction.RULES)])
def test_to_the_letter_it_stays_until_twice_the_threshold(policies: Policies) -> None:
    assert plan(world(loaded("m", idle_s=599), policies=policies)).actions == ()
    [gone] = plan(world(loaded("m", idle_s=601), policies=policies)).actions
    assert (gone.verb, gone.rule) == (Verb.UNLOAD, "evict.5")
    assert "over twice evict_after_idle_seconds" in gone.reason


def test_pressure_by_use_unloads_idle_models_only_until_it_is_over() -> None:
    device = host(budget=10 * GIB)
    models = [loaded(f"m{i}", 2 * GIB, device=device, idle_s=400 + i) for i in range(5)]
    actions = plan(world(*models, devices=(device,), policies=TO_THE_LETTER)).actions
    assert [a.model for a in actions] == ["m4"]
    assert "are taken" in actions[0].reason
    assert plan(world(*models, devices=(device,))).actions == (), "nobody needs the room"


def test_what_other_programs_take_is_pressure() -> None:
    device = host(budget=9 * GIB)
    models = [loaded(f"m{i}", 2 * GIB, device=device, idle_s=400 + i) for i in range(5)]
    assert [a.model for a in plan(world(*models, devices=(device,))).actions] == ["m4"]


def test_a_model_that_would_not_be_evicted_is_explained() -> None:
    decision = explain(Board.of(world(loaded("m", idle_s=100))), NOW, "m")
    assert decision is not None and (decision.verb, decision.rule) == (Verb.KEEP, "evict.4")


def test_switched_off_nothing_is_ever_evicted() -> None:
    off = Policies(eviction=Eviction.NEVER)
    assert plan(world(loaded("m", idle_s=10_000), wanted("w", 8 * GIB), policies=off)).actions == ()


def test_the_cheapest_to_lose_goes_first() -> None:
    big_quick = loaded("big-quick", 4 * GIB, idle_s=400, load_seconds=2.0)
    small_slow = loaded("small-slow", 500 * MIB, idle_s=500, load_seconds=60.0)
    assert [v.name for v in in_order_of_sacrifice([small_slow, big_quick], NOW, POLICIES)] == ["big-quick", "small-slow"]
    by_age = in_order_of_sacrifice([big_quick, small_slow], NOW, Policies(eviction=Eviction.LRU))
    assert [v.name for v in by_age] == ["small-slow", "big-quick"]


@given(
    st.lists(
        st.tuples(st.floats(0, 2000), st.floats(0, 2), st.integers(0, 2), st.booleans(), st.integers(1, 4 * GIB)), max_size=8
    ),
    st.integers(1, 8 * GIB),
)
def test_only_rule_five_ever_unloads(models: list[tuple[float, float, int, bool, int]], need: int) -> None:
    views = [
        loaded(f"m{i}", size, pinned=pinned, usage=Usage(qps=qps, last_used_at=NOW - idle, in_flight=flight))
        for i, (idle, qps, flight, pinned, size) in enumerate(models)
    ]
    made = plan(world(*views, wanted("w", need), policies=POLICIES))
    for action in made.actions:
        if action.verb is Verb.UNLOAD:
            view = next(v for v in views if v.name == action.model)
            assert deciding_rule(view, NOW, POLICIES) == 5

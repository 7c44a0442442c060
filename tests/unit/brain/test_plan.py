"""The plan: what is loaded where, who waits, who has to go."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.plan import plan
from modelium.values import (
    Capabilities,
    Demand,
    Device,
    Footprint,
    ModelOverride,
    ModelView,
    Placement,
    Plan,
    Policies,
    Runtime,
    State,
    Usage,
    Verb,
)
from tests.patience import work_s
from tests.unit.brain.worlds import GIB, MIB, NOW, gpu, host, loaded, placed, profile, wanted, world

IN_USE = Usage(last_used_at=NOW, in_flight=2)


def _verbs(made: Plan) -> dict[str, tuple[str, str]]:
    return {d.model: (d.verb.value, d.rule) for d in made.decisions}


def _placement(made: Plan, name: str) -> Placement:
    found = next(d.placement for d in made.actions if d.model == name)
    assert found is not None
    return found


def test_what_fits_is_loaded_with_the_reason() -> None:
    [action] = plan(world(wanted("m", GIB))).actions
    assert (action.verb, action.rule) == (Verb.LOAD, "plan.3")
    assert "1.0 GiB measured" in action.reason and "a waiting request" in action.reason


def test_the_device_with_the_most_free_memory_wins_and_accelerators_come_first() -> None:
    devices = (host(budget=32 * GIB), gpu(0, used=15 * GIB), gpu(1, used=2 * GIB))
    assert _placement(plan(world(wanted("m"), devices=devices)), "m").device_id == "cuda:1"


def test_a_model_too_big_for_every_accelerator_goes_to_the_host() -> None:
    devices = (host(budget=60 * GIB), gpu(0))
    assert _placement(plan(world(wanted("m", 22 * GIB), devices=devices)), "m").device_id == "host"


def test_a_device_chosen_by_hand_is_the_only_one() -> None:
    devices = (host(), gpu(0))
    overrides = {"m": ModelOverride(device="host")}
    assert _placement(plan(world(wanted("m"), devices=devices, overrides=overrides)), "m").device_id == "host"
    [refused] = plan(world(wanted("m"), overrides={"m": ModelOverride(device="cuda:7")})).decisions
    assert refused.verb is Verb.REFUSE and "'cuda:7'" in refused.reason


def test_too_big_is_refused_with_need_and_budget() -> None:
    [decision] = plan(world(wanted("m", 9 * GIB))).decisions
    assert (decision.verb, decision.rule) == (Verb.REFUSE, "plan.2")
    assert "9.0 GiB" in decision.reason and "8.0 GiB" in decision.reason and "devices.host_memory" in decision.reason


def test_a_request_pushes_out_what_is_idle_and_waits_for_the_memory() -> None:
    idle, busy = loaded("idle", 5 * GIB, idle_s=400), loaded("busy", 2 * GIB, usage=IN_USE)
    made = plan(world(idle, busy, wanted("m", 4 * GIB)))
    assert _verbs(made) == {"idle": ("unload", "evict.6"), "m": ("wait", "plan.5")}
    assert "m needs 4.0 GiB" in made.pressure["host"]


def test_memory_that_is_on_its_way_back_is_waited_for_without_a_second_victim() -> None:
    leaving = loaded("leaving", 5 * GIB, state=State.UNLOADING)
    idle = loaded("idle", 2 * GIB, idle_s=400)
    made = plan(world(leaving, idle, wanted("m", 4 * GIB)))
    assert _verbs(made) == {"m": ("wait", "plan.5")}


def test_nobody_is_pushed_out_in_vain() -> None:
    idle, busy = loaded("idle", 1 * GIB, idle_s=400), loaded("busy", 6 * GIB, usage=IN_USE)
    made = plan(world(idle, busy, wanted("m", 5 * GIB)))
    assert _verbs(made) == {"m": ("wait", "plan.6")}
    reason = made.decisions[0].reason
    assert "nothing there may be evicted" in reason and "busy kept: 2 requests in flight" in reason


def test_a_discovery_does_not_take_the_room_that_a_request_waits_for() -> None:
    busy = loaded("busy", 5 * GIB, usage=IN_USE)
    asked, found = wanted("asked", 4 * GIB), wanted("found", GIB, demand=Demand.DISCOVERY)
    made = plan(world(busy, asked, found))
    assert _verbs(made) == {"asked": ("wait", "plan.6"), "found": ("wait", "plan.4")}
    assert plan(world(busy, found)).actions[0].model == "found"
    assert plan(world(busy, asked, wanted("also asked", GIB))).actions[0].model == "also asked"


def test_who_holds_the_room_is_named_also_while_it_loads() -> None:
    loading = loaded("slow", 6 * GIB, state=State.LOADING)
    [waits] = plan(world(loading, wanted("asked", 4 * GIB))).decisions
    assert "slow is LOADING" in waits.reason and "other programs" not in waits.reason


def test_what_earlier_unloads_left_behind_is_said_to_who_waits_for_room() -> None:
    leaky = replace(host(total=10 * GIB, used=5 * GIB), leaked_bytes=5 * GIB)
    [waits] = plan(world(wanted("asked", 6 * GIB), devices=(leaky,))).decisions
    assert waits.verb is Verb.WAIT and "5.0 GiB on host are leaked by earlier unloads" in waits.reason


def test_a_discovery_pushes_nobody_out() -> None:
    made = plan(world(loaded("idle", 7 * GIB, idle_s=400), wanted("m", 4 * GIB, demand=Demand.DISCOVERY)))
    assert _verbs(made) == {"m": ("wait", "plan.4")}


def test_room_that_was_made_for_one_is_not_taken_by_a_later_smaller_one() -> None:
    leaving = loaded("leaving", 6 * GIB, state=State.UNLOADING)
    first = wanted("first", 5 * GIB, demand_since=NOW - 20)
    small = wanted("small", 2 * GIB, demand_since=NOW - 1)
    made = plan(world(leaving, first, small))
    assert _verbs(made)["first"] == ("wait", "plan.5")
    assert _verbs(made)["small"][0] == "wait"


def test_loads_of_one_device_are_limited_and_others_run_beside_them() -> None:
    devices = (host(budget=32 * GIB), gpu(0), gpu(1, budget=10 * GIB))
    loading = [loaded(f"l{i}", GIB, device=gpu(0), state=State.LOADING) for i in range(2)]
    overrides = {"a": ModelOverride(device="cuda:0"), "b": ModelOverride(device="cuda:1")}
    made = plan(world(*loading, wanted("a"), wanted("b"), devices=devices, overrides=overrides))
    assert _verbs(made) == {"a": ("wait", "plan.3"), "b": ("load", "plan.3")}


def test_vllm_engines_of_one_device_start_one_at_a_time() -> None:
    llm: dict[str, Any] = {
        "profile": profile("a", is_llm=True),
        "state": State.LOADING,
        "placement": placed(GIB, gpu(0), Runtime.VLLM),
    }
    made = plan(
        world(
            loaded("a", GIB, **llm),
            wanted("b", profile=profile("b", is_llm=True)),
            devices=(gpu(0),),
            capabilities=Capabilities(backends=frozenset({"vllm", "python"})),
        )
    )
    assert _verbs(made) == {"b": ("wait", "plan.3")}


def test_a_failed_model_is_not_tried_before_its_time_nor_in_quarantine() -> None:
    early = wanted("early", state=State.FAILED, retry_at=NOW + 1)
    quarantined = wanted("quarantined", state=State.FAILED, retry_at=None)
    due = wanted("due", state=State.FAILED, retry_at=NOW)
    assert set(_verbs(plan(world(early, quarantined, due)))) == {"due"}


def test_what_others_use_of_the_machine_is_not_promised() -> None:
    full = host(budget=8 * GIB, total=16 * GIB, used=15 * GIB)
    made = plan(world(wanted("m", 2 * GIB), devices=(full,)))
    assert made.actions == () and "used by other programs" in made.decisions[0].reason


_sizes = st.integers(1 * MIB, 6 * GIB)
_devices = st.lists(st.sampled_from([gpu(0), gpu(1, budget=4 * GIB), gpu(2, used=20 * GIB)]), unique=True)


@given(_devices, st.lists(_sizes, max_size=10), st.lists(st.tuples(_sizes, st.sampled_from(Demand)), max_size=10))
def test_no_plan_promises_more_than_a_device_has(
    accelerators: list[Device], held: list[int], asked: list[tuple[int, Demand]]
) -> None:
    devices = (host(), *accelerators)
    room = 8 * GIB
    views: list[ModelView] = []
    for i, size in enumerate(held):
        if size <= room:
            room -= size
            views.append(loaded(f"l{i}", size, idle_s=400.0 * (i % 3)))
    views += [wanted(f"w{i}", size, demand=demand) for i, (size, demand) in enumerate(asked)]
    made = plan(world(*views, devices=devices))
    committed = {d.id: 0 for d in devices}
    for view in views:
        if view.placement:
            committed[view.placement.device_id] += view.bytes_held
    for action in made.actions:
        if action.placement is not None:
            committed[action.placement.device_id] += action.placement.footprint.bytes
    for device in devices:
        assert committed[device.id] <= device.budget_bytes
    assert len({a.model for a in made.actions}) == len(made.actions)


@given(st.lists(st.tuples(_sizes, st.sampled_from(Demand)), max_size=8))
def test_planning_is_a_function_of_its_argument(asked: list[tuple[int, Demand]]) -> None:
    observed = world(*(wanted(f"w{i}", size, demand=demand) for i, (size, demand) in enumerate(asked)))
    assert plan(observed) == plan(replace(observed))


def test_thousands_without_room_are_not_all_looked_at() -> None:
    observed = world(
        loaded("full", 8 * GIB), *(wanted(f"w{i}", demand=Demand.DISCOVERY) for i in range(2000)), policies=Policies()
    )
    started = time.process_time()
    made = plan(observed)
    assert len(made.decisions) == 16
    assert time.process_time() - started < 50 * work_s()  # minutes, if each were explained against each


def test_a_small_model_is_not_starved_by_many_large_ones_that_wait() -> None:
    large = [wanted(f"large{i}", 7 * GIB, demand=Demand.DISCOVERY, demand_since=1.0) for i in range(20)]
    made = plan(world(loaded("busy", 2 * GIB), *large, wanted("small", GIB, demand=Demand.DISCOVERY, demand_since=2.0)))
    assert [a.model for a in made.actions] == ["small"]


def test_a_measured_footprint_replaces_the_estimate() -> None:
    view = replace(wanted("m"), footprint=Footprint(estimated_bytes=1, measured_bytes=3 * GIB))
    assert _placement(plan(world(view)), "m").footprint.bytes == 3 * GIB


def test_what_was_measured_in_one_manner_says_nothing_about_another() -> None:
    here, there = (_placement(plan(world(wanted("m"), devices=(device,))), "m") for device in (host(), gpu()))
    assert here.manner != there.manner
    seen = replace(wanted("m"), footprint=Footprint(estimated_bytes=1, measured_bytes=3 * GIB), learned={here.manner: 3 * GIB})
    assert _placement(plan(world(seen, devices=(host(),))), "m").footprint.measured_bytes == 3 * GIB
    assert _placement(plan(world(seen, devices=(gpu(),))), "m").footprint.measured_bytes is None
    both = replace(seen, learned={here.manner: 3 * GIB, there.manner: GIB})
    assert _placement(plan(world(both, devices=(gpu(),))), "m").footprint.bytes == GIB
    twice = {"m": ModelOverride(instance_count=2)}
    assert _placement(plan(world(seen, devices=(host(),), overrides=twice)), "m").footprint.measured_bytes is None

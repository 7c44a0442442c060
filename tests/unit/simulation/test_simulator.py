"""The simulator: the controller's own code in virtual time, and what must hold of it whatever is asked of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.controller.life.phases import Draining, Unloading
from modelium.simulation.inputs import BadInput, SimulatedModel
from modelium.simulation.orders import PLAIN
from modelium.simulation.plain import PlainServer
from modelium.simulation.runs import CONFIGURED, PRELOAD, check_names
from modelium.simulation.simulator import Conditions, Simulator
from modelium.simulation.tally import Tally
from modelium.sizes import GIB
from modelium.values import Eviction, Fleet, Policies

from .small import Arrival, fleet_of, models_of, simulate, trace_of

every_policy = pytest.mark.parametrize("policy", [CONFIGURED, PRELOAD, "lru", "gdsf", *PLAIN])


@every_policy
def test_a_request_waits_for_the_load_and_the_next_one_does_not(policy: str) -> None:
    outcome = simulate([(0.0, 0, 1.0), (1.0, 0, 1.0), (10.0, 0, 1.0)], models_of(8), fleet_of(10), policy=policy)
    assert (outcome.requests, outcome.cold_starts, outcome.loads, outcome.evictions) == (3, 2, 1, 0)
    assert outcome.waited_s == pytest.approx(4.0 + 3.0, abs=0.01)
    assert outcome.load_seconds == 4.0 and outcome.missed == outcome.refused == 0


@every_policy
def test_who_does_not_fit_beside_the_other_comes_in_its_place(policy: str) -> None:
    outcome = simulate([(0.0, 0, 1.0), (60.0, 1, 1.0), (90.0, 0, 1.0)], models_of(8, 8), fleet_of(10), policy=policy)
    assert (outcome.loads, outcome.evictions, outcome.thrash) == (3, 2, 1)
    assert outcome.waited_s == pytest.approx(4.0 + 5.0 + 5.0, abs=0.1), "an unload of a second before the load of four"


@every_policy
def test_two_devices_hold_what_one_does_not(policy: str) -> None:
    outcome = simulate([(0.0, 0, 1.0), (60.0, 1, 1.0), (90.0, 0, 1.0)], models_of(8, 8), fleet_of(10, 10), policy=policy)
    assert (outcome.loads, outcome.evictions, outcome.cold_starts) == (2, 0, 2)


@every_policy
def test_models_stay_on_the_devices_that_their_user_chose(policy: str) -> None:
    arrivals = [(0.0, 0, 1.0), (60.0, 1, 1.0), (90.0, 0, 1.0)]
    chosen = [replace(model, devices=frozenset({"cuda:1", "cuda:2"})) for model in models_of(8, 8)]
    for fleet, loads in ((fleet_of(10, 10), 3), (fleet_of(10, 10, 10), 2)):
        outcome = simulate(arrivals, chosen, fleet, policy=policy)
        assert (outcome.loads, outcome.evictions) == (loads, 2 if loads == 3 else 0)


@every_policy
def test_a_model_on_two_gpus_takes_its_half_of_each(policy: str) -> None:
    """8 GiB of each of two with 10: the third request pushes it out, the fourth the one beside it."""
    arrivals = [(0.0, 0, 1.0), (60.0, 0, 1.0), (120.0, 1, 1.0), (180.0, 0, 1.0)]
    models = models_of(16, 8, spread={0: 2})
    outcome = simulate(arrivals, models, fleet_of(10, 10), policy=policy)
    assert (outcome.loads, outcome.evictions, outcome.cold_starts) == (3, 2, 3)
    assert outcome.waited_s == pytest.approx(4.0 + 5.0 + 5.0, abs=0.1)
    alone = simulate([(0.0, 0, 1.0), (100.0, 0, 0.0)], models[:1], fleet_of(10, 10), policy=policy)
    assert alone.utilization == pytest.approx(16 / 20, abs=0.01), "of both of them"
    beside = simulate(arrivals, models_of(16, 2, spread={0: 2}), fleet_of(10, 10), policy=policy)
    assert (beside.loads, beside.evictions) == (2, 0), "there is room beside its half"


@every_policy
def test_a_model_on_two_gpus_finds_no_room_on_unequal_ones(policy: str) -> None:
    outcome = simulate([(0.0, 0, 1.0)], models_of(16, spread={0: 2}), fleet_of(10, 12), policy=policy)
    assert (outcome.refused, outcome.loads) == (1, 0)


@every_policy
def test_a_pinned_model_is_there_and_stays(policy: str) -> None:
    models = models_of(8, 8, pinned=frozenset({0}))
    outcome = simulate([(60.0, 0, 1.0), (70.0, 1, 1.0)], models, fleet_of(10), policy=policy, request_timeout_s=100)
    assert (outcome.loads, outcome.evictions, outcome.missed) == (1, 0, 1)


@every_policy
def test_what_no_device_can_hold_is_refused_and_what_takes_too_long_is_missed(policy: str) -> None:
    arrivals = [(0.0, 0, 1.0), (0.0, 1, 1.0)]
    outcome = simulate(arrivals, models_of(80, 8, load_s=30), fleet_of(10), policy=policy, request_timeout_s=20)
    assert (outcome.refused, outcome.missed) == (1, 1)


@every_policy
def test_more_than_may_wait_are_refused(policy: str) -> None:
    outcome = simulate([(0.0, 0, 1.0)] * 5, models_of(8), fleet_of(10), policy=policy, max_waiting=3)
    assert (outcome.refused, outcome.cold_starts) == (2, 3)


@every_policy
def test_two_that_are_always_in_use_and_do_not_fit_together_serve_in_turn(policy: str) -> None:
    """Each asked every second, with answers of two seconds: neither is ever idle."""
    arrivals = [(float(second), index, 2.0) for second in range(600) for index in (0, 1)]
    outcome = simulate(arrivals, models_of(8, 8), fleet_of(10), policy=policy)
    assert outcome.missed == outcome.refused == 0
    assert outcome.longest_s < 90


def test_who_knows_the_future_keeps_what_is_asked_next() -> None:
    """Two of three fit. After 2, the longest unused is 0, which is asked next; the others are asked late."""
    arrivals = [(0.0, 0, 0.1), (20.0, 1, 0.1), (40.0, 2, 0.1), (60.0, 0, 0.1), (80.0, 2, 0.1), (900.0, 1, 0.1)]
    models, fleet = models_of(8, 8, 8), fleet_of(16)
    assert simulate(arrivals, models, fleet, policy="plain-lru").loads == 5
    assert simulate(arrivals, models, fleet, policy="bound-farthest").loads == 4
    assert simulate(arrivals, models, fleet, policy="bound-cost").loads == 4


def test_who_is_idle_too_long_goes_by_ttl_alone() -> None:
    arrivals = [(0.0, 0, 0.1), (400.0, 0, 0.1)]
    assert simulate(arrivals, models_of(8), fleet_of(16), policy="plain-ttl").loads == 2
    assert simulate(arrivals, models_of(8), fleet_of(16), policy="plain-lru").loads == 1


def test_a_policy_that_is_not_there_is_refused_with_the_nearest() -> None:
    assert check_names((), Policies())[0] == CONFIGURED
    with pytest.raises(BadInput, match="did you mean plain-lru"):
        check_names(("plain_lru",), Policies())
    for old, new in (("longest_unused", "lru"), ("LRU", "lru"), ("cheapest", "learned")):
        with pytest.raises(BadInput, match=f"did you mean {new}"):
            check_names((old,), Policies())
    assert check_names(("never",), Policies()) == ("never",)


@every_policy
def test_who_is_refused_waited_for_no_load(policy: str) -> None:
    outcome = simulate([(0.0, 0, 1.0), (0.0, 1, 1.0)], models_of(80, 8), fleet_of(10), policy=policy)
    assert (outcome.refused, outcome.cold_starts, outcome.loads) == (1, 1, 1)


@pytest.mark.parametrize("policy", ["modelium", "lru", "rules", "gdsf", "never"])
@pytest.mark.parametrize("without_pressure", [False, True])
def test_a_time_without_requests_costs_few_passes_and_changes_nothing(policy: str, without_pressure: bool) -> None:
    """Three thousand years, in passes and not in seconds, which a busy machine has more of."""
    policies, found = Policies(unload_without_pressure=without_pressure), []
    for gap in (20_000.0, 1e11):
        arrivals = [(0.0, 0, 1.0), (30.0, 1, 1.0), (gap, 0, 1.0), (gap + 5.0, 1, 1.0), (gap + 90.0, 0, 1.0)]
        found.append(simulate(arrivals, models_of(8, 8), fleet_of(10), policy=policy, policies=policies))
    short, long = found
    assert long.passes < 1_000
    assert (long.loads, long.evictions, long.missed, long.cold_starts) == (
        short.loads, short.evictions, short.missed, short.cold_starts,
    )  # fmt: skip
    assert long.waited_s == pytest.approx(short.waited_s, abs=0.1)


# -- figures -------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.002, 1000), max_size=200), st.integers(0, 300))
def test_quantiles_of_waits_are_right_to_a_hundredth(waits: list[float], at_once: int) -> None:
    tally = Tally(1, 1)
    tally.requests = len(waits) + at_once
    for wait in waits:
        tally.wait(wait)
    outcome = tally.outcome("", started=0.0, now=1.0)
    every = sorted([0.0] * at_once + waits)
    for part, found in ((0.5, outcome.p50_s), (0.95, outcome.p95_s), (0.99, outcome.p99_s)):
        exact = every[max(0, int(np.ceil(part * len(every))) - 1)] if every else 0.0
        assert exact * 0.999 <= found <= exact * 1.011 + 1e-9
    assert outcome.waited_s == pytest.approx(sum(waits))


def test_memory_is_counted_by_the_time_that_it_is_taken() -> None:
    tally = Tally(1, 100)
    tally.load(0, 50, 4.0, 0.0)
    tally.use(50, 5.0)
    tally.use(-50, 7.0)
    tally.unloaded(0, 50, 10.0)
    outcome = tally.outcome("", started=0.0, now=20.0)
    assert (outcome.utilization, outcome.in_use) == (0.25, 0.05)


# -- what must hold, whatever is asked -----------------------------------------------------------------------------


class Watched(Simulator):
    """Looks at all records at each turn."""

    def turn(self, now: float) -> None:
        super().turn(now)
        self.see_that_promises_are_kept(now)
        done = (self.tally.loads, self.tally.evictions)
        before = [(record.key, record.state, record.memory) for record in self.models.records()]
        super().turn(now)
        assert done == (self.tally.loads, self.tally.evictions), "a plan that is applied twice does something twice"
        assert before == [(record.key, record.state, record.memory) for record in self.models.records()]

    def see_that_promises_are_kept(self, now: float) -> None:
        held = dict.fromkeys((device.id for device in self.world.fleet().devices), 0)
        for record in self.models.records():
            assert record.memory.held == (record.memory.stated if record.occupies else 0), "promised and kept account of once"
            if record.occupies:
                assert record.placement is not None
                for name in record.placement.devices:
                    held[name] += record.memory.held
            if isinstance(record.phase, Draining | Unloading):
                assert not record.wish.pinned, "a pinned model goes"
            if isinstance(record.phase, Unloading):
                assert not record.use.leases or record.phase.leaving.until <= now, "a model in use is unloaded"
        for device in self.world.fleet().devices:
            assert held[device.id] <= device.budget_bytes, "over a device's budget"


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[SimulatedModel], Fleet, list[Arrival], Policies]:
    fleet = fleet_of(*draw(st.lists(st.integers(4, 16), min_size=1, max_size=3)), *[draw(st.integers(4, 16))] * 2)
    count = draw(st.integers(1, 5))
    ranks = [draw(st.sampled_from((1, 1, 2))) for _ in range(count)]
    models = [
        SimulatedModel(
            name=f"m{number}",
            bytes=draw(st.integers(1, 17)) * GIB if ranks[number] == 1 else draw(st.integers(4, 33)) * GIB,
            tensor_parallel=ranks[number],
            load_seconds=draw(st.sampled_from((0.0, 0.5, 3.0, 20.0))),
            unload_seconds=draw(st.sampled_from((0.0, 1.0, 5.0))),
            pinned=draw(st.integers(0, 9)) == 0,
        )
        for number in range(count)
    ]
    moments = st.tuples(st.floats(0, 400), st.integers(0, count - 1), st.sampled_from((0.0, 0.2, 2.0, 60.0)))
    arrivals = draw(st.lists(moments, min_size=1, max_size=40))
    policies = Policies(
        turn_seconds=draw(st.sampled_from((1.0, 10.0))),
        min_residence_seconds=draw(st.sampled_from((None, 0.0, 10.0))),
        evict_after_idle_seconds=draw(st.sampled_from((5.0, 300.0))),
        eviction=draw(st.sampled_from(Eviction)),
        unload_without_pressure=draw(st.booleans()),
        move_idle=draw(st.booleans()),
    )
    return models, fleet, arrivals, policies


@given(worlds())
def test_promises_hold_and_nobody_is_loaded_without_being_asked(
    world: tuple[list[SimulatedModel], Fleet, list[Arrival], Policies],
) -> None:
    models, fleet, arrivals, policies = world
    simulator = Watched(models, fleet, policies, Conditions(request_timeout_s=120.0))
    outcome = simulator.run(trace_of(arrivals, len(models)))
    assert outcome.requests == len(arrivals)
    wanted = outcome.cold_starts + sum(model.pinned for model in models)
    assert outcome.loads <= wanted + (len(arrivals) if policies.move_idle else 0), "A and B are loaded in turn for nobody"
    assert outcome.longest_s <= 120.001
    assert all(not record.use.leases and not record.use.waiting for record in simulator.models.records())


@given(worlds(), st.sampled_from(sorted(PLAIN)))
def test_plain_servers_keep_the_same_promises(
    world: tuple[list[SimulatedModel], Fleet, list[Arrival], Policies], policy: str
) -> None:
    models, fleet, arrivals, policies = world
    trace = trace_of(arrivals, len(models))
    server = PlainServer(models, fleet, policies, Conditions(request_timeout_s=120.0), policy=policy, trace=trace)
    outcome = server.run()
    assert outcome.requests == len(arrivals)
    assert outcome.loads <= outcome.cold_starts + sum(model.pinned for model in models)
    assert outcome.longest_s <= 120.001
    assert 0 <= outcome.in_use <= outcome.utilization + 1e-9 <= 1 + 2e-9

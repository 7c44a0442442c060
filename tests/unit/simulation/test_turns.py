"""Who waits is served: models that do not fit together and are always in use, in virtual time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from modelium.controller.leases import Lease
from modelium.simulation.simulator import Conditions, Request, Simulator
from modelium.values import EvictForRequests, Policies

from .small import Arrival, fleet_of, models_of, simulate, trace_of

IDLE = Policies(evict_for_requests=EvictForRequests.IDLE)
DRAIN_S = 30.0


def all_the_time(index: int, seconds: float, until: float, every: float) -> list[Arrival]:
    """So often that the model is never without a lease."""
    return [(at * every, index, seconds) for at in range(int(until / every))]


@settings(max_examples=5)
@given(st.integers(2, 5), st.integers(1, 2), st.floats(0.5, 20), st.floats(0.2, 60))
def test_nobody_starves_where_all_are_always_in_use(count: int, fitting: int, load_s: float, seconds: float) -> None:
    arrivals = [each for index in range(count) for each in all_the_time(index, seconds, 120, every=seconds / 2)]
    models = models_of(*[1] * count, load_s=load_s, unload_s=0.5)
    outcome = simulate(arrivals, models, fleet_of(fitting), request_timeout_s=3600, max_waiting=10_000)
    a_turn = max(10.0, load_s, 5.0) + min(DRAIN_S, seconds) + 0.5 + load_s
    assert outcome.missed == outcome.refused == 0
    assert outcome.longest_s <= a_turn * (count + 1), "of each that was before it one turn"


def test_two_that_do_not_fit_asked_in_turn_are_both_answered_soon() -> None:
    arrivals = [(2.0 * number, number % 2, 0.2) for number in range(150)]
    models, fleet = models_of(1, 1, load_s=2, unload_s=0.5), fleet_of(1)
    swap, idle = (simulate(arrivals, models, fleet, policies=policies) for policies in (Policies(), IDLE))
    assert swap.missed == 0 and swap.longest_s < 5 + 2 * (2 + 0.5) + 1
    assert idle.missed > 0, "as it was: half of them time out"
    assert swap.loads <= 150 / 2, "requests are grouped"


class Noting(Simulator):
    """What each model's requests waited at most."""

    def begin(self, request: Request, lease: Lease) -> None:
        self.longest[request.index] = max(self.longest.get(request.index, 0.0), self.world.now - request.at)
        super().begin(request, lease)

    longest: dict[int, float]


def test_a_model_much_larger_than_the_others_has_its_turn() -> None:
    big = 6
    arrivals = [each for index in range(big) for each in all_the_time(index, 3.0, 100, every=1.5)]
    models = models_of(*[1] * big, 4, load_s=2, unload_s=0.5)
    simulator = Noting(models, fleet_of(4), Policies(), Conditions())
    simulator.longest = {}
    outcome = simulator.run(trace_of([*arrivals, (20.0, big, 0.2)], len(models)))
    assert outcome.missed == 0 and simulator.longest[big] < 120 + 30, "whom nobody passes after two minutes"


@settings(max_examples=4)
@given(
    st.integers(2, 4),
    st.sampled_from((1, 2, 2, 4)),
    st.floats(0.2, 25),
    st.floats(0.5, 40),
    st.integers(0, 6),
    st.integers(2, 4),
)
def test_a_stream_of_small_ones_never_shuts_out_one_that_needs_whole_devices(
    count: int, ranks: int, load_s: float, seconds: float, spare: int, size: int
) -> None:
    """All devices are full of small ones that are always in use, and more of them wait for a place all the time."""
    ranks = min(ranks, count)
    small = 8 // size * count + spare
    arrivals = [each for index in range(small) for each in all_the_time(index, seconds, 240, every=seconds / 2)]
    models = models_of(*[size] * small, 8 * ranks, load_s=load_s, spread={small: ranks})
    simulator = Noting(models, fleet_of(*[8] * count), Policies(), Conditions(request_timeout_s=900, max_waiting=100_000))
    simulator.longest = {}
    outcome = simulator.run(trace_of([*arrivals, (20.0, small, 0.2)], len(models)))
    nobody_passes, residence = 120.0, 5.0
    assert simulator.longest[small] < nobody_passes + residence + 3 * load_s + min(DRAIN_S, seconds) + 10.0
    assert outcome.missed == outcome.refused == 0, "and they come back"


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.1, 8)), min_size=2, max_size=120), st.floats(0.5, 20))
def test_models_that_do_not_fit_together_are_not_loaded_in_turn_without_bound(
    asked: list[tuple[int, float]], load_s: float
) -> None:
    """A load answers somebody, and what nobody asks is never loaded: so there are no more loads than requests."""
    at, arrivals = 0.0, list[Arrival]()
    for number, gap_s in asked:
        at += gap_s
        arrivals.append((at, number, 0.2))
    outcome = simulate(arrivals, models_of(1, 1, 1, 1, load_s=load_s), fleet_of(1))
    assert outcome.loads <= len(arrivals)
    residences = 1 + at / min(load_s, 1.0 + load_s)
    assert outcome.loads <= residences + 4, "each load takes its time, and what was loaded stays for a while"

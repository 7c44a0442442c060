"""Loads before anybody asks: who is expected, what becomes of it, and that nobody has to go for it."""

from __future__ import annotations

from modelium.brain.arrivals import learned
from modelium.brain.preload import is_expected
from modelium.controller.life import effects as do
from modelium.controller.life import events as happens
from modelium.controller.life.effects import Preload
from modelium.controller.preloads import Moves
from modelium.simulation.runs import CONFIGURED, Setting, run_each
from modelium.simulation.simulator import Conditions, Simulator
from modelium.values import Arrivals, Demand, Policies
from tests.unit.controller.histories import ARRIVED, Life, evict, load, loaded, told, unloaded
from tests.unit.simulation.small import fleet_of, models_of, trace_of


def asked_each(gap_s: float, times: int = 9) -> Arrivals:
    arrivals = Arrivals()
    for number in range(times):
        arrivals = learned(arrivals, gap_s, now=number * gap_s)
    return arrivals


def test_what_is_asked_by_the_clock_is_expected_shortly_before() -> None:
    each_10_min = asked_each(600.0)
    assert not is_expected(each_10_min, silent_s=100.0, load_s=20.0, now=0.0)
    assert is_expected(each_10_min, silent_s=560.0, load_s=20.0, now=0.0)
    assert not is_expected(each_10_min, silent_s=6000.0, load_s=20.0, now=0.0)


def test_too_little_history_expects_nothing() -> None:
    for silent_s in (0.0, 10.0, 60.0, 600.0):
        assert not is_expected(asked_each(60.0, times=1), silent_s=silent_s, load_s=20.0, now=0.0)
        assert not is_expected(Arrivals(), silent_s=silent_s, load_s=20.0, now=0.0)


EXPECTED = happens.Expected(soon=True)


def outcomes(life: Life) -> list[Preload]:
    return [effect.outcome for effect in life.effects if isinstance(effect, do.CountPreload)]


def test_a_preload_is_used_by_the_first_request_or_wasted() -> None:
    life = told(*ARRIVED, happens.UserUnloads(), EXPECTED)
    assert life.want is Demand.EXPECTED
    assert outcomes(life.tell(load(), loaded(1))) == [Preload.BEGUN]
    assert outcomes(life.tell(happens.Asked(), happens.Asked())) == [Preload.USED]
    assert outcomes(life.tell(evict())) == []
    other = told(*ARRIVED, happens.UserUnloads(), EXPECTED, load(), loaded(1))
    assert outcomes(other.tell(evict())) == [Preload.WASTED]
    answered = told(*ARRIVED, happens.UserUnloads(), EXPECTED, load(), loaded(1))
    assert outcomes(answered.tell(happens.LeaseTaken(comes=True))) == [Preload.USED]


def test_what_is_not_expected_any_more_is_not_wanted_and_another_wish_stays() -> None:
    life = told(*ARRIVED, happens.UserUnloads(), EXPECTED, happens.Expected(soon=False))
    assert life.want is Demand.NONE
    assert told(*ARRIVED, EXPECTED, want=Demand.RESTORE).want is Demand.RESTORE
    assert outcomes(told(*ARRIVED, load(), loaded(1)).tell(happens.Asked())) == [], "it was discovered, not expected"


def waited(*, preload: bool) -> tuple[float, int]:
    """A is asked each ten minutes. Between, B takes its room, and gives it to the smaller C: for minutes there is room."""
    arrivals = [(600.0 * period + offset, model, 1.0) for period in range(14) for offset, model in ((0, 0), (200, 1), (300, 2))]
    setting = Setting(
        trace=trace_of(arrivals, 3),
        models=models_of(5, 8, 4),
        fleet=fleet_of(10),
        policies=Policies(preload=preload),
        conditions=Conditions(),
    )
    (outcome,) = run_each(setting, (CONFIGURED,))
    assert outcome.missed == outcome.refused == 0
    return outcome.waited_s, outcome.loads


def test_where_there_is_room_what_is_expected_is_loaded_before_its_request() -> None:
    without, loads = waited(preload=False)
    with_it, as_many = waited(preload=True)
    assert with_it < without - 8 * 4.0, "of fourteen requests for A the most found it loaded"
    assert as_many <= loads + 2


# -- moves -----------------------------------------------------------------------------------------------------------

GOES = (load(), loaded(1), evict("evict.6", "big", moves_to="cuda:1"), happens.PassEnds(is_waited_for=False, disturbs=False))


def test_what_moves_is_wanted_again_when_it_is_unloaded() -> None:
    life = told(*ARRIVED, *GOES)
    assert life.want is Demand.NONE
    assert life.tell(unloaded(2)).want is Demand.EXPECTED
    stays = told(*ARRIVED, *GOES[:2], evict("evict.6", "big"), GOES[3], unloaded(2))
    assert stays.want is Demand.NONE
    assert told(*ARRIVED, *GOES, happens.UserUnloads(), unloaded(2)).want is Demand.NONE, "its user does not want it"


def moved(*, big: float = 36, **policies: bool) -> tuple[float, int, int]:
    """Three are asked each minute, so the next request is known; once a big one comes, for which one of them has to go."""
    arrivals = [(60.0 * minute + 10 * index, index, 0.5) for index in range(3) for minute in range(40)]
    setting = Setting(
        trace=trace_of([*arrivals, (1830.0, 3, 5.0)], 4),
        models=models_of(12, 12, 12, big),
        fleet=fleet_of(40, 40),
        policies=Policies(**policies),  # type: ignore[arg-type]
        conditions=Conditions(),
    )
    (outcome,) = run_each(setting, (CONFIGURED,))
    assert outcome.missed == outcome.refused == 0
    return outcome.cold_starts, outcome.loads, outcome.evictions


def test_what_had_to_go_is_there_on_another_device_before_it_is_asked() -> None:
    assert moved(move_idle=False) == (5, 5, 1), "it waits for its load when it is asked"
    assert moved() == (4, 5, 1)
    assert moved(big=16) == (4, 4, 0), "nobody moves where nobody has to go"


def test_a_move_that_finds_no_room_is_withdrawn() -> None:
    """On the other device there was room when it was decided."""
    simulator = Simulator(models_of(12, 12, 12, 36), fleet_of(40, 40), Policies(), Conditions())
    model = simulator.models.get("m1")
    assert model is not None
    simulator.models.apply(model, happens.Expected(soon=True))
    moves = Moves(simulator.models)
    moves.begin("m1")
    found = []
    for seconds in (9.0, 11.0):
        moves.end(simulator.world.now + seconds)
        found.append(model.record.demand)
    assert found == [Demand.EXPECTED, Demand.NONE]


def test_what_a_user_sent_away_is_not_brought_back_before_somebody_asks() -> None:
    life = told(*ARRIVED, load(), loaded(1), happens.UserUnloads())
    assert life.record.wish.sent_away
    assert not life.tell(happens.Asked()).record.wish.sent_away

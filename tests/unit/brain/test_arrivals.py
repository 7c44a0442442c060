"""What is learned of the times between visits, and that without it the longest unused comes first."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.brain import usage as use
from modelium.brain.arrivals import began, chance, expected_s, foreseen_s, is_sure, learned, rhythm, turned, worth
from modelium.brain.usage import UsageWindow
from modelium.values import Arrivals

DAY_S = 86_400.0
silences = st.floats(0, 3e6)


def asked(*gaps_s: float) -> Arrivals:
    arrivals, now = Arrivals(), 0.0
    for gap_s in gaps_s:
        now += gap_s
        arrivals = learned(arrivals, gap_s, now)
    return arrivals


histories = st.lists(st.floats(0, 1e6), max_size=40).map(lambda gaps: asked(*gaps))


@given(silences, silences)
def test_without_history_the_longer_unused_is_worth_less(one: float, other: float) -> None:
    shorter, longer = sorted((one, other))
    assert worth(Arrivals(), longer, 0.0) <= worth(Arrivals(), shorter, 0.0) * (1 + 1e-9)


@given(histories, st.floats(1.5e6, 3e6))
def test_a_silence_longer_than_all_that_was_learned_is_as_without_history(arrivals: Arrivals, silent_s: float) -> None:
    assert worth(arrivals, silent_s, 0.0) == pytest.approx(worth(Arrivals(), silent_s, 0.0))


@given(histories, silences, st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_chance_is_one_and_grows_with_the_while(arrivals: Arrivals, silent_s: float, within_s: float, more_s: float) -> None:
    sooner, later = chance(arrivals, silent_s, within_s), chance(arrivals, silent_s, within_s + more_s)
    assert -1e-9 <= sooner <= later + 1e-9 <= 1 + 2e-9


@given(histories, silences)
def test_what_is_expected_has_an_even_chance(arrivals: Arrivals, silent_s: float) -> None:
    next_s = expected_s(arrivals, silent_s)
    assert next_s >= 0 and 0 < worth(arrivals, silent_s, 0.0) < math.inf
    if not math.isinf(next_s):
        assert chance(arrivals, silent_s, next_s) == pytest.approx(0.5, abs=0.01)


def test_what_is_asked_by_the_clock_is_worth_most_shortly_before() -> None:
    each_10_min = asked(*[600.0] * 20)
    assert 550 < 30 + expected_s(each_10_min, 30.0) < 650
    assert worth(each_10_min, 580.0, 0.0) > 5 * worth(each_10_min, 30.0, 0.0) > worth(each_10_min, 900.0, 0.0)


def test_what_is_asked_in_bursts_is_worth_little_when_the_burst_is_over() -> None:
    bursts = asked(*([3.0] * 10 + [3600.0]) * 5)
    assert worth(bursts, 2.0, 0.0) > 20 * worth(bursts, 30.0, 0.0)
    assert 1 < expected_s(bursts, 1.0) < 4 and expected_s(bursts, 60.0) > 1800


def test_what_changed_its_habit_is_soon_known_by_the_new_one() -> None:
    slower = asked(*[10.0] * 200, *[300.0] * 40)
    assert 200 < 60 + expected_s(slower, 60.0) < 400


def test_two_gaps_are_no_history_three_are() -> None:
    assert not is_sure(asked(60.0)) and is_sure(asked(60.0, 60.0))


def test_what_is_foreseen_was_seen_before() -> None:
    twice = asked(24.0, 24.0)
    assert 8 < (foreseen_s(twice, 10.0) or 0) < 24
    assert foreseen_s(twice, 60.0) is None, "it was never silent for so long"
    assert foreseen_s(asked(24.0), 10.0) is None, "that is no history"
    often = asked(*[60.0] * 50, *[3600.0] * 5)
    assert 1800 < (foreseen_s(often, 600.0) or 0) < 4000
    assert foreseen_s(often, 20_000.0) is None


def test_days_of_history_tell_the_hours() -> None:
    arrivals = began(Arrivals(), 9 * 3600.0)
    for day in range(5):
        for quarter in range(1, 33):
            arrivals = learned(arrivals, 900.0, day * DAY_S + 9 * 3600 + quarter * 900)
        assert day >= 3 or rhythm(arrivals, 10 * 3600.0) == 1.0
        arrivals = learned(arrivals, 16 * 3600.0, (day + 1) * DAY_S + 9 * 3600)
    assert rhythm(arrivals, 10 * DAY_S + 12 * 3600) > 2 > 1 > rhythm(arrivals, 10 * DAY_S + 2 * 3600)
    assert worth(arrivals, 4000.0, 12 * 3600.0) > worth(arrivals, 4000.0, 2 * 3600.0)
    assert turned(turned(arrivals, 5), -5) == arrivals
    assert rhythm(turned(arrivals, 5), 17 * 3600.0) == rhythm(arrivals, 12 * 3600.0)


def test_use_teaches_them_also_where_only_triton_counted() -> None:
    window = use.start(0.0)
    for minute in range(1, 6):
        window = use.observe(window, completed=minute, now=minute * 60.0)
    assert sum(window.arrivals.gaps) > 3 and 30 < 10 + expected_s(window.arrivals, 10.0) < 90
    again = use.start(1000.0, UsageWindow(arrivals=window.arrivals))
    assert use.usage(again, in_flight=0, now=1001.0).asked, "an earlier Modelium saw that it is used"

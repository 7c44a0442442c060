"""When a model is asked next, learned from the times between its visits (``usage.ask()`` says what a visit is).

What enters: what was learned, a gap, how long the model has been silent. What leaves: what was learned since, the chance of a
visit within a while, when the next one is expected, and what it is worth to keep the model.

Each gap adds to the weight of the two widths nearest to it, and the earlier ones fade. Beside them stands a prior: a little
weight that is equal for each width. With the prior alone the chance of a visit falls as the silence grows, so the longest
unused is the least worth; and so it is again after a silence that is longer than all that was learned.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise

from modelium.values import Arrivals

_PER_OCTAVE = 2
_EDGES_S = tuple(2 ** (number / _PER_OCTAVE) for number in range(41))  # from a second to twelve days
WIDTHS = len(_EDGES_S) - 1
"""How many widths of gaps are told apart."""
HOURS = 24

_WIDTH = math.log(2) / _PER_OCTAVE
_MEANS_S = tuple((high - low) / _WIDTH for low, high in pairwise(_EDGES_S))  # within a width the gaps' logarithms are even
_NONE = (0.0,) * WIDTHS

_FADING = 0.99  # of what was learned, at each gap: the last hundred count
_PRIOR = 0.05  # of each width; on the traces of bench/policies.py 0.02 and 0.15 are about as good
_NEVER = 0.2  # that no visit comes at all
_SURE = 1.9  # gaps from which there is a history
_WORTH_TELLING = 1.0  # of these, as many were longer than the silence until now

_DAY_S = 86_400.0
_DAYS_OF_RHYTHM_S = 3 * _DAY_S
_HALF_LIFE_S = 7 * _DAY_S  # of an hour's weight
_STRONGEST = 4.0  # how much more, or less, than on average a model is asked at some hour


def began(arrivals: Arrivals, now: float) -> Arrivals:
    """The first visit that was seen came now: it tells no gap."""
    hours = list(arrivals.hours or (0.0,) * HOURS)
    hours[_hour(now)] += 1.0
    return Arrivals(gaps=arrivals.gaps, hours=tuple(hours), span_s=arrivals.span_s)


def learned(arrivals: Arrivals, gap_s: float, now: float) -> Arrivals:
    """A visit came now, ``gap_s`` after the use before it.

    >>> each_minute = Arrivals()
    >>> for minute in range(1, 9):
    ...     each_minute = learned(each_minute, 60.0, now=minute * 60.0)
    >>> round(chance(each_minute, silent_s=40.0, within_s=40.0), 1), round(expected_s(each_minute, silent_s=40.0))
    (0.7, 21)
    """
    gaps = [weight * _FADING for weight in arrivals.gaps or _NONE]
    at = min(max(math.log(max(gap_s, _EDGES_S[0])) / _WIDTH - 0.5, 0.0), WIDTHS - 1.0)
    nearest = min(int(at), WIDTHS - 2)
    gaps[nearest] += nearest + 1 - at
    gaps[nearest + 1] += at - nearest
    still = 0.5 ** (gap_s / _HALF_LIFE_S)
    hours = [weight * still for weight in arrivals.hours or (0.0,) * HOURS]
    hours[_hour(now)] += 1.0
    return Arrivals(gaps=tuple(gaps), hours=tuple(hours), span_s=arrivals.span_s + gap_s)


def is_sure(arrivals: Arrivals) -> bool:
    """Were there visits enough to expect the next one?"""
    return sum(arrivals.gaps) > _SURE


def chance(arrivals: Arrivals, silent_s: float, within_s: float) -> float:
    """Of a visit within ``within_s`` from now, after a silence of ``silent_s`` until now."""
    before = _weight_until(arrivals, silent_s)
    after = _weight_until(arrivals, silent_s + within_s)
    return (after - before) / (sum(arrivals.gaps) + _PRIOR * WIDTHS + _NEVER - before)


def expected_s(arrivals: Arrivals, silent_s: float) -> float:
    """From now until the next visit: as likely sooner as later. Infinite where more likely none comes at all."""
    gaps = arrivals.gaps or _NONE
    rest = (sum(gaps) + _PRIOR * WIDTHS + _NEVER - _weight_until(arrivals, silent_s)) / 2
    low = max(silent_s, _EDGES_S[0])
    for number in range(_width(low), WIDTHS):
        high = _EDGES_S[number + 1]
        ratio = high / low if high > low else 1.0
        weight = (gaps[number] + _PRIOR) * math.log(ratio) / _WIDTH
        if weight >= rest:
            return low * math.pow(ratio, rest / weight) - silent_s
        rest -= weight
        low = high
    return math.inf


def foreseen_s(arrivals: Arrivals, silent_s: float) -> float | None:
    """:func:`expected_s` where that is worth telling. None where there were too few visits, where the silence is longer than
    the gaps that were learned (then only the prior speaks), and where more likely no visit comes at all."""
    if not is_sure(arrivals) or sum(arrivals.gaps[_width(max(silent_s, _EDGES_S[0])) :]) < _WORTH_TELLING:
        return None
    next_s = expected_s(arrivals, silent_s)
    return None if math.isinf(next_s) else next_s


def worth(arrivals: Arrivals, silent_s: float, now: float) -> float:
    """Visits that each second answers for which the model is kept from now on.

    Kept for a while and dropped then, where no visit came, it answers the chance of a visit within that while, and stays for
    the expected length of it: that over this, for the while where it is most. What is asked each hour on the hour is worth most
    a minute before; what has just been asked, and is asked in bursts, is worth much for some seconds. With days of history, an
    hour of the day counts as it is usually asked in it.
    """
    silent_s = max(silent_s, _EDGES_S[0])
    if silent_s >= _EDGES_S[-1]:
        return _PRIOR / _WIDTH / _NEVER / silent_s
    gaps = arrivals.gaps or _NONE
    first = _width(silent_s)
    high = _EDGES_S[first + 1]
    left = math.log(high / silent_s)
    come = (gaps[first] + _PRIOR) * left / _WIDTH
    stay = come * ((high - silent_s) / left - silent_s)  # of those that came
    rest = sum(gaps[first + 1 :]) + _PRIOR * (WIDTHS - first - 1) + _NEVER
    most = come / (stay + rest * (high - silent_s))
    for weight, mean, high in zip(gaps[first + 1 :], _MEANS_S[first + 1 :], _EDGES_S[first + 2 :], strict=True):
        weight += _PRIOR
        rest -= weight
        come += weight
        stay += weight * (mean - silent_s)
        whole = stay + rest * (high - silent_s)
        if come > most * whole:
            most = come / whole
        elif come + rest <= most * whole:
            break  # if all the rest came at once it would not be more
    return most * rhythm(arrivals, now)


def rhythm(arrivals: Arrivals, now: float) -> float:
    """How much more than on average it is asked at this hour of the day and the next; 1 before there are days of it."""
    if arrivals.span_s < _DAYS_OF_RHYTHM_S or not arrivals.hours:
        return 1.0
    this, whole = _hour(now), sum(arrivals.hours)
    part = (arrivals.hours[this] + arrivals.hours[(this + 1) % HOURS]) / 2
    return min(max(part * HOURS / whole, 1 / _STRONGEST), _STRONGEST)


def turned(arrivals: Arrivals, hours: int) -> Arrivals:
    """The same for a clock whose zero is that many hours earlier: what was hour 0 is ``hours`` then."""
    if not arrivals.hours:
        return arrivals
    by = -hours % HOURS
    return Arrivals(gaps=arrivals.gaps, hours=arrivals.hours[by:] + arrivals.hours[:by], span_s=arrivals.span_s)


def _width(gap_s: float) -> int:
    return min(max(bisect_right(_EDGES_S, gap_s) - 1, 0), WIDTHS - 1)


def _hour(now: float) -> int:
    return int(now // 3600) % HOURS


def _weight_until(arrivals: Arrivals, gap_s: float) -> float:
    """Of the gaps up to that one."""
    gap_s = min(max(gap_s, _EDGES_S[0]), _EDGES_S[-1])
    number = _width(gap_s)
    gaps = arrivals.gaps or _NONE
    return sum(gaps[:number]) + _PRIOR * number + (gaps[number] + _PRIOR) * math.log(gap_s / _EDGES_S[number]) / _WIDTH

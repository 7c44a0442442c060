"""Use of a model from the counters that Triton reports, so that traffic straight to Triton's ports counts too.

What enters: the window so far, a reading of the counters, and ``now``. What leaves: the next window.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from modelium.brain import arrivals
from modelium.values import Arrivals, Usage
from modelium.values.replacing import replaced

_VISIT_S = 1.0  # requests closer than that are one visit: a page that asks for ten things does so once
_NEWEST_COUNTS = 0.3

WINDOW_S = 60.0
"""QPS is over the last minute, or over ``evict_after_idle_seconds`` where that is shorter: else eviction's rule 3
would hide rule 4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageWindow:
    """``readings``: (instant, requests since Modelium started) inside the window and the last one before it.

    ``raw`` is Triton's own counter at the last reading: it restarts from 0 whenever the model is loaded. ``asked_at``: when
    the last request came, None before the first; ``visited_at``: the last that counted as a visit; ``gap_s``: from use to the
    next visit, the geometric mean (one night says little of a day), the later ones count more, 0 before the second.
    ``ended_at``: when the last request did. ``arrivals``: what was learned of all gaps, also by an earlier Modelium.
    """

    readings: tuple[tuple[float, int], ...] = ()
    total: int = 0
    raw: int = 0
    last_used_at: float = 0.0
    asked_at: float | None = None
    visited_at: float = 0.0
    gap_s: float = 0.0
    ended_at: float = 0.0
    arrivals: Arrivals = field(default_factory=Arrivals)


def start(now: float, previous: UsageWindow | None = None) -> UsageWindow:
    """The window of a model that was just loaded: a load is the beginning of idleness, and the counter starts at 0."""
    total = previous.total if previous else 0
    before = previous or UsageWindow()
    return replaced(before, readings=((now, total),), total=total, raw=0, last_used_at=now)


def observe(window: UsageWindow, *, completed: int, now: float, window_s: float = WINDOW_S) -> UsageWindow:
    """Take a reading of ``completed`` (successes and failures since the model was loaded).

    1. A counter that went down was reset by a reload that we did not see: all of it is new.
    2. A counter that moved means use, at the latest now: the time of the last request is not known better.
    3. Readings older than the window are dropped, except the newest of them, which is the base line.
    """
    fresh = completed - window.raw if completed >= window.raw else completed  # 1
    total = window.total + fresh
    readings = (*window.readings, (now, total))
    while len(readings) > 2 and readings[1][0] <= now - window_s:  # 3
        readings = readings[1:]
    used = ask(window, now) if fresh and not _was_touched(window) else window
    last_used_at = now if fresh else window.last_used_at  # 2
    ended_at = now if fresh else window.ended_at
    return replaced(used, readings=readings, total=total, raw=completed, last_used_at=last_used_at, ended_at=ended_at)


def _was_touched(window: UsageWindow) -> bool:
    """Did a lease end since the last reading? Then what Triton counted is no other visit."""
    return bool(window.readings) and window.last_used_at > window.readings[-1][0]


def ask(window: UsageWindow, now: float) -> UsageWindow:
    """A request came. How long nobody wanted the model before it is a gap; what it waits for a load, or is answered, is none.

    At most one gap a second counts, and none is shorter: what is asked all the time has gaps of a second.
    """
    if window.asked_at is None:
        return replaced(window, asked_at=now, visited_at=now, arrivals=arrivals.began(window.arrivals, now))
    if now - window.visited_at < _VISIT_S:
        return replaced(window, asked_at=now)
    quiet_s = max(now - max(window.asked_at, window.ended_at), _VISIT_S)
    gap_s = window.gap_s * (quiet_s / window.gap_s) ** _NEWEST_COUNTS if window.gap_s else quiet_s
    learned = arrivals.learned(window.arrivals, quiet_s, now)
    return replaced(window, asked_at=now, visited_at=now, gap_s=gap_s, arrivals=learned)


def touch(window: UsageWindow, now: float) -> UsageWindow:
    """A lease ended now."""
    return replaced(window, last_used_at=max(now, window.last_used_at), ended_at=max(now, window.ended_at))


def usage(window: UsageWindow, *, in_flight: int, now: float, window_s: float = WINDOW_S) -> Usage:
    """What the brain sees. QPS is over the window, or over the time since the first reading when that is shorter (≥ 1 s).

    >>> w = observe(start(0.0), completed=30, now=60.0)
    >>> usage(w, in_flight=0, now=60.0).qps
    0.5
    """
    since, base = now, window.total
    for at, total in window.readings:  # the newest reading that the window has left behind, else the first
        if at > now - window_s and since != now:
            break
        since, base = at, total
    qps = (window.total - base) / max(now - since, 1.0)
    return Usage(
        qps=qps,
        last_used_at=window.last_used_at,
        in_flight=in_flight,
        requests=window.total,
        asked=window.asked_at is not None or bool(window.arrivals.hours),
        gap_s=window.gap_s,
        arrivals=window.arrivals,
        silent_since=max(window.asked_at, window.ended_at) if window.asked_at is not None else None,
    )

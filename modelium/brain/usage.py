"""Use of a model from the counters that Triton reports, so that traffic straight to Triton's ports counts too.

What enters: the window so far, a reading of the counters, and ``now``. What leaves: the next window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from modelium.values import Usage

WINDOW_S = 60.0
"""QPS is over the last minute, or over ``evict_after_idle_seconds`` where that is shorter: else rule 3 would hide rule 4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageWindow:
    """``readings``: (instant, requests since Modelium started) inside the window and the last one before it.

    ``raw`` is Triton's own counter at the last reading: it restarts from 0 whenever the model is loaded.
    """

    readings: tuple[tuple[float, int], ...] = ()
    total: int = 0
    raw: int = 0
    last_used_at: float = 0.0


def start(now: float, previous: UsageWindow | None = None) -> UsageWindow:
    """The window of a model that was just loaded: a load is the beginning of idleness, and the counter starts at 0."""
    total = previous.total if previous else 0
    return UsageWindow(readings=((now, total),), total=total, raw=0, last_used_at=now)


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
    last_used_at = now if fresh else window.last_used_at  # 2
    return UsageWindow(readings=readings, total=total, raw=completed, last_used_at=last_used_at)


def touch(window: UsageWindow, now: float) -> UsageWindow:
    """A lease ended now."""
    return replace(window, last_used_at=max(now, window.last_used_at))


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
    return Usage(qps=qps, last_used_at=window.last_used_at, in_flight=in_flight, requests=window.total)

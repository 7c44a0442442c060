"""How often a model is visited: what was learned of the times between its visits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """``gaps``: the weight of each width of gap, from a second up (``brain/arrivals.py`` has the widths); empty before the
    second visit. ``hours``: the weight of each hour of the day, counted from the zero of the clock that ``now`` is read from;
    empty before the first visit. ``span_s``: over how long this was learned.
    """

    gaps: tuple[float, ...] = ()
    hours: tuple[float, ...] = ()
    span_s: float = 0.0

"""Which model is loaded before anybody asks for it. What was learned of its visits enters, whether one is expected leaves."""

from __future__ import annotations

from modelium.brain import arrivals
from modelium.values import Arrivals

_LIKELY = 0.5
_BLUR = 0.4  # of the silence: widths of gaps are told apart no better than that


def is_expected(learned: Arrivals, *, silent_s: float, load_s: float, now: float) -> bool:
    """Is it more likely than not asked before a load is done, as well as that can be told?

    A load for nothing costs time of the device and the disk, never another model's room; so the hour of the day only speaks
    against it.
    """
    if not arrivals.is_sure(learned):
        return False
    within_s = load_s + _BLUR * silent_s
    return arrivals.chance(learned, silent_s, within_s) >= _LIKELY and arrivals.rhythm(learned, now) >= 1.0

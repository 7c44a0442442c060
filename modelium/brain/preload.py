"""Which model is loaded, or read into memory, before anybody asks for it. What was learned of its visits enters, whether one is
expected leaves; the host's memory enters, what may be read leaves.
"""

from __future__ import annotations

from modelium.brain import arrivals
from modelium.values import Arrivals, Device

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


def spare_bytes(host: Device, *, promised: int, pressure_fraction: float) -> int:
    """Of the host's memory, what may hold files that are only expected to be read: neither taken nor promised, and not the last
    part, from which on it counts as being under pressure.

    What is read does not count as taken: the kernel gives it up for anything else. Who asks adds it to ``promised``.
    """
    return max(0, int(host.total_bytes * pressure_fraction) - host.used_bytes - promised)

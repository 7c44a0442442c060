"""Equal devices, kept in order of what is free on them: what suits one of them suits all, so a model is placed once for all.

What enters: devices, and how much is free on each as that changes. What leaves: their ids, the most free first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator

from modelium.values import Device


def likeness(device: Device) -> Hashable:
    """What two devices have in common when every model takes as much of one as of the other."""
    return device.kind, device.name, device.total_bytes, device.budget_bytes, device.cluster, device.node


class Peers:
    """At least one device, all of one likeness."""

    def __init__(self) -> None:
        self._order: list[tuple[int, str]] = []  # (minus what is free, id)
        self._free: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[str]:
        """Their ids, the most free first."""
        return (device for _, device in self._order)

    def __contains__(self, device: str) -> bool:
        return device in self._free

    @property
    def most_free(self) -> int:
        """Bytes free on the first."""
        return -self._order[0][0]

    def set_free(self, device: str, free: int) -> None:
        """So many bytes of it may be promised now."""
        known = self._free.get(device)
        if known == free:
            return
        if known is not None:
            del self._order[bisect_left(self._order, (-known, device))]
        self._free[device] = free
        insort(self._order, (-free, device))

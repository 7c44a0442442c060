"""Equal devices, kept in order: what suits one of them suits all, so a model is placed once for all.

What enters: devices, how much is free on each, and what it costs at least to make room there, as these change. What leaves:
their ids, the most free first, or those first where a look is worth while.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator
from itertools import islice

from modelium.values import Device

_MOST_FREE = 4  # devices that are worth a look whatever it costs to make room there


def likeness(device: Device) -> Hashable:
    """What two devices have in common when every model takes as much of one as of the other."""
    return device.kind, device.name, device.total_bytes, device.budget_bytes, device.cluster, device.node


class _Ranking:
    """Devices by a number, the smallest first."""

    def __init__(self) -> None:
        self.order: list[tuple[float, str]] = []
        self._numbers: dict[str, float] = {}

    def __iter__(self) -> Iterator[str]:
        return (device for _, device in self.order)

    def __contains__(self, device: str) -> bool:
        return device in self._numbers

    def set(self, device: str, number: float) -> None:
        known = self._numbers.get(device)
        if known == number:
            return
        if known is not None:
            del self.order[bisect_left(self.order, (known, device))]
        self._numbers[device] = number
        insort(self.order, (number, device))


class Peers:
    """At least one device, all of one likeness."""

    def __init__(self) -> None:
        self._by_free = _Ranking()  # by minus what is free
        self._by_harm = _Ranking()
        self._members: list[str] = []
        self._next_in_turn = 0

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[str]:
        """Their ids, the most free first."""
        return iter(self._by_free)

    def __contains__(self, device: str) -> bool:
        return device in self._by_free

    @property
    def most_free(self) -> int:
        """Bytes free on the first."""
        return self.free_on_each_of(1)

    def free_on_each_of(self, count: int) -> int:
        """Bytes free on each of the first so many; fewer than none where there are not so many."""
        return -int(self._by_free.order[count - 1][0]) if count <= len(self._members) else -1

    def set_free(self, device: str, free: int) -> None:
        """So many bytes of it may be promised now."""
        if device not in self._by_free:
            self._members.append(device)
            self._by_harm.set(device, 0.0)
        self._by_free.set(device, -free)

    def set_harm(self, device: str, harm: float) -> None:
        """What it costs at least to lose somebody there, for each byte; infinite where nobody may go."""
        self._by_harm.set(device, harm)

    def promising(self) -> Iterator[str]:
        """All of them: the most free, then those first where somebody may go whose loss does the least harm."""
        first = list(islice(self._by_free, _MOST_FREE))
        return iter([*first, *(device for device in list(self._by_harm) if device not in first)])

    def in_turn(self, count: int) -> list[str]:
        """So many of them, others each time until each had its turn."""
        start = self._next_in_turn % len(self._members)
        self._next_in_turn = start + count
        return (self._members * 2)[start : start + min(count, len(self._members))]

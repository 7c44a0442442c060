"""Who is looked at next: folders that wait enter, and leave in an order in which no crowd keeps one of them waiting for all.

1. First the folders of a better class (somebody waits for them), those known to take long last.
2. Of one class in turn: the one with the fewest bytes to read, the newest, the oldest. Whoever is the third of the small ones,
   or of the new ones, or of those who came first, is among the next nine or so, whatever else was dropped.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

Class = tuple[bool, ...]  # the smallest goes first


@dataclass(slots=True, eq=False)
class _Place(Generic[T]):
    item: T
    taken: bool = False

    def __lt__(self, other: _Place[T]) -> bool:
        return False  # nobody is before the other: one of them is the same item, taken and come back


@dataclass(slots=True, eq=False)
class _Crowd(Generic[T]):
    """All of one class, in three orders at once. A place that was taken is left out where it comes up."""

    orders: tuple[list[tuple[int, int, _Place[T]]], ...] = field(default_factory=lambda: ([], [], []))
    waiting: int = 0

    def push(self, item: T, came: int, reading_bytes: int) -> None:
        place = _Place(item)
        for order, key in zip(self.orders, (reading_bytes, -came, came), strict=True):
            heapq.heappush(order, (key, came, place))
        self.waiting += 1

    def pop(self, turn: int) -> T:
        order = self.orders[turn % len(self.orders)]
        while (place := heapq.heappop(order)[2]).taken:
            pass
        place.taken = True
        self.waiting -= 1
        return place.item


class Line(Generic[T]):
    """Those who wait to be looked at; ``docs/design.md`` says whose turn is next."""

    def __init__(self) -> None:
        self._crowds: dict[Class, _Crowd[T]] = {}
        self._turns = itertools.count()

    def __len__(self) -> int:
        return sum(crowd.waiting for crowd in self._crowds.values())

    def push(self, item: T, of: Class, *, came: int, reading_bytes: int) -> None:
        """``came``: a number of its own, greater than that of whoever came before; it keeps it when it comes back."""
        self._crowds.setdefault(of, _Crowd()).push(item, came, reading_bytes)

    def pop(self) -> T:
        """Raises ``ValueError`` where nobody waits."""
        first = min(self._crowds)
        crowd = self._crowds[first]
        item = crowd.pop(next(self._turns))
        if not crowd.waiting:
            del self._crowds[first]  # and what was taken with it
        return item

    def best(self) -> Class | None:
        """The class of whoever is next."""
        return min(self._crowds, default=None)

"""Who waits, in which order, and how many may: waiters enter, the next one leaves. Pure: no clock, and nothing waits here.

Each model has a ``Line``. Within a priority, who came first is the first; no priority gives anybody a place beyond the bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from modelium.controller.leases import Lease
from modelium.errors import KeyQueueFull, QueueFull
from modelium.values import Asker, Priority

_RETRY_AFTER_S = 5.0  # where nobody knows when a place is free
_SOONEST_S, _LATEST_S = 1.0, 30.0  # clients take no more than a minute for serious


def _not_known(_of: bool) -> float | None:
    return None


class Waiter(Protocol):
    """Somebody who waits for a lease: a future, or a request of the simulator's. ``done()``: answered, or gone."""

    def done(self) -> bool:
        """Nothing is to be said any more."""

    def set_result(self, lease: Lease, /) -> None:
        """It has its lease."""

    def set_exception(self, error: BaseException, /) -> None:
        """It waited in vain."""

    def __hash__(self) -> int:
        """Two waiters are two, whatever they wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many may wait: in all, for one model (None: as many), with one API key (None: as many). ``in_flight``: by model, how
    many requests may have a lease at once."""

    waiting: int = 512
    per_model: int | None = None
    per_key: int | None = None
    in_flight: Mapping[str, int] = field(default_factory=dict)


class Line:
    """Those who wait for one model. Only the ``Queue`` changes it."""

    __slots__ = ("levels",)

    def __init__(self) -> None:
        self.levels: tuple[dict[Waiter, Asker], ...] = tuple({} for _ in Priority)

    def __len__(self) -> int:
        return sum(map(len, self.levels))

    def __bool__(self) -> bool:
        return any(self.levels)

    def __iter__(self) -> Iterator[Waiter]:
        """The next one first."""
        for level in self.levels:
            yield from level


class Queue:
    """All lines together. ``waiting``: how many wait, for whichever model; ``by_key``: the same by the name of their keys."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.waiting = 0
        self.by_key: dict[str, int] = {}

    def check(self, line: Line, asker: Asker, free_in_s: Callable[[bool], float | None] = _not_known) -> None:
        """May one more wait? Raises ``QueueFull``, and ``KeyQueueFull`` where others may. ``free_in_s``: when the load that
        lets some of them go is over, where that is known; of this model's (True), or of whichever is over first."""
        bounds = self.bounds

        def again_in_s(of_model: bool) -> float:
            known = free_in_s(of_model)
            return _RETRY_AFTER_S if known is None else min(_LATEST_S, max(_SOONEST_S, known))

        mine = self.by_key.get(asker.key, 0)
        if asker.key and bounds.per_key is not None and mine >= bounds.per_key:
            words = f"{mine} requests with this API key wait already (gateway.max_waiting_per_key = {bounds.per_key})"
            raise KeyQueueFull(f"{words}; try again later", again_in_s(False))
        if self.waiting >= bounds.waiting:
            words = f"{self.waiting} requests wait for models already (gateway.max_waiting = {bounds.waiting})"
            raise QueueFull(f"{words}; try again later", again_in_s(False))
        if bounds.per_model is not None and len(line) >= bounds.per_model:
            words = f"{len(line)} requests wait for this model already (gateway.max_waiting_per_model = {bounds.per_model})"
            raise QueueFull(f"{words}; try again later", again_in_s(True))

    def join(self, line: Line, waiter: Waiter, asker: Asker) -> None:
        """One more waits, behind all others of its priority."""
        line.levels[asker.priority][waiter] = asker
        self.waiting += 1
        if asker.key:
            self.by_key[asker.key] = self.by_key.get(asker.key, 0) + 1

    def leave(self, line: Line, waiter: Waiter) -> bool:
        """It waits no more. False: it did not."""
        for level in line.levels:
            if (asker := level.pop(waiter, None)) is not None:
                self._forget(asker)
                return True
        return False

    def take(self, line: Line, most: int | None = None) -> list[Waiter]:
        """The next ones, who wait no more: at most so many. Those who are gone do not count."""
        taken: list[Waiter] = []
        for level in line.levels:
            while level and (most is None or len(taken) < most):
                waiter = next(iter(level))
                self._forget(level.pop(waiter))
                if not waiter.done():
                    taken.append(waiter)
        return taken

    def _forget(self, asker: Asker) -> None:
        self.waiting -= 1
        if asker.key:
            left = self.by_key[asker.key] - 1
            if left:
                self.by_key[asker.key] = left
            else:
                del self.by_key[asker.key]

"""One model: its record, and those who wait for it to change."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from modelium.controller.leases import Lease
from modelium.controller.life.record import Record


class Waiter(Protocol):
    """Somebody who waits for a lease: a future, or a request of the simulator's. ``done()``: answered, or gone."""

    def done(self) -> bool:
        """Nothing is to be said any more."""

    def set_result(self, lease: Lease, /) -> None:
        """It has its lease."""

    def set_exception(self, error: BaseException, /) -> None:
        """It waited in vain."""


@dataclass(slots=True, eq=False)
class Model:
    """``record`` is replaced as a whole, by ``Models.apply()`` alone. ``exit_watches``: what ends each watch of a process."""

    record: Record
    waiters: deque[Waiter] = field(default_factory=deque)
    unload_waiters: list[asyncio.Future[None]] = field(default_factory=list)
    exit_watches: list[Callable[[], None]] = field(default_factory=list)

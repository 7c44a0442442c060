"""One model: its record, and those who wait for it to change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from modelium.controller.life.record import Record
from modelium.controller.queue import Line


@dataclass(slots=True, eq=False)
class Model:
    """``record`` is replaced as a whole, by ``Models.apply()`` alone. ``line``: who waits for a lease. ``max_in_flight``: how
    many leases there may be at once, None: any number. ``exit_watches``: what ends each watch of a process."""

    record: Record
    max_in_flight: int | None = None
    line: Line = field(default_factory=Line)
    unload_waiters: list[asyncio.Future[None]] = field(default_factory=list)
    exit_watches: list[Callable[[], None]] = field(default_factory=list)

    @property
    def room(self) -> int | None:
        """How many more leases there may be; None: any number."""
        return None if self.max_in_flight is None else max(0, self.max_in_flight - self.record.use.leases)

    @property
    def takes_one_more(self) -> bool:
        """May a request that comes now have a lease, without passing one that waits?"""
        if not self.record.takes_requests:
            return False
        return self.max_in_flight is None or (self.record.use.leases < self.max_in_flight and not self.line)

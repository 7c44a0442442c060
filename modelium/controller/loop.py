"""The loop: events enter, a pass follows — observe, plan, apply — and an instant is set for the next one.

A defect that one model provokes is logged and costs that event or that pass, never the loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from modelium.controller.events import Event, Wake
from modelium.controller.models import Models
from modelium.controller.passes import Passes
from modelium.controller.pauses import Pauses
from modelium.controller.routing import Routing

log = logging.getLogger(__name__)

_HEARTBEAT_S = 1.0


class Loop:
    """Takes events from the queue. ``turned_at``: when it last began a turn; it does so every second.

    ``begin`` and ``end`` frame ``run()``; ``remember`` keeps what has to survive a restart, at each reading.
    """

    def __init__(
        self,
        queue: asyncio.Queue[Event],
        models: Models,
        routing: Routing,
        passes: Passes,
        *,
        measure_every_s: float,
        is_up: Callable[[], bool],
        begin: Callable[[], None],
        remember: Callable[[], object],
        end: Callable[[], Awaitable[None]],
    ) -> None:
        self._queue = queue
        self._models = models
        self._routing = routing
        self._passes = passes
        self._measure_every_s = measure_every_s
        self._is_up = is_up
        self._begin = begin
        self._remember = remember
        self._end = end
        self._timer: asyncio.TimerHandle | None = None
        self.turned_at = time.monotonic()
        self.pauses = Pauses()

    async def run(self) -> None:
        """Turn until cancelled."""
        self._begin()
        measuring = asyncio.create_task(self._measure_regularly(), name="measure regularly")
        watching = asyncio.create_task(self.pauses.watch(), name="watch for pauses")
        try:
            while True:
                self.turned_at = time.monotonic()
                try:
                    async with asyncio.timeout(_HEARTBEAT_S):
                        event = await self._queue.get()
                except TimeoutError:
                    continue
                self._handle(event)
                while not self._queue.empty():
                    self._handle(self._queue.get_nowait())
                self._pass()
        finally:
            measuring.cancel()
            watching.cancel()
            await self._end()
            self._remember()

    def _handle(self, event: Event) -> None:
        try:
            self._routing.handle(event)
        except Exception:  # one model's trouble must not stop the others
            log.exception("an event could not be handled, a defect of Modelium: %r", event)

    def _pass(self) -> None:
        now = time.monotonic()
        try:
            self._passes.run(now)
            self._models.start_analyses()
        except Exception:
            log.exception("a pass broke off, a defect of Modelium")
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        """``now``: of the pass. What became due while it went on was not planned, and is due at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        next_at = self._passes.next_at(now)
        if next_at is not None:
            wake = asyncio.get_running_loop().call_later
            self._timer = wake(max(0.0, next_at - time.monotonic()), self._queue.put_nowait, Wake())

    async def _measure_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._measure_every_s)
            try:
                if self._is_up():
                    self._models.measure()
                self._remember()
            except Exception:
                log.exception("measuring broke off, a defect of Modelium")
            self._queue.put_nowait(Wake())

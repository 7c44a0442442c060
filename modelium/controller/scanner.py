"""Looks into ``incoming/`` when a file event says so, and regularly: a lost event costs one interval, never a wrong state."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from modelium.controller.events import Scanned
from modelium.watcher import Watcher

log = logging.getLogger(__name__)


class Scanner:
    """``run()`` posts one ``Scanned`` at once, then one for each wake-up and one for each interval without any."""

    def __init__(self, watcher: Watcher, post: Callable[[Scanned], None], *, interval_s: float) -> None:
        self._watcher = watcher
        self._post = post
        self._interval_s = interval_s
        self._woken = asyncio.Event()
        self._woken_at: float | None = None

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()

        def wake() -> None:  # called from the watcher's thread
            loop.call_soon_threadsafe(self.wake)

        self._watcher.start(wake)
        try:
            while True:
                await self._scan()
                try:
                    async with asyncio.timeout(self._interval_s):
                        await self._woken.wait()
                except TimeoutError:
                    pass
        finally:
            self._watcher.stop()

    def wake(self) -> None:
        """Scan as soon as the scan under way is over."""
        if not self._woken.is_set():
            self._woken_at = time.monotonic()
            self._woken.set()

    async def _scan(self) -> None:
        self._woken.clear()
        woken_at, self._woken_at = self._woken_at, None
        started = time.monotonic()
        try:
            candidates = await asyncio.to_thread(self._watcher.scan)
        except OSError as error:
            log.warning("the watch directories could not be read, what was known of them stays: %s", error)
            return
        ended = time.monotonic()
        self._post(
            Scanned(
                candidates=candidates,
                seconds=ended - started,
                lag_s=None if woken_at is None else ended - woken_at,
                directories=self._watcher.directories,
                unclaimed=self._watcher.unclaimed,
            )
        )

"""Starts that Triton gave up although their process is well.

Triton's python backend (2.51) listens for a heartbeat while a model's ``initialize`` runs. If it hears nothing for a second
(the machine is busy, was suspended, or forks a large process), it takes the process for dead and waits in the kernel for its
end before it answers the load. A process that is well never ends, so the load would hang until its timeout.

What enters: Triton's process, and the processes of the model that it loads. What leaves: the end of those that it waits for in
vain, which lets the load fail at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from modelium.controller.endings import end_processes
from modelium.devices import Devices, Process
from modelium.errors import TritonError

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_WITHIN_S = 10.0
"""A process that failed by itself ends sooner; should it take longer, its load has failed all the same."""


@dataclass(slots=True, kw_only=True)
class Handover:
    """Of one load. ``awaited``: the processes for whose end Triton waits; ``starting``: those that the load has started.
    ``ended``: was any of these given up, and ended?
    """

    name: str
    devices: Devices
    awaited: Callable[[], Collection[int]]
    starting: Callable[[], Awaitable[Collection[Process]]]
    ended: bool = False

    async def watch(self) -> None:
        """Until it is cancelled."""
        since: dict[Process, float] = {}
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            awaited = await asyncio.to_thread(self.awaited)
            given_up = [process for process in await self.starting() if process.pid in awaited] if awaited else []
            now = time.monotonic()
            since = {process: since.get(process, now) for process in given_up}
            if late := [process for process, instant in since.items() if now - instant >= _WITHIN_S]:
                await self._end(late)

    async def _end(self, processes: list[Process]) -> None:
        log.warning("%s: Triton gave up its process while it started, and waits for its end: it is killed", self.name)
        self.ended = True
        try:
            await end_processes(self.devices, processes)
        except TritonError as error:
            log.warning("%s: %s", self.name, error)

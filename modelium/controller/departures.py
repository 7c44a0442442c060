"""The end of an unload: a model that Triton was asked to let go of enters, nothing leaves until its memory is anybody's."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from modelium.brain.runtimes.support import Ending
from modelium.controller.endings import end_processes, has_taken_down, tell_to_end
from modelium.devices import Devices, Process
from modelium.errors import TritonError
from modelium.triton.client import TritonClient
from modelium.triton.heartbeats import Heartbeats

log = logging.getLogger(__name__)

_ASK_S = (0.01, 0.2)  # Triton has no event for the end of an unload: asked at growing intervals between these
_LOOK_S = (0.002, 0.02)  # at processes and heartbeats, which costs nearly nothing
_SLOWER = 1.5
_DOWN = ("", "UNAVAILABLE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Departures:
    """``within_s``: how long an unload may take before processes are killed."""

    client: TritonClient
    devices: Devices
    within_s: float

    async def verify(
        self, key: str, processes: Sequence[Process], heartbeats: Heartbeats, ending: Ending = Ending.KILLED
    ) -> bool:
        """Wait until the model's processes are gone, and until Triton says so or has let go of them: only then is its memory
        anybody else's. True: they had to be killed.

        1. With ``heartbeats`` they end as soon as Triton has let go of them (``_Farewell``). Triton calls the model UNLOADING
           for a second more; a load beside that works.
        2. Without, or where that moment was missed, they end by themselves when Triton tells them to.
        3. Past the deadline they are killed. Triton may then go on calling the model UNLOADING for ever (server #7626): its
           memory is back all the same, and a new load beside it works.
        """
        deadline = time.monotonic() + self.within_s
        pause = _LOOK_S[0]
        farewell = _Farewell(self.devices, heartbeats, ending)
        while living := [process for process in processes if self.devices.alive(process)]:
            if heartbeats.let_go() and await farewell.say(living):  # 1
                return False
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(pause)
            pause = min(pause * _SLOWER, _LOOK_S[1])
        pause = _ASK_S[0]
        while time.monotonic() <= deadline:  # 2
            entry = (await self.client.index()).get(key)
            if entry is None or entry.state in _DOWN:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * _SLOWER, _ASK_S[1])
        log.warning("%s: not unloaded after %g s, its processes are killed", key, self.within_s)  # 3
        await end_processes(self.devices, processes)
        if not processes:
            raise TritonError(f"Triton has not unloaded it within triton.unload_timeout_seconds = {self.within_s:g} s")
        return True


@dataclass(slots=True)
class _Farewell:
    """Of processes that Triton has let go of.

    1. Where nothing is lost, they are killed.
    2. Else a nursery's child is told to take down what it has (an engine's processes, its files, its metrics), and all are
       killed when that is done. Not in the last part of Triton's second: it then asks the stub for a farewell, and would wait
       for that of a dead one for ever.
    3. Else, and where a child takes longer, they end when Triton tells them to.
    """

    devices: Devices
    heartbeats: Heartbeats
    ending: Ending
    _told: bool = False

    async def say(self, living: Sequence[Process]) -> bool:
        """True: all have ended."""
        if self.ending is Ending.TOLD and not self._is_taken_down(self.devices.born(living)):
            return False
        await end_processes(self.devices, living)
        self.heartbeats.end()
        return True

    def _is_taken_down(self, children: Sequence[Process]) -> bool:
        if not self.heartbeats.may_still_end():
            return False
        if not self._told:
            self._told = True
            tell_to_end(self.devices, children)
        return bool(children) and all(map(has_taken_down, children))

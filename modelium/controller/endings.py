"""Ending processes that will not end by themselves: processes enter, nothing leaves until they are gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Sequence

from modelium.devices import Devices, Process
from modelium.errors import TritonError

_GRACE_S = 5.0
_POLL_S = (0.002, 0.05)  # a kill takes milliseconds, or as long as there is memory to give back


async def end_processes(devices: Devices, processes: Sequence[Process]) -> None:
    """Kill those that live and wait until their memory is back. Raises ``TritonError`` when even that does not help."""
    for process in processes:
        if devices.alive(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
    deadline, pause = time.monotonic() + _GRACE_S, _POLL_S[0]
    while living := [process.pid for process in processes if devices.alive(process)]:
        if time.monotonic() > deadline:
            raise TritonError(f"its processes {living} do not end, even when killed")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _POLL_S[1])

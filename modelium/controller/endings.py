"""Ending processes: they enter, nothing leaves until they are gone, or have been told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from modelium.devices import Devices, Process
from modelium.errors import TritonError

TAKEN_DOWN = "taken down"
_GRACE_S = 5.0
_POLL_S = (0.002, 0.05)  # a kill takes milliseconds, or as long as there is memory to give back


def tell_to_end(devices: Devices, processes: Iterable[Process]) -> None:
    """Tell those that live to take down what they have: they are about to end."""
    for process in processes:
        if devices.alive(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)


def has_taken_down(process: Process) -> bool:
    """Has it done so? A nursery's child then calls itself so (``modelium_nursery.serving``)."""
    try:
        return Path(f"/proc/{process.pid}/comm").read_text(encoding="utf-8", errors="replace").strip() == TAKEN_DOWN
    except OSError:
        return True  # it has ended


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

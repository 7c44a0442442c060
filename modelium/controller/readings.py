"""Looking at Triton and its processes, each look a coroutine whose end is an event: greet, check, measure.

What enters: which server or model to look at. What leaves: events through ``post``. Nothing is changed by looking.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from modelium.controller.background import Background
from modelium.controller.events import About, Event, Measured, ServerUp
from modelium.controller.life.effects import Check
from modelium.controller.life.events import Checked
from modelium.controller.residues import Residues
from modelium.controller.server import Server
from modelium.devices import Process, Replica, processes_of
from modelium.errors import ModeliumError, TritonUnavailable
from modelium.values import Device, NurseryStatus

log = logging.getLogger(__name__)

_POLL_S = (0.01, 0.2)


class Readings:
    """Looks that take a while. ``post`` must be callable from the event loop's thread only."""

    def __init__(self, post: Callable[[Event], None], background: Background, server: Server, residues: Residues) -> None:
        self._post = post
        self._residues = residues
        self._background = background
        self._client = server.client
        self._repository = server.repository
        self._devices = server.devices
        self._server_pid = server.pid
        self._owner = server.owner
        self._greeting: asyncio.Task[None] | None = None

    def check(self, key: str, order: Check) -> None:
        """Find out whether a model that a request found gone still serves; ends in ``Checked``."""
        self._background.spawn(self._check(key, order), f"check {key}")

    def measure(self, generation: int, places: Mapping[str, Device]) -> None:
        """Read Triton's counters and index, and the memory that the processes of each model hold on its device."""
        self._background.spawn(self._measure(generation, places), "measure")

    def greet(self) -> None:
        """Triton is said to be up: learn its version and what it has loaded; ends in ``ServerUp``."""
        self.forget_greeting()
        self._greeting = self._background.spawn(self._greet(), "greet Triton")

    def forget_greeting(self) -> None:
        """The server that was to be greeted is gone."""
        if self._greeting is not None:
            self._greeting.cancel()
            self._greeting = None

    async def _greet(self) -> None:
        pause, said = _POLL_S[0], ""
        while True:
            try:
                version, index = await asyncio.gather(self._client.version(), self._client.index())
                owned = await asyncio.to_thread(self._repository.owned)
            except (ModeliumError, OSError) as error:
                if not isinstance(error, TritonUnavailable) and str(error) != said:
                    said = str(error)
                    log.error("Triton is up, and cannot be used: %s", said)
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _POLL_S[1])
            else:
                self._post(ServerUp(version=version, index=index, owned=owned))
                return

    async def _check(self, key: str, order: Check) -> None:
        self._post(About(key, await self._look(key, order)))

    async def _look(self, key: str, order: Check) -> Checked:
        """While Triton is away there is nothing to find out: its supervisor says so, and this work becomes history."""
        pause, number = _POLL_S[0], order.number
        while True:
            try:
                entry = (await self._client.index()).get(key)
                break
            except TritonUnavailable:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _POLL_S[1])
            except ModeliumError as error:
                return Checked(number=number, serves=False, detail=str(error))
        dead = next((process for process in order.processes if not self._devices.alive(process)), None)
        if dead is not None:
            return Checked(number=number, serves=False, died=True, detail=f"its process {dead.pid} died")
        pid = self._server_pid()
        if not order.processes and pid is not None and key not in await asyncio.to_thread(self._devices.processes, pid):
            return Checked(number=number, serves=False, died=True, detail="its process died before anybody saw it")
        if entry is None:
            return Checked(number=number, serves=False, detail="it is not in Triton's index")
        if entry.state != "READY":
            return Checked(number=number, serves=False, detail=f"it is {entry.state or 'not loaded'} ({entry.reason})")
        return Checked(number=number, serves=True)

    async def _measure(self, generation: int, places: Mapping[str, Device]) -> None:
        started_at = time.monotonic()
        try:
            statistics, index = await asyncio.gather(self._client.statistics(), self._client.index())
        except ModeliumError as error:
            log.debug("Triton was not measured: %s", error)
            return
        pid = self._server_pid()
        found = await asyncio.to_thread(self._weigh, pid, places) if pid is not None else None
        if pid is not None and found is not None:
            self._residues.note(pid, found.residues)
        self._post(
            Measured(
                generation=generation,
                started_at=started_at,
                statistics=statistics,
                index=index,
                processes=found.processes if found is not None else None,
                held=found.held if found is not None else {},
                replicas=found.replicas if found is not None else {},
                residues=found.residues if found is not None else {},
                nursery=found.nursery if found is not None else None,
                born=found.born if found is not None else frozenset(),
                orphaned=found.orphaned if found is not None else frozenset(),
            )
        )

    def _weigh(self, pid: int, places: Mapping[str, Device]) -> _Weighed:
        processes, replicas = self._devices.processes(pid), self._devices.replicas(self._owner)
        scales = self._devices.scales()
        everything = {
            name: [each.pid for each in (*found, *processes_of(replicas.get(name, ())))] for name, found in processes.items()
        }
        held = {
            name: self._devices.held_bytes(everything[name], places[name], scales)
            for name, found in processes.items()
            if name in places and not places[name].cluster
        }
        nursery = self._devices.nursery(scales)
        orphans = self._devices.orphans()  # last: a nursery may have ended meanwhile
        return _Weighed(
            processes=processes,
            replicas=replicas,
            held=held,
            residues=self._devices.residues(pid),
            nursery=nursery,
            born=frozenset(name for name, found in processes.items() if any(each.pid in scales.born for each in found)),
            orphaned=frozenset(name for name, found in processes.items() if any(each.pid in orphans for each in found)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weighed:
    processes: Mapping[str, tuple[Process, ...]]
    replicas: Mapping[str, tuple[Replica, ...]]
    held: Mapping[str, int]
    residues: Mapping[str, int]
    nursery: NurseryStatus | None
    born: frozenset[str]
    orphaned: frozenset[str]

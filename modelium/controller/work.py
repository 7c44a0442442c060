"""Slow work, each piece a coroutine whose end is an event: analyze, write and load, unload and verify, measure, check.

What enters: what the controller decided. What leaves: events through ``post``. Nothing here changes a model's record.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence

from modelium.analyzers import analyze
from modelium.controller.events import (
    Analyzed,
    Checked,
    Event,
    Loaded,
    LoadFailed,
    Measured,
    ServerUp,
    Unloaded,
    UnloadFailed,
)
from modelium.devices import Devices, Process
from modelium.errors import DeadlineExceeded, ModeliumError, TritonError, TritonUnavailable
from modelium.errors import LoadFailed as LoadFailure
from modelium.repository import ModelRepository
from modelium.triton.client import TritonClient
from modelium.values import Candidate, Device, ModelOverride, ModelProfile, Placement

log = logging.getLogger(__name__)

_POLL_S = (0.01, 0.2)  # Triton has no event for the end of an unload: asked at growing intervals between these
_KILL_GRACE_S = 5.0
_ANALYZE_AT_ONCE = 64
_DOWN = ("", "UNAVAILABLE")


class Work:
    """The controller's hands. ``post`` must be callable from the event loop's thread only."""

    def __init__(
        self,
        *,
        post: Callable[[Event], None],
        client: TritonClient,
        repository: ModelRepository,
        devices: Devices,
        overrides: Mapping[str, ModelOverride],
        server_pid: Callable[[], int | None],
        load_timeout_s: float,
        unload_timeout_s: float,
    ) -> None:
        self._post = post
        self._client = client
        self._repository = repository
        self._devices = devices
        self._overrides = overrides
        self._server_pid = server_pid
        self._load_timeout_s = load_timeout_s
        self._unload_timeout_s = unload_timeout_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._analysts = asyncio.Semaphore(2)
        self._greeting: asyncio.Task[None] | None = None

    # -- pieces of work ----------------------------------------------------------------------------------------------

    def analyze(self, candidates: Sequence[tuple[str, Candidate]]) -> None:
        """Look at folders, in a thread; ends in one ``Analyzed`` each."""
        for start in range(0, len(candidates), _ANALYZE_AT_ONCE):
            self._spawn(self._analyze(candidates[start : start + _ANALYZE_AT_ONCE]), "analyze")

    def load(self, key: str, generation: int, profile: ModelProfile, placement: Placement, *, write: bool, fresh: bool) -> None:
        """Write the entry if ``write``, else make it newer if ``fresh`` (Triton then loads anew), and load it."""
        self._spawn(self._load(key, generation, profile, placement, write=write, fresh=fresh), f"load {key}")

    def unload(
        self, key: str, generation: int, processes: Sequence[Process], *, remove: bool, current: Callable[[], bool]
    ) -> None:
        """Unload, verify that model and processes are gone, and remove the entry if ``remove``.

        A Triton that does not answer is asked again as long as ``current()``: the unload is not history yet.
        """
        self._spawn(self._unload(key, generation, processes, remove=remove, current=current), f"unload {key}")

    def discard(self, key: str) -> None:
        """Ask Triton to forget a model whose load failed or whose process died; nobody waits for it."""
        self._spawn(self._discard(key), f"discard {key}")

    def remove(self, key: str) -> None:
        """Remove the entry of a model that is not loaded."""
        self._spawn(self._remove(key), f"remove {key}")

    def check(self, key: str, generation: int, processes: Sequence[Process]) -> None:
        """Find out whether a model that a request found gone still serves."""
        self._spawn(self._check(key, generation, processes), f"check {key}")

    def measure(self, generation: int, places: Mapping[str, Device]) -> None:
        """Read Triton's counters and index, and the memory that the processes of each model hold on its device."""
        self._spawn(self._measure(generation, places), "measure")

    def greet(self) -> None:
        """Triton is said to be up: learn its version and what it has loaded; ends in ``ServerUp``."""
        self.forget_greeting()
        self._greeting = self._spawn(self._greet(), "greet Triton")

    def forget_greeting(self) -> None:
        """The server that was to be greeted is gone."""
        if self._greeting is not None:
            self._greeting.cancel()
            self._greeting = None

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finish)
        return task

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s broke: a defect of Modelium", task.get_name(), exc_info=error)

    # -- how they are done -------------------------------------------------------------------------------------------

    async def _analyze(self, batch: Sequence[tuple[str, Candidate]]) -> None:
        def look() -> list[Analyzed]:
            unset = ModelOverride()
            return [
                Analyzed(key=key, signature=c.signature, analysis=analyze(c, self._overrides.get(c.name, unset)))
                for key, c in batch
            ]

        async with self._analysts:
            for found in await asyncio.to_thread(look):
                self._post(found)

    async def _greet(self) -> None:
        pause = _POLL_S[0]
        while True:
            try:
                version, index = await asyncio.gather(self._client.version(), self._client.index())
                owned = await asyncio.to_thread(self._repository.owned)
            except (ModeliumError, OSError):
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _POLL_S[1])
            else:
                self._post(ServerUp(version=version, index=index, owned=owned))
                return

    async def _load(
        self, key: str, generation: int, profile: ModelProfile, placement: Placement, *, write: bool, fresh: bool
    ) -> None:
        started = time.monotonic()
        try:
            if write:
                override = self._overrides.get(profile.name)
                await asyncio.to_thread(self._repository.write, profile, placement, override=override)
            elif fresh:
                await asyncio.to_thread(self._repository.touch, key)
            older = await self._processes_of(key)
            started = time.monotonic()  # from here on it is Triton's time
            await self._client.load(key, timeout_s=self._load_timeout_s)
        except DeadlineExceeded:
            with contextlib.suppress(ModeliumError):  # Triton goes on loading: until that is over its memory is not free
                await self._client.unload(key, timeout_s=self._load_timeout_s)
                await self._verify_unloaded(key, ())
            error = LoadFailure(
                f"it did not load within triton.load_timeout_seconds = {self._load_timeout_s:g} s; raise that, or look into "
                "Triton's log"
            )
            self._post(LoadFailed(key=key, generation=generation, seconds=time.monotonic() - started, error=error))
        except ModeliumError as error:
            self._post(LoadFailed(key=key, generation=generation, seconds=time.monotonic() - started, error=error))
        except Exception as error:  # a defect of ours must not leave the model LOADING for ever
            log.exception("the load of %s broke", key)
            failure = LoadFailure(f"{type(error).__name__}: {error}")
            self._post(LoadFailed(key=key, generation=generation, seconds=time.monotonic() - started, error=failure))
        else:
            seconds = time.monotonic() - started
            self._post(Loaded(key=key, generation=generation, seconds=seconds, older=frozenset(older)))

    async def _processes_of(self, key: str) -> tuple[Process, ...]:
        pid = self._server_pid()
        return () if pid is None else (await asyncio.to_thread(self._devices.processes, pid)).get(key, ())

    async def _unload(
        self, key: str, generation: int, processes: Sequence[Process], *, remove: bool, current: Callable[[], bool]
    ) -> None:
        started = time.monotonic()
        try:
            while True:
                try:
                    # Triton answers only when a load of the same model that is under way has ended.
                    await self._client.unload(key, timeout_s=self._load_timeout_s)
                    await self._verify_unloaded(key, processes)
                    break
                except TritonUnavailable:
                    await asyncio.sleep(_POLL_S[1])
                    if not current():
                        return
            if remove:
                await asyncio.to_thread(self._repository.remove, key)
        except ModeliumError as error:
            self._post(UnloadFailed(key=key, generation=generation, seconds=time.monotonic() - started, error=error))
        else:
            self._post(Unloaded(key=key, generation=generation, seconds=time.monotonic() - started))

    async def _verify_unloaded(self, key: str, processes: Sequence[Process]) -> None:
        """Wait until the model is UNAVAILABLE and its processes are gone: only then is its memory anybody else's.

        Past the deadline the processes are killed. Triton may then go on calling the model UNLOADING for ever (server #7626):
        its memory is back all the same, and a new load beside it works.
        """
        pause, deadline = _POLL_S[0], time.monotonic() + self._unload_timeout_s
        while True:
            entry = (await self._client.index()).get(key)
            down = entry is None or entry.state in _DOWN
            if down and not self._living(processes):
                return
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _POLL_S[1])
        log.warning("%s: not unloaded after %g s, its processes are killed", key, self._unload_timeout_s)
        for process in self._living(processes):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + _KILL_GRACE_S
        while self._living(processes):
            if time.monotonic() > deadline:
                raise TritonError(f"its processes {[p.pid for p in self._living(processes)]} do not end, even when killed")
            await asyncio.sleep(_POLL_S[1])
        if not processes:
            raise TritonError(f"Triton has not unloaded it within triton.unload_timeout_seconds = {self._unload_timeout_s:g} s")

    def _living(self, processes: Sequence[Process]) -> list[Process]:
        return [process for process in processes if self._devices.alive(process)]

    async def _discard(self, key: str) -> None:
        with contextlib.suppress(ModeliumError):
            await self._client.unload(key)

    async def _remove(self, key: str) -> None:
        try:
            await asyncio.to_thread(self._repository.remove, key)
        except ModeliumError as error:
            log.warning("%s: its entry was not removed: %s", key, error)

    async def _check(self, key: str, generation: int, processes: Sequence[Process]) -> None:
        """While Triton is away there is nothing to find out: its supervisor says so, and this work becomes history."""
        pause = _POLL_S[0]
        while True:
            try:
                entry = (await self._client.index()).get(key)
                break
            except TritonUnavailable:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _POLL_S[1])
            except ModeliumError as error:
                self._post(Checked(key=key, generation=generation, serves=False, detail=str(error)))
                return
        dead = [p.pid for p in processes if not self._devices.alive(p)]
        if not processes and self._server_pid() is not None and not await self._processes_of(key):
            dead = [0]  # it died before anybody saw its process
        if dead:
            self._post(Checked(key=key, generation=generation, serves=False, detail=f"its process {dead[0] or ''} died"))
        elif entry is None or entry.state != "READY":
            state = "is not in Triton's index" if entry is None else f"is {entry.state or 'not loaded'} ({entry.reason})"
            self._post(Checked(key=key, generation=generation, serves=False, detail=f"it {state}"))
        else:
            self._post(Checked(key=key, generation=generation, serves=True, detail="Triton says READY"))

    async def _measure(self, generation: int, places: Mapping[str, Device]) -> None:
        started_at = time.monotonic()
        try:
            statistics, index = await asyncio.gather(self._client.statistics(), self._client.index())
        except ModeliumError as error:
            log.debug("Triton was not measured: %s", error)
            return
        pid = self._server_pid()
        processes, held = await asyncio.to_thread(self._weigh, pid, places) if pid is not None else (None, {})
        self._post(
            Measured(
                generation=generation, started_at=started_at, statistics=statistics, index=index, processes=processes, held=held
            )
        )

    def _weigh(self, pid: int, places: Mapping[str, Device]) -> tuple[dict[str, tuple[Process, ...]], dict[str, int]]:
        processes = self._devices.processes(pid)
        held = {
            name: self._devices.held_bytes([process.pid for process in found], places[name])
            for name, found in processes.items()
            if name in places
        }
        return processes, held

"""Slow work, each piece a coroutine whose end is an event: analyze, write and load, unload and verify.

What enters: what the controller decided. What leaves: events through ``post``. Nothing here changes a model's record.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from modelium.analysis import Analysts
from modelium.controller.background import Background
from modelium.controller.endings import end_processes
from modelium.controller.events import (
    Analyzed,
    Event,
    Loaded,
    LoadFailed,
    Unloaded,
    UnloadFailed,
)
from modelium.controller.seals import CHANGED, blame, has_changed, seal_of, see_unchanged, settle
from modelium.devices import Devices, Process, processes_of
from modelium.errors import DeadlineExceeded, FolderChanged, ModeliumError, TritonError, TritonUnavailable
from modelium.errors import LoadFailed as LoadFailure
from modelium.ray import RayService
from modelium.repository import ModelRepository
from modelium.triton.client import TritonClient
from modelium.values import AdapterProfile, Candidate, ModelOverride, ModelProfile, Placement, Runtime

log = logging.getLogger(__name__)

_POLL_S = (0.01, 0.2)  # Triton has no event for the end of an unload: asked at growing intervals between these
_ANALYZE_AT_ONCE = 64
_TELL_EVERY_S = 1.0
_UNSET = ModelOverride()
_DOWN = ("", "UNAVAILABLE")


class Work:
    """The controller's hands. ``post`` must be callable from the event loop's thread only."""

    def __init__(
        self,
        *,
        post: Callable[[Event], None],
        background: Background,
        client: TritonClient,
        repository: ModelRepository,
        devices: Devices,
        overrides: Mapping[str, ModelOverride],
        ray: RayService,
        server_pid: Callable[[], int | None],
        owner: str,
        analysts: Analysts,
        load_timeout_s: float,
        unload_timeout_s: float,
    ) -> None:
        self._post = post
        self._background = background
        self._client = client
        self._repository = repository
        self._devices = devices
        self._overrides = overrides
        self._ray = ray
        self._server_pid = server_pid
        self._owner = owner
        self._load_timeout_s = load_timeout_s
        self._unload_timeout_s = unload_timeout_s
        self._analysts = analysts

    # -- pieces of work ----------------------------------------------------------------------------------------------

    def warm(self) -> None:
        """Make ready what the first folder would wait for."""
        self._analysts.warm()

    def analyze(self, candidates: Sequence[tuple[str, Candidate]], *, soon: bool = False) -> None:
        """Look at folders, in processes of their own; ends in one ``Analyzed`` each. ``soon``: before all others."""
        for start in range(0, len(candidates), _ANALYZE_AT_ONCE):
            self._background.spawn(self._analyze(candidates[start : start + _ANALYZE_AT_ONCE], soon=soon), "analyze")

    def load(
        self,
        key: str,
        generation: int,
        profile: ModelProfile,
        placement: Placement,
        *,
        write: bool,
        fresh: bool,
        beside: bool = False,
        source: Candidate | None = None,
    ) -> None:
        """Write the entry if ``write``, else make it newer if ``fresh`` (Triton then loads anew), and load it.

        ``beside``: an older revision serves, and goes on doing so until this one is loaded.
        """
        work = self._load(key, generation, profile, placement, write=write, fresh=fresh, beside=beside, source=source)
        self._background.spawn(work, f"load {key}")

    def revive(
        self, key: str, generation: int, profile: ModelProfile, placement: Placement, *, source: Candidate | None = None
    ) -> None:
        """Load a model one of whose processes died anew, beside the corpse: a plain load would do nothing.

        An engine is several processes, and those that are left hold its memory for ever: they are ended first.
        """
        bury = placement.by_vllm
        work = self._load(key, generation, profile, placement, write=False, fresh=True, bury=bury, source=source)
        self._background.spawn(work, f"load {key} again")

    def unload(
        self, key: str, generation: int, processes: Sequence[Process], *, remove: bool, current: Callable[[], bool]
    ) -> None:
        """Unload, verify that model and processes are gone, and remove the entry if ``remove``.

        A Triton that does not answer is asked again as long as ``current()``: the unload is not history yet.
        """
        self._background.spawn(self._unload(key, generation, processes, remove=remove, current=current), f"unload {key}")

    def bury(self, key: str, generation: int) -> None:
        """End what is left of a model one of whose processes died, and hold nothing for it; ends in ``Unloaded``."""
        self._background.spawn(self._bury(key, generation), f"bury {key}")

    def end(self, key: str) -> None:
        """End the processes of a model whose load waits for something that will not come: the load then fails."""
        self._background.spawn(self._end_those_of(key, ()), f"end {key}")

    def discard(self, key: str) -> None:
        """Ask Triton to forget a model whose load failed or whose process died; nobody waits for it."""
        self._background.spawn(self._discard(key), f"discard {key}")

    def remove(self, key: str) -> None:
        """Remove the entry of a model that is not loaded."""
        self._background.spawn(self._remove(key), f"remove {key}")

    async def close(self) -> None:
        """End the processes that look at folders."""
        await self._analysts.close()

    # -- how they are done -------------------------------------------------------------------------------------------

    async def _analyze(self, batch: Sequence[tuple[str, Candidate]], *, soon: bool) -> None:
        """What is known is told at least once a second: a folder that takes its ten seconds keeps no other waiting."""
        # The seals first: a change during the analysis breaks one.
        seals = await asyncio.to_thread(lambda: [seal_of(candidate) for _, candidate in batch])
        looks = [self._look(key, candidate, seal, soon=soon) for (key, candidate), seal in zip(batch, seals, strict=True)]
        pending = {asyncio.create_task(look) for look in looks}
        try:
            while pending:
                done, pending = await asyncio.wait(pending, timeout=_TELL_EVERY_S)
                # Adapters first: a model that comes with one need not be loaded twice.
                for found in sorted((t.result() for t in done), key=lambda a: not isinstance(a.analysis, AdapterProfile)):
                    self._post(found)
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _look(self, key: str, candidate: Candidate, seal: str, *, soon: bool) -> Analyzed:
        analysis = await self._analysts.analyze(candidate, self._overrides.get(candidate.name, _UNSET), soon=soon)
        return Analyzed(key=key, signature=candidate.signature, seal=seal, analysis=analysis)

    async def _load(
        self,
        key: str,
        generation: int,
        profile: ModelProfile,
        placement: Placement,
        *,
        write: bool,
        fresh: bool,
        bury: bool = False,
        beside: bool = False,
        source: Candidate | None = None,
    ) -> None:
        started = time.monotonic()
        older: Sequence[Process] = ()
        try:
            if not bury:
                await see_unchanged(source)
            if write:
                override = self._overrides.get(profile.name)
                await asyncio.to_thread(self._repository.write, profile, placement, override=override)
            elif fresh:
                await asyncio.to_thread(self._repository.touch, key)
            older = await self._processes_of(key)
            if bury:
                await end_processes(self._devices, older)
                older = ()
                await see_unchanged(source)
            elif older or beside:
                await settle(source)
            if placement.runtime is Runtime.RAY:
                await self._ray.ready(timeout_s=self._load_timeout_s)
            started = time.monotonic()  # from here on it is Triton's time
            await self._client.load(key, timeout_s=self._load_timeout_s)
            if not (older or beside) and await has_changed(source):
                # Half of what was read may be of the one revision, half of the other. Beside an older copy nothing can be taken
                # back; the folder's new state is loaded after it.
                await self._client.unload(key, timeout_s=self._load_timeout_s)
                await self._verify_unloaded(key, ())
                raise FolderChanged(CHANGED)
        except FolderChanged as error:
            if fresh:
                await self._discard(key)  # the corpse
            self._post(LoadFailed(key=key, generation=generation, seconds=time.monotonic() - started, error=error))
        except DeadlineExceeded:
            await self._break_off(key, older, beside=beside)
            late = LoadFailure(
                f"it did not load within triton.load_timeout_seconds = {self._load_timeout_s:g} s; raise that, or look into "
                "Triton's log"
            )
            self._post(LoadFailed(key=key, generation=generation, seconds=time.monotonic() - started, error=late))
        except ModeliumError as error:
            seconds, cause = time.monotonic() - started, await blame(source, error)
            self._post(LoadFailed(key=key, generation=generation, seconds=seconds, error=cause))
        except Exception as error:  # a defect of ours must not leave the model LOADING for ever
            log.exception("the load of %s broke", key)
            failure = LoadFailure(f"{type(error).__name__}: {error}")
            self._post(LoadFailed(key=key, generation=generation, seconds=time.monotonic() - started, error=failure))
        else:
            seconds = time.monotonic() - started
            self._post(Loaded(key=key, generation=generation, seconds=seconds, older=frozenset(older)))

    async def _break_off(self, key: str, older: Sequence[Process], *, beside: bool) -> None:
        """End a load that Triton goes on with: until that is over its memory is not free.

        Its own processes are ended: one that hangs never answers, and Triton would wait for it. What serves beside it
        (``older``) stays; an unload would take that too.
        """
        await self._end_those_of(key, older)
        if not (older or beside):
            with contextlib.suppress(ModeliumError):
                await self._client.unload(key, timeout_s=self._load_timeout_s)
                await self._verify_unloaded(key, ())
            await self._end_those_of(key, older)  # what was started meanwhile

    async def _end_those_of(self, key: str, older: Sequence[Process]) -> None:
        with contextlib.suppress(ModeliumError):
            await end_processes(self._devices, [one for one in await self._processes_of(key) if one not in older])

    async def _bury(self, key: str, generation: int) -> None:
        started = time.monotonic()
        try:
            await end_processes(self._devices, await self._processes_of(key))
        except ModeliumError as error:
            self._post(UnloadFailed(key=key, generation=generation, seconds=time.monotonic() - started, error=error))
        else:
            self._post(Unloaded(key=key, generation=generation, seconds=time.monotonic() - started))

    async def _processes_of(self, key: str) -> tuple[Process, ...]:
        """Those inside Triton, and their replicas on this machine."""
        pid = self._server_pid()
        if pid is None:
            return ()
        inside = (await asyncio.to_thread(self._devices.processes, pid)).get(key, ())
        replicas = await asyncio.to_thread(self._devices.replicas, self._owner)
        return (*inside, *processes_of(replicas.get(key, ())))

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
            if down and not any(map(self._devices.alive, processes)):
                return
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _POLL_S[1])
        log.warning("%s: not unloaded after %g s, its processes are killed", key, self._unload_timeout_s)
        await end_processes(self._devices, processes)
        if not processes:
            raise TritonError(f"Triton has not unloaded it within triton.unload_timeout_seconds = {self._unload_timeout_s:g} s")

    async def _discard(self, key: str) -> None:
        with contextlib.suppress(ModeliumError):
            await self._client.unload(key)

    async def _remove(self, key: str) -> None:
        try:
            await asyncio.to_thread(self._repository.remove, key)
        except ModeliumError as error:
            log.warning("%s: its entry was not removed: %s", key, error)

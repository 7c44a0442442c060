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
from modelium.brain.runtimes.choice import library_modules, likely_runtime
from modelium.brain.runtimes.support import Ending
from modelium.controller.background import Background
from modelium.controller.departures import Departures
from modelium.controller.endings import end_processes
from modelium.controller.events import About, Event
from modelium.controller.handover import Handover
from modelium.controller.life.effects import How, Load, Unload
from modelium.controller.life.events import Analyzed, HasLoaded, HasUnloaded, NotLoaded, NotUnloaded
from modelium.controller.residues import Residues, Window
from modelium.controller.seals import CHANGED, blame, has_changed, seal_of, see_unchanged, settle
from modelium.controller.server import Server
from modelium.devices import Process, processes_of
from modelium.errors import (
    DeadlineExceeded,
    FolderChanged,
    GivenUp,
    LoadFailed,
    ModeliumError,
    ProcessLost,
    TritonUnavailable,
)
from modelium.guarded.processes import awaited_children
from modelium.ray import RayService
from modelium.triton.heartbeats import Heartbeats
from modelium.values import AdapterProfile, Candidate, LoadStage, ModelOverride, ModelProfile, RayState, override_of

log = logging.getLogger(__name__)

_ANALYZE_AT_ONCE = 64
_TELL_EVERY_S = 1.0
_WITHOUT_REPLICAS = (RayState.OFF, RayState.ASLEEP)
_WATCH_S = 0.1  # most unloads have nothing to wait for
_ASK_AGAIN_S = 0.2  # whether a Triton that went away is back


class Work:
    """The ``Actions`` port. ``post`` must be callable from the event loop's thread only."""

    def __init__(
        self,
        post: Callable[[Event], None],
        background: Background,
        server: Server,
        *,
        overrides: Mapping[str, ModelOverride],
        ray: RayService,
        analysts: Analysts,
        load_timeout_s: float,
        unload_timeout_s: float,
        residues: Residues,
        stage: Callable[[str, LoadStage], None] = lambda key, stage: None,
    ) -> None:
        self._post = post
        self._stage = stage
        self._residues = residues
        self._background = background
        self._client = server.client
        self._repository = server.repository
        self._devices = server.devices
        self._server_pid = server.pid
        self._owner = server.owner
        self._expects = server.expects
        self._overrides = overrides
        self._ray = ray
        self._analysts = analysts
        self._load_timeout_s = load_timeout_s
        self._departures = Departures(client=server.client, devices=server.devices, within_s=unload_timeout_s)

    # -- pieces of work ----------------------------------------------------------------------------------------------

    def warm(self) -> None:
        """Make ready what the first folder would wait for."""
        self._analysts.warm()

    def analyze(self, candidates: Sequence[tuple[str, Candidate]], *, soon: bool = False) -> None:
        """Look at folders, in processes of their own; ends in one ``Analyzed`` each. ``soon``: before all others."""
        for start in range(0, len(candidates), _ANALYZE_AT_ONCE):
            self._background.spawn(self._analyze(candidates[start : start + _ANALYZE_AT_ONCE], soon=soon), "analyze")

    def load(self, key: str, order: Load) -> None:
        """Write the entry if it is due, and load it; ends in ``HasLoaded`` or ``NotLoaded``.

        After the death of one of its processes it is loaded anew, beside the corpse: a plain load would do nothing. An engine
        is several processes, and those that are left hold its memory for ever: they are ended first.
        """
        self._background.spawn(self._load(key, order), f"load {key}")

    def unload(self, key: str, order: Unload, *, current: Callable[[], bool]) -> None:
        """Unload, verify that model and processes are gone, and remove the entry if that is asked for.

        A Triton that does not answer is asked again as long as ``current()``: the unload is not history yet.
        """
        self._background.spawn(self._unload(key, order, current), f"unload {key}")

    def bury(self, key: str, number: int) -> None:
        """End what is left of a model one of whose processes died, and hold nothing for it; ends in ``HasUnloaded``."""
        self._background.spawn(self._bury(key, number), f"bury {key}")

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
                for found in sorted((task.result() for task in done), key=_is_no_adapter):
                    self._post(found)
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _look(self, key: str, candidate: Candidate, seal: str, *, soon: bool) -> About:
        override = override_of(self._overrides, candidate.name)
        analysis = await self._analysts.analyze(candidate, override, soon=soon)
        if isinstance(analysis, ModelProfile):
            self._expects(likely_runtime(analysis, override), library_modules(analysis))
        return About(key, Analyzed(signature=candidate.signature, seal=seal, analysis=analysis))

    async def _load(self, key: str, order: Load) -> None:
        started = time.monotonic()
        self._stage(key, LoadStage.PREPARING)
        self._expects(order.placement.runtime, library_modules(order.profile))
        source, buries = order.source, order.how is How.AFTER_DEATH and order.placement.by_vllm
        older: Sequence[Process] = ()
        window: Window | None = None
        try:
            if not buries:
                await see_unchanged(source)
            if order.write:
                override = self._overrides.get(order.profile.name)
                await asyncio.to_thread(self._repository.write, order.profile, order.placement, override=override)
            elif order.how is How.AFTER_DEATH:
                await asyncio.to_thread(self._repository.touch, key)  # newer: Triton then loads anew
            older = await self._processes_of(key)
            if buries:
                await end_processes(self._devices, older)
                older = ()
                await see_unchanged(source)
            elif older or order.how is How.BESIDE:
                await settle(source)
            if order.how is How.AFTER_DEATH and not older:
                await self._residues.end(await self._residues.unload(key, died=True))
                self._residues.settle(key)
            if order.placement.by_ray:
                await self._ray.ready(timeout_s=self._load_timeout_s)
            window = await self._residues.load(key, order.placement.devices)
            started = time.monotonic()  # from here on it is Triton's time
            self._stage(key, LoadStage.LOADING)
            await self._let_triton_load(key, older)
            if not (older or order.how is How.BESIDE) and await has_changed(source):
                # Half of what was read may be of the one revision, half of the other. Beside an older copy nothing can be taken
                # back; the folder's new state is loaded after it.
                await self._client.unload(key, timeout_s=self._load_timeout_s)
                await self._departures.verify(key, (), Heartbeats())
                raise FolderChanged(CHANGED)
        except Exception as error:
            cause = await self._why(key, order, older, error)
            seconds = time.monotonic() - started
            await self._residues.end(window)
            if not (older or order.how is How.BESIDE):
                self._residues.settle(key)
            self._post(About(key, NotLoaded(number=order.number, seconds=seconds, error=cause)))
        else:
            seconds = time.monotonic() - started
            await self._residues.end(window)
            self._post(About(key, HasLoaded(number=order.number, seconds=seconds, older=frozenset(older))))

    async def _let_triton_load(self, key: str, older: Sequence[Process]) -> None:
        pid = self._server_pid()
        if pid is None:  # elsewhere: nobody here sees what it waits for
            await self._client.load(key, timeout_s=self._load_timeout_s)
            return

        async def starting() -> list[Process]:
            return [process for process in await self._processes_of(key) if process not in older]

        handover = Handover(name=key, devices=self._devices, awaited=lambda: awaited_children(pid), starting=starting)
        watching = asyncio.create_task(handover.watch())
        try:
            await self._client.load(key, timeout_s=self._load_timeout_s)
        except ProcessLost as error:
            if not handover.ended:
                raise
            words = "Triton gave its process up while it started, since this machine was too busy to hear from it in time"
            raise GivenUp(words) from error
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _why(self, key: str, order: Load, older: Sequence[Process], error: Exception) -> ModeliumError:
        """Whatever breaks while the cause is looked for: the model must not stay LOADING for ever."""
        try:
            return await self._why_not_loaded(key, order, older, error)
        except Exception as defect:
            log.exception("the failed load of %s could not be cleaned up", key)
            return LoadFailed(f"{error} (and then {type(defect).__name__}: {defect})")

    async def _why_not_loaded(self, key: str, order: Load, older: Sequence[Process], error: Exception) -> ModeliumError:
        """Clean up after a load that failed, and find its cause."""
        match error:
            case FolderChanged():
                if order.how is How.AFTER_DEATH:
                    await self._discard(key)  # the corpse
                return error
            case DeadlineExceeded():
                await self._break_off(key, older, beside=order.how is How.BESIDE)
                limit = f"triton.load_timeout_seconds = {self._load_timeout_s:g} s"
                return LoadFailed(f"it did not load within {limit}; raise that, or look into Triton's log")
            case ModeliumError():
                return await blame(order.source, error)
            case _:
                log.error("the load of %s broke", key, exc_info=error)
                return LoadFailed(f"{type(error).__name__}: {error}")

    async def _break_off(self, key: str, older: Sequence[Process], *, beside: bool) -> None:
        """End a load that Triton goes on with: until that is over its memory is not free.

        Its own processes are ended: one that hangs never answers, and Triton would wait for it. What serves beside it
        (``older``) stays; an unload would take that too.
        """
        await self._end_those_of(key, older)
        if not (older or beside):
            with contextlib.suppress(ModeliumError):
                await self._client.unload(key, timeout_s=self._load_timeout_s)
                await self._departures.verify(key, (), Heartbeats())
            await self._end_those_of(key, older)  # what was started meanwhile

    async def _end_those_of(self, key: str, older: Sequence[Process]) -> None:
        with contextlib.suppress(ModeliumError):
            await end_processes(self._devices, [one for one in await self._processes_of(key) if one not in older])

    async def _bury(self, key: str, number: int) -> None:
        started = time.monotonic()
        window = await self._residues.unload(key, died=True)
        try:
            await end_processes(self._devices, await self._processes_of(key))
        except ModeliumError as error:
            self._residues.forget(window)
            self._post(About(key, NotUnloaded(number=number, seconds=time.monotonic() - started, error=error)))
        else:
            await self._residues.end(window, back_by=started + self._departures.within_s)
            self._residues.settle(key)
            self._post(About(key, HasUnloaded(number=number, seconds=time.monotonic() - started)))

    async def _processes_of(self, key: str) -> tuple[Process, ...]:
        """Those inside Triton, and their replicas on this machine."""
        pid = self._server_pid()
        if pid is None:
            return ()
        inside = (await asyncio.to_thread(self._devices.processes, pid)).get(key, ())
        if self._ray.view().state in _WITHOUT_REPLICAS:  # a load need not wait for one more look at all processes
            return inside
        replicas = await asyncio.to_thread(self._devices.replicas, self._owner)
        return (*inside, *processes_of(replicas.get(key, ())))

    async def _unload(self, key: str, order: Unload, current: Callable[[], bool]) -> None:
        started, killed = time.monotonic(), False
        window = await self._residues.unload(key)
        processes = order.processes
        watched = order.ending is not Ending.BY_THEMSELVES
        if watched:
            processes = tuple(dict.fromkeys((*processes, *await self._processes_of(key))))
        heartbeats = Heartbeats.of([each.pid for each in processes] if watched else (), self._server_pid())
        try:
            heartbeats.renew()
            while True:
                try:
                    watching = asyncio.to_thread(heartbeats.watch, _WATCH_S)
                    # Triton answers only when a load of the same model that is under way has ended.
                    await asyncio.gather(watching, self._client.unload(key, timeout_s=self._load_timeout_s))
                    back_by = time.monotonic() + self._departures.within_s
                    killed = await self._departures.verify(key, processes, heartbeats, order.ending)
                    break
                except TritonUnavailable:
                    await asyncio.sleep(_ASK_AGAIN_S)
                    if not current():
                        return
            await self._residues.end(window, back_by=back_by, returning=heartbeats.region_bytes)
            self._residues.settle(key)
            if order.remove:
                await asyncio.to_thread(self._repository.remove, key)
        except ModeliumError as error:
            self._post(About(key, NotUnloaded(number=order.number, seconds=time.monotonic() - started, error=error)))
        else:
            seconds = time.monotonic() - started
            self._post(About(key, HasUnloaded(number=order.number, seconds=seconds, killed=killed)))
        finally:
            heartbeats.close()
            self._residues.forget(window)

    async def _discard(self, key: str) -> None:
        window = await self._residues.unload(key, died=True)  # none after a load that failed
        with contextlib.suppress(ModeliumError):
            await self._client.unload(key)
        await self._residues.end(window)
        self._residues.settle(key)

    async def _remove(self, key: str) -> None:
        try:
            await asyncio.to_thread(self._repository.remove, key)
        except ModeliumError as error:
            log.warning("%s: its entry was not removed: %s", key, error)


def _is_no_adapter(found: About) -> bool:
    return not (isinstance(found.event, Analyzed) and isinstance(found.event.analysis, AdapterProfile))

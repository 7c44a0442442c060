"""The controller: what others may ask of it.

What enters: events, requests for leases, commands. What leaves: leases, snapshots, and work for ``Work``. All of it runs on
one event loop; whatever changes a model runs here, in the loop or in ``Reactions``, and never
awaits in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from modelium.analysis import Analysts
from modelium.brain import plan as planner
from modelium.config import Settings
from modelium.controller.background import Background
from modelium.controller.books import Books
from modelium.controller.desk import Desk
from modelium.controller.events import Event, RayDown, RayUp, ServerDown, Wake
from modelium.controller.leases import Lease
from modelium.controller.loop import Loop
from modelium.controller.reactions import Reactions
from modelium.controller.readings import Readings
from modelium.controller.record import Model
from modelium.controller.work import Work
from modelium.devices import Devices
from modelium.errors import (
    Conflict,
    DeadlineExceeded,
    NoModelCalled,
    NotServable,
    UnknownModel,
)
from modelium.ledger import Ledger
from modelium.metrics import Recorder
from modelium.names import printable
from modelium.nearest import nearest
from modelium.pace import in_pieces
from modelium.ray import RayService
from modelium.repository import ModelRepository
from modelium.triton.client import TritonClient
from modelium.values import (
    Decision,
    Demand,
    DeviceKind,
    ModelStatus,
    Plan,
    RayFacts,
    ServerStatus,
    Snapshot,
    State,
    Target,
    VllmFacts,
)

log = logging.getLogger(__name__)

_DEAD_AFTER_S = 10.0  # the loop turns every second: after ten without a turn it is stuck


class Controller:
    """Owns every model's state. ``run()`` is the one writer; everything else here returns at once or waits for it."""

    def __init__(
        self,
        settings: Settings,
        *,
        client: TritonClient,
        repository: ModelRepository,
        devices: Devices,
        ledger: Ledger,
        recorder: Recorder,
        backends: Callable[[], frozenset[str]],
        vllm: Callable[[], VllmFacts] = VllmFacts,
        server_pid: Callable[[], int | None] = lambda: None,
        ray: RayService | None = None,
        analysts: Analysts | None = None,
    ) -> None:
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._books = Books()
        background = Background()
        ray = ray or RayService(None, RayFacts())
        self._desk = Desk(
            settings=settings,
            overrides=settings.overrides(),
            books=self._books,
            background=background,
            work=Work(
                post=self.post,
                background=background,
                client=client,
                repository=repository,
                devices=devices,
                overrides=settings.overrides(),
                ray=ray,
                server_pid=server_pid,
                owner=ledger.owner,
                analysts=analysts or Analysts(),
                load_timeout_s=settings.triton.load_timeout_seconds,
                unload_timeout_s=settings.triton.unload_timeout_seconds,
            ),
            readings=Readings(
                post=self.post,
                background=background,
                client=client,
                repository=repository,
                devices=devices,
                server_pid=server_pid,
                owner=ledger.owner,
            ),
            devices=devices,
            ledger=ledger,
            recorder=recorder,
            post=self.post,
            backends=backends,
            vllm=vllm,
            ray=ray,
            gpu=any(device.kind is DeviceKind.CUDA for device in devices.fleet().devices),
        )
        self._reactions = Reactions(self._desk)
        self._admission = self._reactions.admission
        self._loop = Loop(self._desk, self._reactions, self._queue)

    def post(self, event: Event) -> None:
        """Put an event into the queue; from the event loop's thread."""
        self._queue.put_nowait(event)

    async def run(self) -> None:
        """Turn until cancelled."""
        await self._loop.run()

    # -- what the server's supervisor says ---------------------------------------------------------------------------

    def server_up(self) -> None:
        """Triton answers; called each time it comes up."""
        self._desk.readings.greet()

    def was_up(self) -> bool:
        """Did Triton ever come up?"""
        return self._books.server_starts > 0

    def server_down(self, detail: str) -> None:
        """Triton is gone, and everything that it had loaded."""
        self._desk.readings.forget_greeting()
        self.post(ServerDown(detail=detail))

    def ray_up(self) -> None:
        """Models can be deployed on Ray; called each time it comes up."""
        if self._desk.ray.restarts:
            self._desk.recorder.ray_restart()
        self.post(RayUp())

    def ray_down(self, detail: str) -> None:
        """Ray is gone, and every replica with it."""
        self.post(RayDown(detail=detail))

    # -- what the gateway asks ---------------------------------------------------------------------------------------

    async def lease(self, name: str, *, timeout_s: float) -> Lease:
        """The right to send one request to ``name``; waits until it is loaded.

        Raises ``UnknownModel``, ``NotServable`` (with the reason), ``QueueFull``, ``DeadlineExceeded``.
        """
        model = self._find(name)
        self._admission.note(model)
        if model.serves:
            return self._admission.grant(model)
        if model.state is State.DRAINING and self._admission.call_back(model):
            lease = self._admission.grant(model)
            self._reactions.loads.catch_up(model)
            return lease
        if (obstacle := self._admission.obstacle(model)) is not None:
            raise obstacle
        return await self._admission.wait(model, timeout_s)

    def report_gone(self, name: str, detail: str) -> None:
        """A request that held a lease found the model or Triton gone: no more leases until that was looked at."""
        model = self._books.models.get(name)
        if model is not None:
            self._admission.suspect(model, detail)

    def turn_away(self) -> None:
        """Modelium stops: who waits for a load is told so."""
        for model in self._books.models.values():
            self._admission.reject_waiters(
                model, NotServable(f"{model.key!r}: Modelium is stopping; try again when it is back")
            )

    # -- what users ask ----------------------------------------------------------------------------------------------

    async def load(self, name: str, *, timeout_s: float) -> ModelStatus:
        """Load now and wait for it; of an adapter its base. A failure lifts an earlier quarantine: the user may know better."""
        model = self._books.models[self.target(name).model]
        if model.state is State.FAILED or model.put_off:
            model.put_off, model.put_off_until = 0, 0.0
            model.crashes.clear()
            model.forgive()
        model.user_loads += 1
        try:
            (await self.lease(model.key, timeout_s=timeout_s)).release()
        finally:
            model.user_loads -= 1
        return self.status(name)

    async def unload(self, name: str, *, timeout_s: float) -> ModelStatus:
        """Drain, unload and verify. Raises ``Conflict`` when a pin or ``always_loaded`` would bring it back at once."""
        model = self._own(name)
        if model.pinned or model.always_loaded:
            what = (
                "is pinned: unpin it first" if model.pinned else "is in always_loaded: take it out of the configuration first"
            )
            raise Conflict(f"{name!r} {what}")
        model.want = Demand.NONE
        if model.state in (State.LOADING, State.LOADED):
            done = self._admission.when_unloaded(model)
            if model.state is State.LOADED:
                self._reactions.loads.begin_unload(model, "user", "unloaded by the user")
            self.post(Wake())
            try:
                async with asyncio.timeout(timeout_s):
                    await done
            except TimeoutError:
                raise DeadlineExceeded(f"{name!r} is still {model.state} after {timeout_s:g} s; it goes on") from None
        return self.status(name)

    def pin(self, name: str, pinned: bool) -> ModelStatus:
        """Pinned: loaded, and never unloaded by policy."""
        model = self._own(name)
        model.pinned = pinned
        model.want_since = time.monotonic()
        self._desk.ledger.remember_pin(name, pinned)
        self.post(Wake())
        return self.status(name)

    # -- what can be seen --------------------------------------------------------------------------------------------

    async def snapshot(self) -> Snapshot:
        """Everything, made in pieces: each model as it was in one instant, those of thousands in instants that follow."""
        books = self._books
        models = [
            self._status(model, time.monotonic())
            async for model in in_pieces(tuple(books.models.values()))
            if books.models.get(model.key) is model  # else it went meanwhile
        ]
        now = time.monotonic()
        return Snapshot(
            now=now,
            models=tuple(models),
            fleet=self._desk.fleet(),
            ray_restarts=self._desk.ray.restarts,
            server=self.server(),
            scanned=books.scanned,
            directories=books.directories,
            unclaimed=books.unclaimed,
            turn_age_s=now - self._loop.turned_at,
            longest_pause_s=self._loop.pauses.longest_s(),
        )

    def server(self) -> ServerStatus:
        books = self._books
        return ServerStatus(
            up=books.server_up, version=books.server_version, restarts=books.server_restarts, detail=books.server_detail
        )

    def scanned(self) -> bool:
        """``incoming/`` was looked at once."""
        return self._books.scanned

    def names(self) -> frozenset[str]:
        """The served names of all models, as they are now."""
        return frozenset(self._books.models)

    async def known_target(self, name: str, *, timeout_s: float) -> Target:
        """``target()``; a name that means nothing is unknown once ``incoming/`` was looked at, not before.

        Raises ``DeadlineExceeded`` too.
        """
        with contextlib.suppress(UnknownModel):
            return self.target(name)
        try:
            async with asyncio.timeout(timeout_s):
                await self._books.first_scan.wait()
        except TimeoutError:
            raise DeadlineExceeded(f"the watch directories were not scanned within {timeout_s:g} s") from None
        return self.target(name)

    def target(self, name: str) -> Target:
        """What ``name`` means in a request: a model, or ``BASE:ADAPTER``, by its served name or its label.

        Raises ``UnknownModel`` with the nearest names, ``NotServable`` for an adapter that waits for its base.
        """
        return self._reactions.adapters.target(self._find(name))

    def status(self, name: str) -> ModelStatus:
        """Raises ``UnknownModel`` with the nearest names."""
        return self._status(self._find(name), time.monotonic())

    def _status(self, model: Model, now: float) -> ModelStatus:
        return self._reactions.adapters.show(model, model.status(now, self._desk.usage_window_s))

    def explained(self, name: str) -> ModelStatus:
        """``status()`` whose decisions begin with what the next pass would say; costs a plan."""
        model, now = self._find(name), time.monotonic()
        status = self._status(model, now)
        if model.state is not State.LOADED:
            return status
        said = planner.explain(self._loop.observe(now), model.key)
        return replace(status, decisions=(said, *status.decisions)) if said is not None else status

    def plan(self) -> Plan:
        """What the next pass would do, and for every loaded model why it stays."""
        observed = self._loop.observe(time.monotonic())
        made = planner.plan(observed)
        spoken_for = {decision.model for decision in made.decisions}
        rest: list[Decision] = [
            decision
            for view in observed.models
            if view.name not in spoken_for and (decision := planner.explain_keep(observed, view)) is not None
        ]
        return Plan(actions=made.actions, decisions=(*made.decisions, *rest), pressure=made.pressure)

    def alive(self) -> bool:
        """The loop turned lately."""
        return time.monotonic() - self._loop.turned_at < _DEAD_AFTER_S

    def ready(self) -> bool:
        """Triton is up and ``incoming/`` was scanned once."""
        return self._books.server_up and self._books.scanned and self.alive()

    def _own(self, name: str) -> Model:
        """Raises ``Conflict`` for an adapter: it is loaded, unloaded and pinned with its base."""
        model = self._find(name)
        if model.adapter is not None:
            base = self._status(model, time.monotonic()).base or "its base"
            raise Conflict(f"{model.key!r} is a LoRA adapter and goes with {base}: ask that of {base}, or remove the folder")
        return model

    def _find(self, name: str) -> Model:
        model = self._books.models.get(name) or self._books.by_label(name) or self._reactions.adapters.find(name)
        if model is None:
            near = nearest(name, self._books.models)
            known = f"did you mean {', '.join(near)}?" if near else "`modelium list` (GET /models) shows those that are there"
            raise NoModelCalled(printable(name, longest=None), known)
        return model

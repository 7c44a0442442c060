"""The controller: what others may ask of it.

What enters: events, requests for leases, commands. What leaves: leases, snapshots. All of it runs on one event loop; a record
is changed by ``Models.apply`` alone, which never awaits.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from modelium.analysis import Analysts
from modelium.brain import plan as planner
from modelium.brain.dropped import plan_with
from modelium.config import Settings
from modelium.controller.adapters import shown
from modelium.controller.admission import Admission
from modelium.controller.askers import ASKER
from modelium.controller.assembly import assemble
from modelium.controller.births import awaiting
from modelium.controller.events import Event, RayDown, RayUp, ServerDown
from modelium.controller.leases import Lease
from modelium.controller.life import events as happens
from modelium.controller.life.record import Record
from modelium.controller.life.views import status_of
from modelium.controller.lookup import Lookup
from modelium.controller.model import Model
from modelium.controller.server import Server
from modelium.decision_log import DecisionLog
from modelium.devices import Devices
from modelium.errors import Conflict, DeadlineExceeded, NotServable, UnknownModel
from modelium.ledger import Ledger
from modelium.metrics import Recorder
from modelium.pace import in_pieces
from modelium.ray import RayService
from modelium.repository import ModelRepository
from modelium.trail import Trail
from modelium.triton.client import TritonClient
from modelium.values import (
    Decision,
    LoadingStatus,
    ModelProfile,
    ModelStatus,
    NurseryStatus,
    Plan,
    RayFacts,
    Runtime,
    ServerStatus,
    Snapshot,
    State,
    Target,
    VllmFacts,
)

_NOTHING: Mapping[str, float] = {}
_DEAD_AFTER_S = 10.0  # the loop turns every second: after ten without a turn it is stuck


def _nothing() -> None:
    pass


class Controller:
    """Owns every model's state. ``run()`` turns; everything else here returns at once or waits for it.

    ``trail``: where requests leave a line each, None where they leave none.
    """

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
        trail: Trail | None = None,
        decisions: DecisionLog | None = None,
        expects: Callable[[Runtime, Iterable[str]], None] = lambda runtime, modules: None,
        importing: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self.trail = trail
        self._importing = importing
        server = Server(
            client=client,
            repository=repository,
            devices=devices,
            backends=backends,
            vllm=vllm,
            pid=server_pid,
            owner=ledger.owner,
            expects=expects,
        )
        self._decisions = decisions or DecisionLog()
        parts = assemble(
            settings,
            server,
            ray=ray or RayService(None, RayFacts()),
            analysts=analysts or Analysts(),
            ledger=ledger,
            recorder=recorder,
            decisions=self._decisions,
        )
        self._ledger = ledger
        self._recorder = recorder
        self._models = parts.models
        self._admission = Admission(parts.models, self._remaining_s)
        self._lookup = Lookup(parts.models)
        self._world = parts.world
        self._state = parts.state
        self._readings = parts.readings
        self._passes = parts.passes
        self._loop = parts.loop
        self._progress = parts.progress
        self.news = parts.news
        self._post = parts.post

    def post(self, event: Event) -> None:
        """Put an event into the queue; from the event loop's thread."""
        self._post(event)

    async def run(self) -> None:
        """Turn until cancelled."""
        await self._loop.run()

    # -- what the server's supervisor says ---------------------------------------------------------------------------

    def server_up(self) -> None:
        """Triton answers; called each time it comes up."""
        self._readings.greet()

    def was_up(self) -> bool:
        """Did Triton ever come up?"""
        return self._state.server.starts > 0

    def server_down(self, detail: str) -> None:
        """Triton is gone, and everything that it had loaded."""
        self._readings.forget_greeting()
        self.post(ServerDown(detail=detail))

    def ray_up(self) -> None:
        """Models can be deployed on Ray; called each time it comes up."""
        if self._world.ray.restarts:
            self._recorder.ray_restart()
        self.post(RayUp())

    def ray_down(self, detail: str) -> None:
        """Ray is gone, and every replica with it."""
        self.post(RayDown(detail=detail))

    # -- what the gateway asks ---------------------------------------------------------------------------------------

    async def lease(self, name: str, *, timeout_s: float, on_wait: Callable[[], None] = _nothing) -> Lease:
        """The right to send one request to ``name``; waits until it is loaded and it is its turn. ``on_wait`` is called where
        it has to wait. Who asks is in ``ASKER``.

        Raises ``UnknownModel``, ``NotServable`` (with the reason), ``QueueFull``, ``DeadlineExceeded``.
        """
        model = self._lookup.find(name)
        if self.trail is None:
            return await self._lease(model, timeout_s, on_wait)
        entry = self.trail.arrive(model.record.key)
        try:
            lease = await self._lease(model, timeout_s, on_wait)
        except BaseException:
            entry.end()
            raise
        entry.begin()
        lease.then(entry.end)
        return lease

    def lease_now(self, name: str) -> Lease | None:
        """The same for what needs neither to wait nor to be watched: ``name`` is the served name of a model that takes one more
        request at once, and not on Ray. Else None, and nobody has asked."""
        model = self._models.get(name)
        if model is None or not model.takes_one_more or ((place := model.record.placement) is not None and place.by_ray):
            return None
        lease = self._models.requests.grant(model, comes=True)
        if self.trail is not None:
            entry = self.trail.arrive(name)
            entry.begin()
            lease.then(entry.end)
        return lease

    async def _lease(
        self, model: Model, timeout_s: float, on_wait: Callable[[], None] = _nothing, *, sends: bool = True
    ) -> Lease:
        asker = ASKER.get()
        lease = self._admission.ask(model, time.monotonic(), asker, sends=sends)
        if lease is not None:
            return lease
        on_wait()
        return await self._models.requests.wait(model, timeout_s, asker)

    def report_gone(self, name: str, detail: str) -> None:
        """A request that held a lease found the model or Triton gone: no more leases until that was looked at."""
        model = self._models.get(name)
        if model is not None:
            self._models.apply(model, happens.FoundGone(detail))

    def turn_away(self) -> None:
        """Modelium stops: who waits for a load is told so."""
        for model in self._models:
            words = f"{model.record.key!r}: Modelium is stopping; try again when it is back"
            self._models.requests.reject(model, NotServable(words))

    # -- what users ask ----------------------------------------------------------------------------------------------

    async def load(self, name: str, *, timeout_s: float) -> ModelStatus:
        """Load now and wait for it; of an adapter its base. A failure lifts an earlier quarantine: the user may know better.

        Raises what ``lease()`` raises.
        """
        model = self._lookup.find(self.target(name).model)
        self._models.apply(model, happens.UserLoadBegan())
        try:
            (await self._lease(model, timeout_s, sends=False)).release()
        finally:
            self._models.apply(model, happens.UserLoadEnded())
        return self.status(name)

    async def unload(self, name: str, *, timeout_s: float) -> ModelStatus:
        """Drain, unload and verify. Raises ``Conflict`` when a pin or ``always_loaded`` would bring it back at once, and
        ``DeadlineExceeded`` while it goes on.
        """
        model = self._lookup.own(name)
        wish = model.record.wish
        if wish.pinned or wish.always_loaded:
            what = "is pinned: unpin it first" if wish.pinned else "is in always_loaded: take it out of the configuration first"
            raise Conflict(f"{name!r} {what}")
        if model.record.state.stays:
            done = self._models.requests.when_unloaded(model)
            self._models.apply(model, happens.UserUnloads())
            try:
                async with asyncio.timeout(timeout_s):
                    await done
            except TimeoutError:
                words = f"{name!r} is still {model.record.state} after {timeout_s:g} s; it goes on"
                raise DeadlineExceeded(words) from None
        else:
            self._models.apply(model, happens.UserUnloads())
        return self.status(name)

    def pin(self, name: str, pinned: bool) -> ModelStatus:
        """Pinned: loaded, and never unloaded by policy. Raises ``Conflict`` for an adapter."""
        self._models.apply(self._lookup.own(name), happens.Pinned(pinned))
        self._ledger.remember_pin(name, pinned)
        return self.status(name)

    # -- what can be seen --------------------------------------------------------------------------------------------

    async def snapshot(self) -> Snapshot:
        """Everything, made in pieces: each model as it was in one instant, those of thousands in instants that follow."""
        importing = await asyncio.to_thread(self._importing)
        models = [
            self._status(model.record, time.monotonic(), importing)
            async for model in in_pieces(tuple(self._models))
            if self._models.get(model.record.key) is model  # else it went meanwhile
        ]
        now, known = time.monotonic(), self._state
        nursery = known.nursery
        if importing:
            nursery = replace(nursery or NurseryStatus(processes=0, children=0, held_bytes=0), importing=tuple(importing))
        return Snapshot(
            now=now,
            models=tuple(models),
            fleet=self._world.fleet(),
            ray_restarts=self._world.ray.restarts,
            server=self.server(),
            scanned=known.scanned,
            directories=known.directories,
            unclaimed=known.unclaimed,
            turn_age_s=now - self._loop.turned_at,
            longest_pause_s=self._loop.pauses.longest_s(),
            nursery=nursery,
            waiting_by_key=dict(self._models.requests.queue.by_key),
        )

    def server(self) -> ServerStatus:
        """Triton as it is known now."""
        return self._state.server.status

    def scanned(self) -> bool:
        """``incoming/`` was looked at once."""
        return self._state.scanned

    def names(self) -> frozenset[str]:
        """The served names of all models, as they are now."""
        return self._models.keys()

    async def known_target(self, name: str, *, timeout_s: float) -> Target:
        """``target()``; a name that means nothing is unknown once ``incoming/`` was looked at, not before.

        Raises ``DeadlineExceeded`` too.
        """
        with contextlib.suppress(UnknownModel):
            return self.target(name)
        try:
            async with asyncio.timeout(timeout_s):
                await self._state.first_scan.wait()
        except TimeoutError:
            raise DeadlineExceeded(f"the watch directories were not scanned within {timeout_s:g} s") from None
        return self.target(name)

    def target(self, name: str) -> Target:
        """What ``name`` means in a request: a model, or ``BASE:ADAPTER``, by its served name or its label.

        Raises ``UnknownModel`` with the nearest names, ``NotServable`` for an adapter that waits for its base.
        """
        return self._lookup.target(name)

    def status(self, name: str) -> ModelStatus:
        """Raises ``UnknownModel`` with the nearest names."""
        return self._status(self._lookup.find(name).record, time.monotonic())

    def _status(self, record: Record, now: float, importing: Mapping[str, float] = _NOTHING) -> ModelStatus:
        status = shown(record, status_of(record, now, self._world.usage_window_s), self._record_of)
        if record.state is State.LOADING:
            status = replace(status, loading=self.loading(record.key))
        return awaiting(status, importing, now)

    def loading(self, key: str) -> LoadingStatus | None:
        """How far the load of that model is; None where none is under way."""
        model = self._models.get(key)
        return self._progress.of(key, model.record.past.load_seconds) if model is not None else None

    def under_load(self) -> tuple[str, ...]:
        """The served names of the models that load now."""
        return self._progress.keys()

    def _remaining_s(self, key: str) -> float | None:
        """Of its load, or of the one that is over first (""); None where that is not known."""
        under_way = (self.loading(one) for one in ((key,) if key else self._progress.keys()))
        known = [status.remaining_s for status in under_way if status is not None and status.remaining_s is not None]
        return min(known, default=None)

    def _record_of(self, key: str) -> Record | None:
        model = self._models.get(key)
        return model.record if model is not None else None

    async def explained(self, name: str) -> ModelStatus:
        """``status()`` with what its load waits for, and with the decisions of others that made room for it. These begin with
        what the next pass would say, which costs a plan."""
        loads = self._lookup.find(name).record.state is State.LOADING
        importing = await asyncio.to_thread(self._importing) if loads else _NOTHING
        record, now = self._lookup.find(name).record, time.monotonic()
        status = self._status(record, now, importing)
        made = {id(decision): decision for decision in (*status.decisions, *self._decisions.for_the_sake_of(status.name))}
        status = replace(status, decisions=tuple(sorted(made.values(), key=lambda decision: -decision.at)))
        if record.state is not State.LOADED:
            return status
        said = planner.explain(self._passes.board(now), now, record.key)
        return replace(status, decisions=(said, *status.decisions)) if said is not None else status

    def plan_with(self, dropped: ModelProfile) -> Plan:
        """What would become of everybody else if that were dropped, and asked for where it has no room.

        Raises ``Conflict`` for a name that is here: that would be the same again, or a newer revision of it.
        """
        name = dropped.name
        if (here := self._models.get(name)) is not None:
            found = here.record.folder.profile
            if found is not None and found.fingerprint == dropped.fingerprint:
                words = f"with the same content: dropped again, nothing would change; `modelium why {name}` says how it is"
                raise Conflict(f"{name!r} is here already, {words}")
            words = "with other content: dropped in its place, this is a newer revision of it"
            raise Conflict(f"{name!r} is here already, {words}; to plan with both, give the folder another name")
        now = time.monotonic()
        wish = self._world.first_wish(name, dropped.path.name, pinned=self._ledger.pinned(name))
        return plan_with(self._passes.board(now), now, dropped, wish.demand)

    def plan(self) -> Plan:
        """What the next pass would do, and for every loaded model why it stays."""
        now = time.monotonic()
        board = self._passes.board(now)
        made = planner.plan_on(board, now, tell_all=True)
        spoken_for = {decision.model for decision in made.decisions}
        rest: list[Decision] = [
            decision
            for view in board.views.values()
            if view.name not in spoken_for and (decision := planner.explain_keep(board, now, view)) is not None
        ]
        return Plan(actions=made.actions, decisions=(*made.decisions, *rest), pressure=made.pressure)

    def alive(self) -> bool:
        """The loop turned lately."""
        return time.monotonic() - self._loop.turned_at < _DEAD_AFTER_S

    def ready(self) -> bool:
        """Triton is up and ``incoming/`` was scanned once."""
        return self._state.server.up and self._state.scanned and self.alive()

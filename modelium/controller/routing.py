"""What an event means for each model. What enters: events of the queue. What leaves: events of models' lives."""

from __future__ import annotations

import hashlib
import logging
import time

from modelium.brain.adapters import name_adapters
from modelium.brain.bounds import Held, who_outgrew
from modelium.brain.placement.memory import estimate_footprint
from modelium.brain.runtimes.choice import choose_runtime
from modelium.brain.usage import UsageWindow
from modelium.controller.adapters import arrange
from modelium.controller.events import (
    About,
    Event,
    Measured,
    MemoryLeft,
    RayDown,
    RayUp,
    Scanned,
    ServerDown,
    ServerUp,
    Wake,
)
from modelium.controller.leaks import note_reading, note_unload
from modelium.controller.life import events as happens
from modelium.controller.life.accidents import was_loading
from modelium.controller.life.folder import is_as_before
from modelium.controller.life.phases import AdapterFolder, Loading
from modelium.controller.life.record import Folder, Memory, Record, Use
from modelium.controller.model import Model
from modelium.controller.models import Models
from modelium.controller.state import ControllerState
from modelium.controller.suitability import Suitability
from modelium.controller.takeover import Takeover
from modelium.controller.world import World
from modelium.ledger import Ledger
from modelium.metrics import Recorder
from modelium.names import printable
from modelium.values import Candidate, Device, ModelProfile, Runtime, State, override_of

log = logging.getLogger(__name__)

_LATELY_S = 10.0  # after its last change the watcher looks again within this time


class Routing:
    """Tells the models what happened."""

    def __init__(
        self,
        models: Models,
        world: World,
        state: ControllerState,
        *,
        ledger: Ledger,
        recorder: Recorder,
    ) -> None:
        self._models = models
        self._world = world
        self._state = state
        self._ledger = ledger
        self._recorder = recorder
        self._adapters_may_move = False
        self._takeover = Takeover(models, world, state)
        self._suitability = Suitability(models, world, state)

    def handle(self, event: Event) -> None:
        """Apply one event."""
        match event:
            case Scanned():
                self._scanned(event)
            case About(key=key, event=about):
                self._happened(key, about)
            case Measured():
                self._measured(event)
            case MemoryLeft():
                note_unload(self._state.leaks, event)
            case ServerUp():
                self._server_up(event)
            case ServerDown():
                self._server_down(event)
            case RayUp():
                self._takeover.all_of_them()
                self._suitability.of_all()
            case RayDown():
                self._ray_down(event)
            case Wake():
                pass

    def _happened(self, key: str, event: happens.WorkEnd | happens.Analyzed) -> None:
        model = self._models.get(key)
        if model is None:
            return
        if isinstance(event, happens.Analyzed):
            self._adapters_may_move = True
            self._apply_what_was_found(model, event)
        else:
            self._models.apply(model, event)

    # -- folders -----------------------------------------------------------------------------------------------------

    def _scanned(self, event: Scanned) -> None:
        """Add what is new, look again at what changed, let go what is gone."""
        self._recorder.scan(event.seconds)
        if event.lag_s is not None:
            self._recorder.watcher_lag(event.lag_s)
        self._state.directories, self._state.unclaimed = event.directories, event.unclaimed
        seen: set[str] = set()
        served_before = self._ledger.names()
        for candidate in event.candidates:
            key = _key(candidate)
            seen.add(key)
            model = self._models.get(key)
            if model is None:
                model = self._models.add(self._new(key, candidate, served_before=key in served_before))
            # What is missing may have become final, and what cannot prove that it is whole has been quiet long enough by now.
            again = event.lag_s is None or time.time() - candidate.newest_mtime < _LATELY_S
            found = happens.FolderSeen(candidate=candidate, again=again)
            if not is_as_before(model.record, found):
                self._models.try_to_apply(model, found)
        for model in self._models:
            if model.record.key not in seen and not model.record.folder.gone:
                self._adapters_may_move = True
                self._models.try_to_apply(model, happens.FolderGone())
        self._state.first_scan.set()

    def _new(self, key: str, candidate: Candidate, *, served_before: bool) -> Record:
        return Record(
            key=key,
            folder=Folder(candidate=candidate, served_before=served_before),
            wish=self._world.first_wish(candidate.name, candidate.label, pinned=self._ledger.pinned(key)),
            use=Use(window=UsageWindow(arrivals=self._ledger.arrivals(key))),
            memory=Memory(stated=override_of(self._world.overrides, candidate.name).memory_bytes),
        )

    def _apply_what_was_found(self, model: Model, event: happens.Analyzed | happens.Revised) -> None:
        """What one folder says must not leave it, or the others, without an answer."""
        try:
            self._models.apply(model, event)
        except Exception as defect:
            known = model.record.folder.analyzed_signature
            self._give_up(model, defect, event.signature if isinstance(event, happens.Analyzed) else known)

    def _give_up(self, model: Model, defect: Exception, signature: str) -> None:
        log.error("%s: what was found cannot be used, a defect of Modelium", model.record.key, exc_info=defect)
        words = f"what was found cannot be used, which is a defect of Modelium: {type(defect).__name__}: {defect}"
        self._models.try_to_apply(model, happens.Unusable(words=printable(words), signature=signature))

    def settle_adapters(self) -> None:
        """Adapters go to their bases, and what was analyzed is revised with the adapters that it has: one pass for all."""
        if not self._adapters_may_move:
            return
        self._adapters_may_move = False
        capabilities = self._world.capabilities() if self._state.server.starts else None
        try:
            moved, revisions = arrange(self._models.records(), self._world.overrides, capabilities)
        except Exception:  # one odd adapter must not keep all models from being served
            log.exception("adapters could not be given to their bases, a defect of Modelium")
            models = [record for record in self._models.records() if not isinstance(record.phase, AdapterFolder)]
            moved, revisions = arrange(models, self._world.overrides, capabilities)
        for key, standing in moved.items():
            if (adapter := self._models.get(key)) is not None:
                log.info("%s: %s", key, standing.reason)
                self._models.try_to_apply(adapter, standing)
        for key, profile in revisions.items():
            if (model := self._models.get(key)) is not None:
                if profile.language is not None and profile.language.adapters:
                    log.info("%s: %s", key, name_adapters(key, profile.language.adapters))
                self._revise(model, profile)

    def _revise(self, model: Model, profile: ModelProfile) -> None:
        key, override = model.record.key, override_of(self._world.overrides, profile.name)
        try:
            choice = choose_runtime(profile, self._world.capabilities(), override)
            revised = happens.Revised(
                profile=profile,
                remembered=self._ledger.facts(key, profile.fingerprint),
                estimated_bytes=estimate_footprint(profile, choice.runtime or Runtime.PYTHON, born=choice.born),
                ready_in_triton=key in self._state.server.ready,
            )
        except Exception as defect:
            self._give_up(model, defect, model.record.folder.analyzed_signature)
            return
        self._apply_what_was_found(model, revised)
        self._takeover.of(model)
        self._suitability.of(model)

    # -- Triton ------------------------------------------------------------------------------------------------------

    def _server_up(self, event: ServerUp) -> None:
        ready = {name: event.owned.get(name, "") for name, entry in event.index.items() if entry.state == "READY"}
        self._state.server = self._state.server.came_up(event.version, ready)
        if self._state.server.starts > 1:
            self._recorder.triton_restart()
        log.info("Triton %s is up", event.version)
        self._adapters_may_move = True
        self.settle_adapters()  # a base is recognised by all that is attached to it
        self._takeover.all_of_them()
        self._suitability.of_all()

    def _server_down(self, event: ServerDown) -> None:
        server = self._state.server
        self._state.server = server.went_down(event.detail)
        self._state.leaks.clear()
        if not server.up:
            return
        log.error("Triton is down: %s", event.detail)
        now = time.monotonic()
        loading = [model for model in self._models if was_loading(model.record, now)]
        for model in self._models:
            alone = loading == [model]
            place = loading.index(model) if model in loading and not alone else None
            self._models.try_to_apply(model, happens.ServerLost(detail=event.detail, alone=alone, place=place))

    def _ray_down(self, event: RayDown) -> None:
        log.error("Ray is down: %s", event.detail)
        loading = [model for model in self._models if _loads_on_ray(model.record)]
        for model in self._models:
            lost = happens.RayLost(detail=event.detail, alone=loading == [model])
            self._models.try_to_apply(model, lost)

    # -- readings ----------------------------------------------------------------------------------------------------

    def _measured(self, event: Measured) -> None:
        server = self._state.server
        if event.generation != server.starts or not server.up:
            return
        note_reading(self._state.leaks, event.residues)
        self._state.nursery = event.nursery
        weighed = []
        for model in self._models:
            record = model.record
            if record.state is not State.LOADED:
                continue
            reading = _reading_of(record.key, event)
            self._models.try_to_apply(model, reading)
            if model.record.state is State.LOADED and model.record.memory is not record.memory:
                weighed.append(model)  # by this very reading
        self._bound(weighed)

    def _bound(self, weighed: list[Model]) -> None:
        """Unload what took far more of the host than was thought, where others are short of it (``brain.bounds``)."""
        for host in self._world.fleet().hosts():
            self._bound_on(host, weighed)

    def _bound_on(self, host: Device, weighed: list[Model]) -> None:
        held = [
            Held(model=record.key, held_bytes=record.memory.weighed, expected_bytes=record.memory.expected)
            for model in weighed
            if (record := model.record).memory.weighed is not None
            and record.placement is not None
            and record.placement.device_id == host.id
        ]
        gone = who_outgrew(held, host, pressure_fraction=self._world.policies.pressure_fraction)
        if gone is not None and (model := self._models.get(gone.model)) is not None:
            self._models.try_to_apply(model, happens.Outgrew(rule=gone.rule, reason=gone.reason))


def _reading_of(key: str, event: Measured) -> happens.Read:
    statistics, entry = event.statistics.get(key), event.index.get(key)
    return happens.Read(
        started_at=event.started_at,
        completed=statistics.completed if statistics is not None else None,
        processes=event.processes.get(key, ()) if event.processes is not None else None,
        replicas=event.replicas.get(key, ()),
        held=event.held.get(key, 0),
        born=key in event.born if event.processes is not None else None,
        orphaned=key in event.orphaned,
        in_triton=entry.state if entry is not None else None,
        triton_says=entry.reason if entry is not None else "",
    )


def _loads_on_ray(record: Record) -> bool:
    return isinstance(record.phase, Loading) and record.phase.attempt.placement.by_ray


def _key(candidate: Candidate) -> str:
    """The served name; a candidate in conflict gets a key that no served name can be."""
    if candidate.conflict is None:
        return candidate.name
    return f"{candidate.name}~{hashlib.sha256(str(candidate.path).encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"

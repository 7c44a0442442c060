"""What a scan and an analysis do to the books: models appear, change and go.

What enters: ``Scanned`` and ``Analyzed``. What leaves: changed records, and loads, reloads and unloads asked of ``Reactions``.
"""

from __future__ import annotations

import hashlib
import logging
import time

from modelium.brain.placement.memory import estimate_footprint
from modelium.brain.runtimes.choice import choose_runtime
from modelium.controller.adapters import Adapters
from modelium.controller.admission import Admission
from modelium.controller.desk import Desk
from modelium.controller.events import Analyzed, Scanned
from modelium.controller.loads import Loads
from modelium.controller.outages import Outages
from modelium.controller.record import Model
from modelium.errors import NotServable, UnknownModel
from modelium.names import printable
from modelium.values import (
    AdapterProfile,
    Candidate,
    Demand,
    Incomplete,
    ModelOverride,
    ModelProfile,
    Runtime,
    State,
    Unsupported,
)

log = logging.getLogger(__name__)

_LATELY_S = 10.0  # after its last change the watcher looks again within this time
_SETTLED = (State.INCOMPLETE, State.UNSUPPORTED, State.UNLOADED, State.FAILED)


class Folders:
    """Keeps the records in step with ``incoming/``."""

    def __init__(self, desk: Desk, admission: Admission, loads: Loads, outages: Outages, adapters: Adapters) -> None:
        self._desk = desk
        self._adapters = adapters
        self._admission = admission
        self._loads = loads
        self._outages = outages
        settings = desk.settings
        self._always_loaded = frozenset(settings.orchestration.policies.always_loaded)
        self._want_at_discovery = Demand.DISCOVERY if settings.orchestration.load_on_discovery else Demand.NONE

    def scanned(self, event: Scanned) -> None:
        """Add what is new, look again at what changed, let go what is gone."""
        seen: set[str] = set()
        self._desk.books.directories, self._desk.books.unclaimed = event.directories, event.unclaimed
        to_analyze: list[tuple[str, Candidate]] = []
        periodic = event.lag_s is None
        for candidate in event.candidates:
            key = _key(candidate)
            seen.add(key)
            model = self._desk.books.models.get(key)
            if model is None:
                model = self._desk.books.models[key] = self._new(key, candidate)
            if model.removing:
                continue  # it came back while it was on its way out: found anew when it is gone
            model.candidate = candidate
            if candidate.conflict is not None:
                if model.state in _SETTLED:
                    model.become(State.UNSUPPORTED, candidate.conflict)
                continue
            # What is missing may have become final, and what cannot prove that it is whole has been quiet long enough by
            # now. An adapter's base is found without looking at the adapter again.
            lately = time.time() - candidate.newest_mtime < _LATELY_S
            again = (periodic or lately) and model.state is State.INCOMPLETE and model.adapter is None
            if (candidate.signature != model.analyzed_signature or again) and not model.analyzing:
                model.analyzing = True
                to_analyze.append((key, candidate))
        for key in [key for key in self._desk.books.models if key not in seen]:
            self._gone(self._desk.books.models[key])
        self._analyze(to_analyze)
        self._desk.books.first_scan.set()

    def analyzed(self, event: Analyzed) -> None:
        """Apply what the analyzers found, unless the folder has changed since: then look again."""
        model = self._desk.books.models.get(event.key)
        if model is None:
            return
        model.analyzing = False
        if model.removing:
            return
        model.analyzed_signature = event.signature
        self._adapters.changed()
        try:
            self._apply(model, event)
        except Exception as defect:
            self._give_up(model, defect)
        if model.candidate.signature != event.signature:
            model.analyzing = True
            self._desk.work.analyze([(model.key, model.candidate)])

    def _apply(self, model: Model, event: Analyzed) -> None:
        match event.analysis:
            case Incomplete(why=why, missing=missing):
                model.missing = missing
                if model.state in _SETTLED and not (model.adapter is not None and model.state is State.UNLOADED):
                    self._forget_revision(model)
                    model.become(State.INCOMPLETE, why)
                    if (obstacle := self._admission.obstacle(model)) is not None:
                        self._admission.reject_waiters(model, obstacle)
                else:
                    model.revision_error = f"a new revision is not complete yet: {why}"
            case Unsupported(why=why, hint=hint):
                model.missing = ()
                self._refuse(model, f"{why}; {hint}" if hint else why)
            case AdapterProfile() as found:
                model.missing = ()
                if model.state in _SETTLED:
                    self._adapters.found(model, found)
                    self._admission.reject_waiters(model, NotServable(f"{model.key!r} is a LoRA adapter, not a model"))
                else:
                    model.revision_error = "its folder holds a LoRA adapter now: remove the folder, then drop the adapter"
            case ModelProfile() as profile:
                model.missing = ()
                model.touched |= event.seal != model.profile_seal
                model.profile_seal = event.seal
                self._forget_adapter(model)
                self._adapters.analyzed(model, profile)

    def _give_up(self, model: Model, defect: Exception) -> None:
        """What one folder says must not leave it, or the others, without an answer."""
        log.error("%s: what was found cannot be used, a defect of Modelium", model.key, exc_info=defect)
        words = f"what was found cannot be used, which is a defect of Modelium: {type(defect).__name__}: {defect}"
        self._refuse(model, printable(words))

    def _refuse(self, model: Model, words: str) -> None:
        if model.state in _SETTLED:
            self._forget_revision(model)
            model.become(State.UNSUPPORTED, words)
            self._admission.reject_waiters(model, NotServable(f"{model.key!r} cannot be served: {words}"))
        else:
            model.revision_error = f"the new revision cannot be served: {words}"

    def _analyze(self, candidates: list[tuple[str, Candidate]]) -> None:
        """First what somebody wants, or what served before: what strangers dropped beside it waits, not the other way round."""
        served = self._desk.ledger.names() if candidates else frozenset()
        soon: list[tuple[str, Candidate]] = []
        later: list[tuple[str, Candidate]] = []
        for key, candidate in candidates:
            model = self._desk.books.models[key]
            wanted = model.pinned or model.always_loaded or model.waiters or model.profile is not None
            (soon if wanted or key in served else later).append((key, candidate))
        self._desk.work.analyze(soon, soon=True)
        self._desk.work.analyze(later)

    def _forget_revision(self, model: Model) -> None:
        self._forget_adapter(model)
        model.profile = model.plain = None

    def _forget_adapter(self, model: Model) -> None:
        """It is none: what is discovered there now is wanted as any other folder (an adapter is wanted by its base only)."""
        if model.adapter is not None:
            model.adapter = None
            model.want = max(model.want, self._want_at_discovery)

    def finish_removal(self, model: Model) -> None:
        """Its folder is gone and it occupies nothing: forget it, and its entry."""
        self._desk.books.models.pop(model.key, None)
        self._desk.work.remove(model.key)
        self._admission.reject_waiters(model, UnknownModel(f"{model.key!r}: its folder was removed"))
        log.info("%s: removed, its folder is gone", model.key)

    def _new(self, key: str, candidate: Candidate) -> Model:
        override = self._desk.overrides.get(candidate.name)
        return Model(
            key=key,
            candidate=candidate,
            want=self._want_at_discovery,
            want_since=time.monotonic(),
            pinned=self._desk.ledger.pinned(key) or bool(override and override.pin),
            always_loaded=candidate.name in self._always_loaded or candidate.label in self._always_loaded,
        )

    def _gone(self, model: Model) -> None:
        if model.removing:
            return
        model.removing = True
        model.adapter = None
        self._adapters.changed()
        model.want = Demand.NONE
        model.reason = "its folder was removed"
        if model.state is State.LOADED:
            self._loads.begin_unload(model, "removed", "its folder was removed")

    def revise(self, model: Model, profile: ModelProfile) -> None:
        """A complete revision, adapters included. The same as before: nothing but a copy that was touched."""
        try:
            self._revise(model, profile)
        except Exception as defect:
            self._give_up(model, defect)

    def _revise(self, model: Model, profile: ModelProfile) -> None:
        known = model.profile
        touched, model.touched = model.touched, False
        if known is not None and (known.fingerprint, known.path) == (profile.fingerprint, profile.path):
            if model.state is State.LOADED and model.serving is not None and model.serving.fingerprint == profile.fingerprint:
                model.revision_error = ""
            elif touched and model.state is State.LOADED:
                self._loads.catch_up(model)  # that revision failed, and perhaps it loads now
            elif touched and model.state is State.FAILED and model.retry_at is None:
                self._pardon(model)
            return
        model.profile = profile
        model.revision_error = ""
        model.forgive()
        model.crashes.clear()
        model.entry = None
        facts = self._desk.ledger.facts(model.key, profile.fingerprint)
        model.measured_bytes = facts.measured_bytes
        model.load_seconds = facts.load_seconds or 0.0
        model.estimated_bytes = self._estimate(profile)
        if model.state in _SETTLED:
            was_broken = model.state in (State.FAILED, State.UNSUPPORTED)
            waits = model.put_off and model.state is State.UNLOADED
            model.become(State.UNLOADED, model.reason if waits else "not loaded yet")
            if was_broken:
                model.want = max(model.want, self._want_at_discovery)
            if facts.loaded:
                model.want = max(model.want, Demand.RESTORE)
            if model.key in self._desk.books.ready_in_triton:
                self._outages.take_over(model)
            elif facts.quarantine and known is None:
                if facts.quarantine_seal in ("", model.profile_seal):
                    model.become(State.FAILED, f"in quarantine until its folder changes: {facts.quarantine}")
                    model.retry_at = None
                else:
                    self._pardon(model)  # while Modelium was off
        else:
            self._loads.catch_up(model)

    def _pardon(self, model: Model) -> None:
        """The folder was touched: its rights, or what lies beside the weights. Perhaps it loads now."""
        assert model.profile is not None
        model.forgive()
        model.crashes.clear()
        self._desk.ledger.lift_quarantine(model.key, model.profile.fingerprint)
        model.become(State.UNLOADED, "its folder was touched: not loaded yet")
        model.want = max(model.want, self._want_at_discovery)

    def _estimate(self, profile: ModelProfile) -> int:
        capabilities = self._desk.capabilities()
        runtime = choose_runtime(profile, capabilities, self._desk.overrides.get(profile.name, ModelOverride())).runtime
        return estimate_footprint(profile, runtime or Runtime.PYTHON)


def _key(candidate: Candidate) -> str:
    """The served name; a candidate in conflict gets a key that no served name can be."""
    if candidate.conflict is None:
        return candidate.name
    return f"{candidate.name}~{hashlib.sha256(str(candidate.path).encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"

"""All models: the one place where a record changes. An event enters, ``life.step`` says what follows, and that is done.

Everything here runs on the event loop's thread and returns at once, so a change is whole before anybody else looks: that is why
requests may cause changes too, and no lock is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import assert_never

from modelium.controller.agenda import Agenda
from modelium.controller.events import About, Event, Wake
from modelium.controller.life import effects as do
from modelium.controller.life import events as happens
from modelium.controller.life.context import Context
from modelium.controller.life.events import LifeEvent
from modelium.controller.life.phases import Draining, Unloading
from modelium.controller.life.record import Record
from modelium.controller.life.table import step
from modelium.controller.model import Model
from modelium.controller.ports import Actions, Questions
from modelium.controller.queue import Bounds
from modelium.controller.requests import Requests
from modelium.controller.state import ControllerState
from modelium.errors import LoadFailed, UnknownModel
from modelium.ledger import Ledger
from modelium.metrics import Recorder
from modelium.values import Candidate, Decision, Demand, Device

log = logging.getLogger(__name__)

_NO_BOUNDS = Bounds()
_LEVELS = {do.Level.INFO: logging.INFO, do.Level.WARNING: logging.WARNING, do.Level.ERROR: logging.ERROR}


class Models:
    """Keeps the records by key. ``apply()`` is the only thing that changes one; it notes that in the next pass's ``agenda``."""

    def __init__(
        self,
        actions: Actions,
        questions: Questions,
        *,
        ledger: Ledger,
        recorder: Recorder,
        context: Callable[[], Context],
        post: Callable[[Event], None],
        state: ControllerState,
        decided: Callable[[Decision], None] = lambda decision: None,
        bounds: Bounds = _NO_BOUNDS,
        told: Callable[[Record, bool], None] = lambda record, gone: None,
    ) -> None:
        self._actions = actions
        self._questions = questions
        self._ledger = ledger
        self._recorder = recorder
        self._context = context
        self._post = post
        self._state = state
        self._decided = decided
        self._bounds = bounds
        self._told = told
        self.requests = Requests(self.apply, state, post, recorder, bounds)
        self.agenda = Agenda()
        self._models: dict[str, Model] = {}
        self._last_number = 0  # the highest of a model that was forgotten
        self._to_analyze: list[tuple[str, do.Analyze]] = []

    # -- who is here -------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Model]:
        return iter(list(self._models.values()))

    def get(self, key: str) -> Model | None:
        """The model with this key; None where there is none."""
        return self._models.get(key)

    def keys(self) -> frozenset[str]:
        """The served names of all models."""
        return frozenset(self._models)

    def records(self) -> list[Record]:
        """As they are now."""
        return [model.record for model in self._models.values()]

    def by_label(self, label: str) -> Model | None:
        """The model that the user knows as ``org/name``."""
        return next((m for m in self._models.values() if m.record.folder.candidate.label == label), None)

    def add(self, record: Record) -> Model:
        """A folder that was not here before, or whose predecessor was forgotten: late events of that one are told apart."""
        record = replace(record, past=replace(record.past, numbered=self._last_number))
        limit = self._bounds.in_flight.get(record.folder.candidate.name)
        model = self._models[record.key] = Model(record, max_in_flight=limit)
        self.agenda.note(model)
        self._told(record, False)
        return model

    def is_waited_for(self, record: Record) -> bool:
        """Does somebody wait, who may push others out, for the room that this model gives up?"""
        model = self._models.get(record.phase.leaving.yields_to) if isinstance(record.phase, Draining) else None
        return model is not None and model.record.demand >= Demand.USER and model.record.state.may_load

    # -- changes -----------------------------------------------------------------------------------------------------

    def apply(self, model: Model, event: LifeEvent) -> None:
        """Change the record as the event says, and do what follows. Raises ``IllegalTransition``, and then nothing changed.

        What cannot be done is a defect of Modelium, or the machine's want (of file descriptors): it keeps nothing else from
        being done, and work that could not begin has failed.
        """
        before = model.record
        model.record, effects = step(before, event, self._context())
        after = model.record
        if after is not before:
            self.agenda.note(model, before)
            if after.phase is not before.phase and (after.state, after.phase.reason) != (before.state, before.phase.reason):
                self._told(after, False)
        for effect in effects:
            try:
                self._perform(model, effect)
            except Exception as defect:
                log.exception("%s: %r could not be done, a defect of Modelium", model.record.key, effect)
                self._fail(model, effect, defect)

    def try_to_apply(self, model: Model, event: LifeEvent) -> bool:
        """``apply()`` where a defect that one model provokes must not stop the others. False: there was one; it is logged."""
        try:
            self.apply(model, event)
        except Exception:
            log.exception("%s: %r could not be handled, a defect of Modelium", model.record.key, event)
            return False
        return True

    def start_analyses(self) -> None:
        """Of all that was asked for since the last call: first what somebody wants, or what served before."""
        wanted, self._to_analyze = self._to_analyze, []
        for soon in (True, False):
            candidates: list[tuple[str, Candidate]] = [(key, order.candidate) for key, order in wanted if order.soon is soon]
            if candidates:
                self._actions.analyze(candidates, soon=soon)

    def measure(self) -> None:
        """Ask for a reading."""
        self._questions.measure(self._state.server.starts, self._places)

    def _places(self) -> dict[str, Device]:
        """Which device each occupying model is on: of a tensor-parallel engine the first, its ranks hold equally much."""
        found, devices = {}, {device.id: device for device in self._questions.fleet().devices}
        for key, model in self._models.items():
            placement = model.record.placement
            if model.record.memory.held and placement is not None:
                device = devices.get(placement.device_id)
                if device is not None:
                    found[key] = device
        return found

    # -- what follows ------------------------------------------------------------------------------------------------

    def _perform(self, model: Model, effect: do.Effect) -> None:
        key = model.record.key
        match effect:
            case do.Analyze():
                self._to_analyze.append((key, effect))
            case do.Load():
                self._actions.load(key, effect)
            case do.Unload(number=number):
                self._actions.unload(key, effect, current=lambda: _unloads(model.record, number))
            case do.Bury(number=number):
                self._actions.bury(key, number)
            case do.EndProcesses():
                self._actions.end(key)
            case do.Discard():
                self._actions.discard(key)
            case do.Check():
                self._questions.check(key, effect)
            case do.Watch():
                for cancel in self._questions.watch(key, effect):
                    model.exit_watches.append(cancel)
            case do.StopWatching():
                watches, model.exit_watches = model.exit_watches, []
                for cancel in watches:
                    cancel()
            case do.Measure():
                self.measure()
            case _:
                self._tell(model, effect)

    def _tell(self, model: Model, effect: do.Tells | do.Notes) -> None:
        """Those who wait for the model, the loop, and whoever reads the log."""
        key = model.record.key
        match effect:
            case do.Grant():
                self.requests.serve(model)
            case do.Reject(error=error):
                self.requests.reject(model, error)
            case do.UnloadIsOver():
                self.requests.tell_unloaded(model)
            case do.Wake():
                self._post(Wake())
            case do.Forget():
                self._forget(model)
            case do.Say(words=words, level=level):
                log.log(_LEVELS[level], "%s: %s", key, words)
            case _:
                self._note(key, effect)

    def _fail(self, model: Model, effect: do.Effect, defect: Exception) -> None:
        """Work that could not begin ends here, or the model would wait for its end for ever."""
        error = LoadFailed(f"{type(defect).__name__}: {defect}")
        match effect:
            case do.Load(number=number):
                self._post(About(model.record.key, happens.NotLoaded(number=number, seconds=0.0, error=error)))
            case do.Unload(number=number) | do.Bury(number=number):
                self._post(About(model.record.key, happens.NotUnloaded(number=number, seconds=0.0, error=error)))
            case _:
                pass

    def _note(self, key: str, effect: do.Notes) -> None:
        """What is kept over restarts, and what is counted."""
        match effect:
            case do.RememberLoad(fingerprint=fingerprint, seconds=seconds):
                self._ledger.remember_load(key, fingerprint, load_seconds=seconds)
            case do.RememberUnload(fingerprint=fingerprint):
                self._ledger.remember_unload(key, fingerprint)
            case do.RememberMeasurement(fingerprint=fingerprint, manner=manner, measured_bytes=measured):
                self._ledger.remember_measurement(key, fingerprint, measured, manner=manner)
            case do.RememberQuarantine(fingerprint=fingerprint, reason=reason, seal=seal):
                self._ledger.remember_quarantine(key, fingerprint, reason, seal=seal)
            case do.LiftQuarantine(fingerprint=fingerprint):
                self._ledger.lift_quarantine(key, fingerprint)
            case do.CountLoad(outcome=outcome, seconds=seconds):
                self._recorder.load(key, outcome, seconds)
            case do.CountUnload(rule=rule, seconds=seconds, killed=killed):
                self._recorder.unload(key, rule, seconds, killed=killed)
            case do.CountDecision(decision=decision):
                self._recorder.decision(decision.verb.value, decision.rule)
                self._decided(decision)
                log.info("%s: %s (%s) %s", key, decision.verb, decision.rule, decision.reason)
            case do.CountPreload(outcome=outcome, seconds=seconds):
                self._recorder.preload(outcome.value, seconds if outcome is do.Preload.WASTED else 0.0)
            case _:
                assert_never(effect)

    def _forget(self, model: Model) -> None:
        key = model.record.key
        if self._models.get(key) is model:
            del self._models[key]
            self.agenda.forget(key)
            self._last_number = max(self._last_number, model.record.past.numbered)
            self._actions.remove(key)
            self._told(model.record, True)
            self.requests.reject(model, UnknownModel(f"{key!r}: its folder was removed"))
            log.info("%s: removed, its folder is gone", key)


def _unloads(record: Record, number: int) -> bool:
    """This unload is not history."""
    return isinstance(record.phase, Unloading) and record.phase.number == number

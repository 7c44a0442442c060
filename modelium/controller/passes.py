"""A pass: observe, plan, apply. What enters: the records as they are now. What leaves: decisions, applied, and the instant of
the next pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from modelium.brain import plan as planner
from modelium.controller.life import events as happens
from modelium.controller.life.phases import Draining, Loaded, Loading
from modelium.controller.life.record import Record
from modelium.controller.life.views import view_of
from modelium.controller.model import Model
from modelium.controller.models import Models
from modelium.controller.ports import Sight
from modelium.controller.reloads import decide_reload
from modelium.controller.state import ControllerState
from modelium.metrics import Recorder
from modelium.values import Decision, DeviceKind, Observed, Plan, Verb

log = logging.getLogger(__name__)


class Passes:
    """``again_at``: from when somebody who waits for room may have some, None where nobody does."""

    def __init__(
        self,
        models: Models,
        world: Sight,
        state: ControllerState,
        recorder: Recorder,
        *,
        settle_adapters: Callable[[], None],
    ) -> None:
        self._models = models
        self._settle_adapters = settle_adapters
        self._world = world
        self._state = state
        self._recorder = recorder
        self._again_at: float | None = None

    def observe(self, now: float) -> Observed:
        """Models that nobody wants and that occupy nothing are not the brain's business: thousands may lie there."""
        window_s = self._world.usage_window_s
        return Observed(
            now=now,
            models=tuple(
                view_of(record, now, window_s)
                for record in self._models.records()
                if record.memory.held or (record.demand and not record.folder.gone)
            ),
            fleet=self._world.fleet(),
            policies=self._world.policies,
            overrides=self._world.overrides,
            capabilities=self._world.capabilities(),
        )

    def run(self, now: float) -> None:
        """One pass."""
        self._again_at = None  # of the last plan: past it, and without a new one, each pass would set a timer for now
        self._settle_adapters()
        self._reload(now)
        if self._state.server.up:
            self._apply(planner.plan(self.observe(now)))
        self._settle()

    def next_at(self, now: float) -> float | None:
        """The next retry, the next end of a drain, or the instant from which who waits for room may have some."""
        instants = [self._again_at] if self._again_at is not None else []
        for record in self._models.records():  # thousands, most of which wait for nothing: what is cheap is asked first
            phase, retry_at = record.phase, record.tries.retry_at
            if isinstance(phase, Draining):
                if phase.reload is None:
                    instants.append(phase.leaving.until)
            elif isinstance(phase, Loaded):
                if (due_at := record.reload_is_due_at) is not None:
                    instants.append(due_at)
            elif retry_at and retry_at > now and record.demand and not record.occupies:
                instants.append(retry_at)
        return min(instants, default=None)

    # -- what is decided ---------------------------------------------------------------------------------------------

    def _reload(self, now: float) -> None:
        """Newer revisions of models that serve, where they are due."""
        for model in self._models:
            due_at = model.record.reload_is_due_at
            if due_at is not None and due_at <= now:
                self._decide_reload(model, now)

    def _decide_reload(self, model: Model, now: float) -> None:
        record, window_s = model.record, self._world.usage_window_s
        profile, placement = record.folder.profile, record.placement
        if profile is None or placement is None:
            return
        try:
            decided = decide_reload(
                view_of(record, now, window_s),
                profile,
                placement,
                others=[view_of(each, now, window_s) for each in self._models.records() if each.memory.held],
                fleet=self._world.fleet(),
                overrides=self._world.overrides,
                capabilities=self._world.capabilities(),
                policies=self._world.policies,
            )
        except Exception as defect:
            log.exception("%s: its new revision could not be placed, a defect of Modelium", record.key)
            decided = happens.ReloadRefused(f"a defect of Modelium: {type(defect).__name__}: {defect}")
        if not self._models.try_to_apply(model, decided):
            self._models.try_to_apply(model, happens.ReloadRefused("a defect of Modelium, which is in its log"))

    def _apply(self, plan: Plan) -> None:
        self._state.room_is_wanted = plan.room_is_wanted
        self._again_at = plan.again_at
        for decision in plan.decisions:
            model = self._models.get(decision.model)
            if model is not None and (event := self._as_event(model.record, decision)) is not None:
                self._models.try_to_apply(model, event)

    def _as_event(self, record: Record, decision: Decision) -> happens.LifeEvent | None:
        match decision.verb:
            case Verb.LOAD if decision.placement is not None and record.folder.profile is not None:
                self._recorder.placed(decision.placement.device_id)
                return happens.LoadDecided(decision=decision, profile=record.folder.profile, placement=decision.placement)
            case Verb.UNLOAD:
                self._recorder.eviction(decision.rule, decision.at - record.past.loaded_at)
                if decision.beneficiary and record.placement is not None:
                    self._recorder.swap(record.placement.device_id)
                return happens.UnloadDecided(decision)
            case Verb.REFUSE:
                return happens.RefusalDecided(decision)
            case Verb.WAIT:
                return happens.WaitDecided(decision)
            case _:
                return None

    def _settle(self) -> None:
        """Unload what is drained, forget what is removed."""
        leaving = [model for model in self._models if isinstance(model.record.phase, Draining) or model.record.folder.gone]
        measured = self._measured_by_engines() if leaving else frozenset()
        for model in leaving:
            record = model.record
            placement = record.phase.placement
            ends = happens.PassEnds(
                is_waited_for=self._models.is_waited_for(record),
                disturbs=placement is not None and not measured.isdisjoint(placement.devices),
            )
            self._models.try_to_apply(model, ends)

    def _measured_by_engines(self) -> frozenset[str]:
        """Accelerators on which a vllm engine starts: it measures what is free there, so nothing may go (``load_order``)."""
        starting = [record.phase.attempt.placement for record in self._models.records() if isinstance(record.phase, Loading)]
        return frozenset(
            device
            for place in starting
            if place.engine is not None and place.device_kind is not DeviceKind.HOST
            for device in place.devices
        )

"""A pass: observe, plan, apply. What enters: the records as they are now. What leaves: decisions, applied, and the instant of
the next pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from modelium.brain import plan as planner
from modelium.brain.board import Board
from modelium.controller.life import events as happens
from modelium.controller.life.record import Record
from modelium.controller.life.views import usage_of, view_of
from modelium.controller.model import Model
from modelium.controller.models import Models
from modelium.controller.ports import Sight
from modelium.controller.preloads import Moves, Preloads
from modelium.controller.read_aheads import ReadAheads
from modelium.controller.reloads import decide_reload
from modelium.controller.state import ControllerState
from modelium.metrics import Recorder
from modelium.values import Decision, DeviceKind, Plan, Verb, device_id

log = logging.getLogger(__name__)

_HOST = device_id(DeviceKind.HOST)


class Passes:
    """``again_at``: from when somebody who waits for room may have some, None where nobody does. ``read_aheads``: None where no
    weights are read ahead."""

    def __init__(
        self,
        models: Models,
        world: Sight,
        state: ControllerState,
        recorder: Recorder,
        *,
        settle_adapters: Callable[[], None],
        read_aheads: ReadAheads | None = None,
    ) -> None:
        self._models = models
        self._settle_adapters = settle_adapters
        self._world = world
        self._state = state
        self._recorder = recorder
        self._again_at: float | None = None
        self._preloads = Preloads(models)
        self._moves = Moves(models)
        self._read_aheads = read_aheads
        self._board = Board(
            fleet=world.fleet(), policies=world.policies, overrides=world.overrides, capabilities=world.capabilities()
        )

    def board(self, now: float) -> Board:
        """What the brain plans with, brought up to date. Models that nobody wants and that occupy nothing are not its business:
        thousands may lie there."""
        window_s = self._world.usage_window_s
        self._board.look(self._world.fleet(), self._world.capabilities())
        for key, only_used in self._models.agenda.take_changed():
            model = self._models.get(key)
            record = model.record if model is not None else None
            if record is not None and only_used:
                self._board.use(key, partial(usage_of, record, now, window_s))
            elif record is not None and (record.memory.held or (record.demand and not record.folder.gone)):
                self._board.put(view_of(record, now, window_s))
            else:
                self._board.drop(key)
        return self._board

    def run(self, now: float) -> None:
        """One pass."""
        self._again_at = None  # of the last plan: past it, and without a new one, each pass would set a timer for now
        self._settle_adapters()
        for key in self._models.agenda.reloads_due(now):  # newer revisions of models that serve
            if (model := self._models.get(key)) is not None:
                self._decide_reload(model, now)
        if self._state.server.up:
            if self._world.policies.preload:
                self._preloads.look(now)
            self._moves.end(now)
            board = self.board(now)
            self._apply(planner.plan_on(board, now))
            if self._read_aheads is not None and (host := board.devices.rooms.get(_HOST)) is not None:
                self._read_aheads.look(now, host.device, promised=host.promised)
        if self._models.agenda.leaving:
            self._settle(now)

    def next_at(self, now: float) -> float | None:
        """The next retry, the next end of a drain, or the instant from which who waits for room may have some."""
        instants = [instant for instant in (self._again_at, self._models.agenda.next_at(now)) if instant is not None]
        return min(instants, default=None)

    # -- what is decided ---------------------------------------------------------------------------------------------

    def _decide_reload(self, model: Model, now: float) -> None:
        record = model.record
        profile, placement = record.folder.profile, record.placement
        if profile is None or placement is None:
            return
        try:
            decided = decide_reload(
                view_of(record, now, self._world.usage_window_s),
                profile,
                placement,
                others=[view for view in self.board(now).views.values() if view.bytes_held],
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
                if decision.moves_to:
                    self._moves.begin(decision.model)
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

    def _settle(self, now: float) -> None:
        """Unload what is drained, forget what is removed."""
        board = self.board(now)
        for model in list(self._models.agenda.leaving.values()):
            record = model.record
            placement = record.phase.placement
            ends = happens.PassEnds(
                is_waited_for=self._models.is_waited_for(record),
                disturbs=placement is not None and board.devices.is_measured(placement.devices),
            )
            self._models.try_to_apply(model, ends)

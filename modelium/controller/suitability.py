"""Whether anything here could serve a model, said before anybody asks: models and what Triton has enter, refusals leave.

A plan says the same of a model that is wanted. Of the others nobody would know before their first request: a list would call
them unloaded, as if that one would load them.
"""

from __future__ import annotations

import logging
import time

from modelium.brain.runtimes.choice import choose_runtime
from modelium.controller.life import events as happens
from modelium.controller.model import Model
from modelium.controller.models import Models
from modelium.controller.state import ControllerState
from modelium.controller.world import World
from modelium.values import Decision, State, Verb, override_of

log = logging.getLogger(__name__)


class Suitability:
    """Refuses what no runtime here serves, and takes that back when one does: another Triton came up, or Ray."""

    def __init__(self, models: Models, world: World, state: ControllerState) -> None:
        self._models = models
        self._world = world
        self._state = state
        self._refused: set[str] = set()

    def of_all(self) -> None:
        """What Triton or Ray can do may have changed."""
        models = list(self._models)
        self._refused &= {model.record.key for model in models}
        for model in models:
            self.of(model)

    def of(self, model: Model) -> None:
        """Before Triton was up for the first time, nobody knows what it has."""
        record = model.record
        profile, key = record.folder.profile, record.key
        was_refused = record.state is State.UNSUPPORTED and key in self._refused
        if profile is None or not self._state.server.starts or not (was_refused or record.state is State.UNLOADED):
            return
        try:
            choice = choose_runtime(profile, self._world.capabilities(), override_of(self._world.overrides, profile.name))
        except Exception:  # the plan for its first request says so
            log.exception("%s: its runtime could not be chosen, a defect of Modelium", key)
            return
        if choice.runtime is None and not was_refused:
            made = Decision(at=time.monotonic(), model=key, verb=Verb.REFUSE, rule=choice.rule, reason=choice.reason)
            self._refused.add(key)
            self._models.try_to_apply(model, happens.RefusalDecided(made))
        elif choice.runtime is not None and was_refused:
            self._refused.discard(key)
            self._models.try_to_apply(model, happens.RuntimeFound())

"""What Triton serves already when it comes up (an external one, after our restart): kept, where it is still right."""

from __future__ import annotations

import time

from modelium.brain.placement.candidates import choose
from modelium.brain.placement.rooms import rooms_of
from modelium.controller.life import events as happens
from modelium.controller.life.phases import Absent
from modelium.controller.life.views import view_of
from modelium.controller.model import Model
from modelium.controller.models import Models
from modelium.controller.state import ControllerState
from modelium.controller.world import World
from modelium.values import RayState, State, override_of


class Takeover:
    """Tells models that they are loaded."""

    def __init__(self, models: Models, world: World, state: ControllerState) -> None:
        self._models = models
        self._world = world
        self._state = state

    def all_of_them(self) -> None:
        """Of what Triton serves already, keep what is known."""
        for name in list(self._state.server.ready):
            if (model := self._models.get(name)) is not None:
                self.of(model)

    def of(self, model: Model) -> None:
        """Triton served it before we looked (an external one, and we were restarted): the same revision stays as it is."""
        record, server = model.record, self._state.server
        profile = record.folder.profile
        if not isinstance(record.phase, Absent) or record.state is not State.UNLOADED or record.key not in server.ready:
            return
        if profile is None or server.ready[record.key] != profile.fingerprint:
            self._state.server = server.without_ready(record.key)
            self._models.try_to_apply(model, happens.FoundInTriton())
            return
        fleet, world = self._world.fleet(), self._world
        view = view_of(record, time.monotonic(), world.usage_window_s)
        rooms = rooms_of(fleet.devices, ())
        override, policies = override_of(world.overrides, profile.name), world.policies
        choice, places = choose(view, profile, rooms.values(), override, world.capabilities(), policies, fleet.ray)
        rays = choice.by_ray or not places
        if rays and fleet.ray.state is RayState.DOWN:  # a cluster that has not answered yet has no places
            return
        self._state.server = server.without_ready(record.key)
        if places:
            self._models.try_to_apply(model, happens.FoundInTriton(profile=profile, placement=places[0]))

"""Where a newer revision of a model that serves is loaded: beside the old one, if there is room for both. Pure.

What enters: the record, what else is there. What leaves: what was decided, as an event for the record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from modelium.brain.engine.devices import shrink
from modelium.brain.placement.candidates import choose
from modelium.brain.placement.cluster import ClusterRoom
from modelium.brain.placement.rooms import rooms_of
from modelium.controller.life.events import ReloadDecided, ReloadRefused
from modelium.values import (
    Capabilities,
    DeviceKind,
    Fleet,
    ModelOverride,
    ModelProfile,
    ModelView,
    Placement,
    Policies,
    Runtime,
    override_of,
)


def decide_reload(
    view: ModelView,
    profile: ModelProfile,
    place: Placement,
    *,
    others: Iterable[ModelView],
    fleet: Fleet,
    overrides: Mapping[str, ModelOverride],
    capabilities: Capabilities,
    policies: Policies,
) -> ReloadDecided | ReloadRefused:
    """What would serve ``profile``, and where beside ``place``: on the same device, if it has room for both. ``others``: every
    model, ``view`` itself among them.

    Never a vllm engine on an accelerator: it starts alone there (``load_order``), and that is for the plan to see to.
    """
    views = list(others)
    rooms = rooms_of(fleet.devices, views)
    there = replace(override_of(overrides, profile.name), device=place.device_id)
    choice, places = choose(view, profile, rooms.values(), there, capabilities, policies, fleet.ray)
    if choice.runtime is None:
        return ReloadRefused(choice.reason)
    for placement in places:
        room = rooms[placement.device_id]
        if choice.engine and room.device.kind is not DeviceKind.HOST:
            break
        if placement.footprint.bytes <= room.free and ClusterRoom(fleet.ray, views).fits(placement.replicas):
            return ReloadDecided(profile=profile, placement=replace(placement, reason=place.reason))
        if placement.runtime is Runtime.VLLM:
            free = {room.device.id: room.free}
            smaller = shrink(profile, placement, [room.device], there, policies, free=free)
            found = replace(smaller, reason=place.reason) if smaller is not None else None
            return ReloadDecided(profile=profile, placement=found)
    return ReloadDecided(profile=profile, placement=None)

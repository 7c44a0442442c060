"""The plan's refusals and waits in words. What enters: what was observed and what was tried. What leaves: sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from modelium.brain import eviction, turns
from modelium.brain.board import Board
from modelium.brain.engine.devices import why_too_big
from modelium.brain.placement.candidates import options
from modelium.brain.placement.rooms import Room
from modelium.brain.runtimes.choice import RuntimeChoice
from modelium.brain.runtimes.ray import way_of
from modelium.sizes import human_bytes
from modelium.values import (
    Capabilities,
    Device,
    ModelOverride,
    ModelProfile,
    ModelView,
    Placement,
    Policies,
    Ray,
    RayWay,
    State,
)


def too_big(board: Board, view: ModelView, profile: ModelProfile, choice: RuntimeChoice) -> str:
    """Why no device could hold the model, even empty."""
    override, rooms = board.offering.override(view.name), board.devices.rooms
    if override.device is not None and override.device not in rooms:
        return f"models: names device {override.device!r}; this machine has {', '.join(sorted(rooms))}"
    if override.device is None and override.devices and not any(map(override.allows, rooms)):
        named = ", ".join(sorted(override.devices))
        return f"models: names the devices {named}, of which there is none; this machine has {', '.join(sorted(rooms))}"
    ray = board.devices.fleet.ray
    if choice.by_ray and not ray.here:
        there = ", ".join(f"{r.device.name} ({human_bytes(r.device.budget_bytes)})" for r in rooms.values() if r.device.cluster)
        return f"too big for any node of the Ray cluster: {there or 'it has no nodes'}"
    if choice.engine and profile.language is not None:
        own = [room.device for room in rooms.values() if not room.device.cluster]
        refused = why_too_big(profile, own, override, board.policies, born=choice.born)
        if refused is not None:
            remedy = _or_ray(board.offering.capabilities, profile)
            return refused.reason if refused.by_hand else f"too big for this machine: {refused.reason}{remedy}"
    remedy = f"raise devices.host_memory or free a larger device{_or_ray(board.offering.capabilities, profile)}"
    return f"too big for this machine: needs {needs(view, profile, choice, rooms, override, board.policies, ray)}; {remedy}"


def needs(
    view: ModelView,
    profile: ModelProfile,
    choice: RuntimeChoice,
    rooms: Mapping[str, Room],
    override: ModelOverride,
    policies: Policies,
    ray: Ray,
) -> str:
    """What it would take on each device, were that large enough, beside what models may use there."""
    roomy = [replace(room, device=replace(room.device, budget_bytes=2**62)) for room in rooms.values()]
    sizes = []
    for room, placement in options(view, profile, choice, roomy, override, policies, ray):
        budget = human_bytes(rooms[room.device.id].device.budget_bytes)
        sizes.append(f"{human_bytes(placement.footprint.bytes)} on {room.device.id} (budget {budget})")
    return ", ".join(sizes)


def _or_ray(capabilities: Capabilities, profile: ModelProfile) -> str:
    """The last remedy: the devices of others."""
    if capabilities.ray_enabled or not isinstance(way_of(profile, capabilities), RayWay):
        return ""
    return "; or let a Ray cluster serve it (ray: {enabled: true, address: HOST:6379})"


def who_holds(board: Board, now: float, waiter: ModelView, placement: Placement) -> str:
    """What is loaded on the devices of a placement, and why it stays."""
    policies = board.policies
    held = sorted(board.devices.held_on(placement.devices).values(), key=lambda v: v.state is not State.LOADED)

    def stays(view: ModelView) -> str:
        if turns.swaps(waiter, policies):
            return turns.explain_hold(view, now, policies)
        return eviction.explain_keep(view, eviction.deciding_rule(view, now, policies), now, policies)

    words = [f"{v.name} {stays(v)}" if v.state is State.LOADED else f"{v.name} is {v.state}" for v in held[:4]]
    if len(held) > 4:
        words.append(f"and {len(held) - 4} more")
    leaky = (board.devices.rooms[name].device for name in placement.devices if name in board.devices.rooms)
    words += [
        f"{human_bytes(device.leaked_bytes)} on {device.id} are leaked by earlier unloads"
        for device in leaky
        if device.leaked_bytes
    ]
    return "; ".join(words) or "the rest is used by other programs, or not given back yet"


def together(victim: ModelView, placement: Placement, devices: Iterable[Device]) -> str:
    """That two models never fit side by side, where that is so: they will push each other out as long as both are asked."""
    if victim.placement is None:
        return ""
    both = placement.footprint.bytes + victim.bytes_held
    for device in devices:
        if device.id in victim.placement.devices and both > device.budget_bytes:
            budget = human_bytes(device.budget_bytes)
            return f"; these two models need {human_bytes(both)}, {device.id} has {budget}"
    return ""

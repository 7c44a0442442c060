"""What to serve a model with, and the placements worth trying: a model enters, placements that could hold it leave, best
first."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from modelium.brain.engine.devices import has_long_enough
from modelium.brain.placement.on_ray import places_on_ray
from modelium.brain.placement.rooms import Room, places_here
from modelium.brain.runtimes.choice import RuntimeChoice, choose_ray, choose_runtime
from modelium.values import Capabilities, ModelOverride, ModelProfile, ModelView, Placement, Policies, Ray

_NO_RAY = Ray()
_LARGER = "larger than any device of this machine"


def choose(
    view: ModelView,
    profile: ModelProfile,
    rooms: Collection[Room],
    override: ModelOverride,
    capabilities: Capabilities,
    policies: Policies,
    ray: Ray,
) -> tuple[RuntimeChoice, list[Placement]]:
    """The runtime, and where it could serve the model if nothing else were loaded.

    What is too large for every device that its runtime may use goes to Ray, where that is a cluster that has more (a runtime
    chosen by hand stays). So does what gets a short context here, if the cluster has a longer one.
    """
    choice = choose_runtime(profile, capabilities, override)
    if choice.runtime is None:
        return choice, []
    found = options(view, profile, choice, rooms, override, policies, ray)
    cramped = not any(has_long_enough(placement) for _, placement in found)
    if cramped and override.runtime is None and not ray.here:
        elsewhere = choose_ray(profile, capabilities, _LARGER)
        if elsewhere is not None:
            there = options(view, profile, elsewhere, rooms, override, policies, ray)
            if not found or any(has_long_enough(placement) for _, placement in there):
                choice, found = elsewhere, there
    return choice, [placement for _, placement in found]


def options(
    view: ModelView,
    profile: ModelProfile,
    choice: RuntimeChoice,
    rooms: Iterable[Room],
    override: ModelOverride,
    policies: Policies | None = None,
    ray: Ray = _NO_RAY,
) -> list[tuple[Room, Placement]]:
    """Of what Ray serves, where ``brain.ray_placement`` says; of all others, devices of this machine (``brain.placement``)."""
    assert choice.runtime is not None, "nothing can serve it"
    policies = policies or Policies()
    if choice.way is not None:
        return places_on_ray(view, profile, rooms, override, policies, ray, way=choice.way)
    return places_here(view, profile, choice.runtime, rooms, override, policies, engine=choice.engine, born=choice.born)

"""The placements worth trying: a model and the runtime chosen for it enter, placements that could hold it leave, best first."""

from __future__ import annotations

from collections.abc import Iterable

from modelium.brain.placement import Room, places_here
from modelium.brain.ray_placement import places_on_ray
from modelium.brain.runtime import RuntimeChoice
from modelium.values import ModelOverride, ModelProfile, ModelView, Placement, Policies, Ray, Runtime

_NO_RAY = Ray()


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
    if choice.runtime is Runtime.RAY:
        return places_on_ray(view, profile, rooms, override, policies, ray, engine=choice.engine)
    return places_here(view, profile, choice.runtime, rooms, override, policies, engine=choice.engine)

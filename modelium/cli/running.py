"""A running Modelium as a simulation takes it: its ``GET /models`` enters, models and devices leave."""

from __future__ import annotations

from modelium.config import Settings
from modelium.simulation.inputs import UNLOAD_S, BadInput, SimulatedModel
from modelium.simulation.specs import device_of, equal_gpus, plausible_load_s
from modelium.values import DeviceKind, Fleet, override_of
from modelium.views import Listing


def running_fleet(running: Listing) -> Fleet:
    """Its devices, as if nothing were on them; a Ray cluster's are left out. Raises ``BadInput`` where none is left."""
    kinds = {kind.value: kind for kind in DeviceKind}
    devices = [
        device_of(
            device.id,
            kinds[device.kind],
            int(device.id.rpartition(":")[2]) if device.id.rpartition(":")[2].isdecimal() else -1,
            total=device.total_bytes,
            budget=device.budget_bytes,
        )
        for device in running.devices
        if device.kind in kinds and not device.id.startswith("ray")
    ]
    if not devices:
        raise BadInput("the running Modelium has no devices of its own; say --fleet")
    return Fleet(devices=tuple(devices))


def running_models(running: Listing, settings: Settings, fleet: Fleet) -> tuple[SimulatedModel, ...]:
    """Its models whose size is known, measured or estimated. One that was never loaded takes as long as its bytes let expect.

    ``settings``: of these are ``always_loaded``, and the memory and the devices that were chosen for a model (where the fleet
    has them). One that is ``exclusive`` takes all of the largest that it may be on. A model that is, or was last, on several
    devices is spread over as many, where the fleet has so many.
    """
    always = frozenset(settings.orchestration.policies.always_loaded)
    overrides, there = settings.overrides(), {device.id: device.budget_bytes for device in fleet.devices}
    most = max(equal_gpus(fleet).values(), default=0)
    made = []
    for model in running.models:
        override = override_of(overrides, model.name)
        chosen = frozenset(name for name in there if override.allows(name)) if override.names_devices else frozenset()
        size = override.memory_bytes or model.memory_bytes or 0
        if override.exclusive:
            size = max(budget for name, budget in there.items() if not chosen or name in chosen)
        if size <= 0:
            continue
        ranks = max(sum(not device.startswith("ray") for device in model.devices), 1)
        size *= ranks
        made.append(
            SimulatedModel(
                name=model.name,
                bytes=size,
                load_seconds=model.load_seconds or plausible_load_s(size),
                unload_seconds=model.unload_seconds or UNLOAD_S,
                device=override.device if override.device in there else None,
                devices=chosen if override.device is None else frozenset(),
                pinned=model.pinned,
                always_loaded=model.name in always or model.label in always,
                tensor_parallel=ranks if ranks <= most and override.device is None else 1,
            )
        )
    return tuple(made)

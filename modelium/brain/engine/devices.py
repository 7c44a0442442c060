"""Where a vLLM engine goes. What enters: devices, best first. What leaves: placements with the engine's plan, what it would be
with less cache, or why none of the devices will do.

What an engine takes is what it is told to take, so its plan is its footprint. (A measurement of it says how much of that it had
touched: of a cache on the host, less.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from modelium.brain.engine.plan import TooBig, fit_engine, plan_engine
from modelium.values import (
    Device,
    DeviceKind,
    EnginePlan,
    Footprint,
    ModelOverride,
    ModelProfile,
    Placement,
    Policies,
    Runtime,
)


def place_engine(
    profile: ModelProfile, devices: Sequence[Device], override: ModelOverride, policies: Policies
) -> list[Placement]:
    """On each device that could hold it when empty; where no single one is large enough, on equal ones together.

    What takes more than the budget is no placement, whoever said so: nothing could ever make room for it.
    """
    result: list[Placement] = []
    plans: dict[tuple[str, int, int], EnginePlan | None] = {}  # equal devices, equal plans
    for device in devices:
        key = (device.kind, device.total_bytes, device.budget_bytes)
        if key not in plans:
            plans[key] = fit_engine(profile, [device], override=override, policies=policies)
        if (engine := plans[key]) is not None:
            placement = move_to(device, _placement(device, engine, override))
            if placement.footprint.bytes <= device.budget_bytes:
                result.append(placement)
    if result:
        return result
    for group in _equal(devices):
        if len(group) > 1 and (engine := fit_engine(profile, group, override=override, policies=policies)) is not None:
            placement = _placement(group[0], engine, override)
            if placement.footprint.bytes <= min(device.budget_bytes for device in group):
                result.append(placement)
    return result


def move_to(device: Device, placement: Placement) -> Placement:
    """The same on another device of its kind and size; with an engine one that takes a single device."""
    engine = placement.engine
    if engine is not None:
        gpus = (device.index,) if device.kind is DeviceKind.CUDA else ()
        engine = replace(engine, devices=(device.id,), gpus=gpus)
    return replace(placement, device_id=device.id, device_index=device.index, engine=engine)


def shrink(
    profile: ModelProfile,
    placement: Placement,
    devices: Sequence[Device],
    override: ModelOverride,
    policies: Policies,
    *,
    free: Mapping[str, int] | None = None,
) -> Placement | None:
    """The same engine on the same devices with less cache: as much as fits into what is ``free`` on them, or when that is not
    said, for one full-length request. None: not even that."""
    engine = fit_engine(
        profile,
        devices,
        override=override,
        policies=policies,
        available=free,
        requests=1 if free is None else None,
        ranks=_ranks(placement),
    )
    if engine is None:
        return None
    smaller = _placement(devices[0], engine, override)
    return smaller if free is None or smaller.footprint.bytes <= min(free.values()) else None


def smallest(
    profile: ModelProfile,
    placements: Iterable[Placement],
    fleet: Mapping[str, Device],
    override: ModelOverride,
    policies: Policies,
) -> list[Placement]:
    """Each with cache for one full-length request."""
    result: list[Placement] = []
    plans: dict[tuple[int, int, int], Placement | None] = {}
    for placement in placements:
        devices = [fleet[name] for name in placement.devices]
        key = (len(devices), devices[0].total_bytes, devices[0].budget_bytes)
        if key not in plans:
            plans[key] = shrink(profile, placement, devices, override, policies)
        like = plans[key]
        if like is not None and like.engine is not None:
            engine = replace(like.engine, devices=placement.devices, gpus=placement.gpus)
            result.append(replace(placement, footprint=like.footprint, engine=engine))
    return result


def why_too_big(profile: ModelProfile, devices: Iterable[Device], override: ModelOverride, policies: Policies) -> TooBig | None:
    """Why no device, and not all equal ones together, can hold it: of those the one that lacks the fewest bytes."""
    chosen = [device for device in devices if override.device in (None, device.id)]
    accelerators = [device for device in chosen if device.kind is not DeviceKind.HOST]
    plans = [plan_engine(profile, group, override=override, policies=policies) for group in _equal(accelerators or chosen)]
    return min((each for each in plans if isinstance(each, TooBig)), key=lambda each: each.short_bytes, default=None)


def _equal(devices: Iterable[Device]) -> list[list[Device]]:
    """Devices of one kind and size together."""
    groups: dict[tuple[str, str, int], list[Device]] = {}
    for device in devices:
        groups.setdefault((device.kind, device.name, device.total_bytes), []).append(device)
    return list(groups.values())


def _placement(device: Device, engine: EnginePlan, override: ModelOverride) -> Placement:
    """It batches by itself, and there is one of it."""
    return Placement(
        runtime=Runtime.VLLM,
        device_id=device.id,
        device_kind=device.kind,
        device_index=device.index,
        footprint=Footprint(estimated_bytes=override.memory_bytes or engine.total_bytes),
        max_batch_size=0,
        instance_count=1,
        engine=engine,
    )


def _ranks(placement: Placement) -> int:
    ranks = placement.engine.engine_args.get("tensor_parallel_size", 1) if placement.engine is not None else 1
    return ranks if isinstance(ranks, int) else 1

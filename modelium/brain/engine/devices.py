"""Where a vLLM engine goes. What enters: devices, best first. What leaves: placements with the engine's plan, what it would be
with less cache, or why none of the devices will do.

What an engine takes is what it is told to take, so its plan is its footprint. (A measurement of it says how much of that it had
touched: of a cache on the host, less.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from modelium.brain.engine.fitting import contexts_beside_others, is_long_enough
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
from modelium.values.replacing import replaced


def place_engine(
    profile: ModelProfile, devices: Sequence[Device], override: ModelOverride, policies: Policies, *, born: bool = False
) -> list[Placement]:
    """Where it could be when nothing else is loaded, the longest contexts first. ``born``: a nursery forks its processes.

    1. Each single device that holds the whole context. If there is any, no other: what a model can do must not depend on which
       of its devices is free.
    2. Else each single device with a context that is long enough (``is_long_enough``).
    3. Else equal devices together, where that makes the context longer; else single devices with what they hold.

    What takes more than the budget is no placement, whoever said so: nothing could ever make room for it.
    """
    alone = list(_alone(profile, devices, override, policies, born=born))
    whole = [placement for placement, engine in alone if not engine.is_shortened]
    if whole:  # 1
        return whole
    alone.sort(key=lambda each: -each[1].max_model_len)
    enough = [placement for placement, engine in alone if is_long_enough(engine)]
    if enough:  # 2
        return enough
    longest = max((engine.max_model_len for _, engine in alone), default=0)
    result: list[Placement] = []
    for group in _equal(devices):  # 3
        if len(group) < 2:
            continue
        engine = fit_engine(profile, group, override=override, policies=policies, fewest=2)
        if engine is not None and engine.max_model_len > longest:
            placement = _placement(group[0], engine, override, born=born)
            if placement.footprint.bytes <= min(device.budget_bytes for device in group):
                result.append(placement)
    return result or [placement for placement, _ in alone]


def _alone(
    profile: ModelProfile, devices: Iterable[Device], override: ModelOverride, policies: Policies, *, born: bool
) -> Iterator[tuple[Placement, EnginePlan]]:
    plans: dict[tuple[str, int, int], EnginePlan | None] = {}  # equal devices, equal plans
    for device in devices:
        key = (device.kind, device.total_bytes, device.budget_bytes)
        if key not in plans:
            plans[key] = fit_engine(profile, [device], override=override, policies=policies, born=born)
        if (engine := plans[key]) is not None:
            placement = move_to((device,), _placement(device, engine, override, born=born))
            if placement.footprint.bytes <= device.budget_bytes:
                yield placement, engine


def move_to(devices: Sequence[Device], placement: Placement) -> Placement:
    """The same on as many other devices of its kind and size."""
    first, engine = devices[0], placement.engine
    if engine is not None:
        gpus = tuple(device.index for device in devices) if first.kind is DeviceKind.CUDA else ()
        engine = replace(engine, devices=tuple(device.id for device in devices), gpus=gpus)
    return replaced(placement, device_id=first.id, device_index=first.index, engine=engine)


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
    said, the least of it. None: not even that.

    The least is cache for one request of full length; of a context that is shortened anyway, one of half that length
    (``contexts_beside_others``).
    """
    contexts = contexts_beside_others(placement.engine, policies) if placement.engine is not None else None
    if contexts is not None and free is None:
        contexts = replace(contexts, longest=contexts.shortest)
    engine = fit_engine(
        profile,
        devices,
        override=override,
        policies=policies,
        available=free,
        frugal=free is None,
        ranks=_ranks(placement),
        contexts=contexts,
        born=placement.born,
    )
    if engine is None:
        return None
    smaller = _placement(devices[0], engine, override, born=placement.born)
    return smaller if free is None or smaller.footprint.bytes <= min(free.values()) else None


def smallest(
    profile: ModelProfile,
    placements: Iterable[Placement],
    fleet: Mapping[str, Device],
    override: ModelOverride,
    policies: Policies,
) -> list[Placement]:
    """Each with as little cache as ``shrink`` would ever give it."""
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


def why_too_big(
    profile: ModelProfile, devices: Iterable[Device], override: ModelOverride, policies: Policies, *, born: bool = False
) -> TooBig | None:
    """Why no device, and not all equal ones together, can hold it: of those the one that lacks the fewest bytes."""
    chosen = [device for device in devices if override.allows(device.id)]
    accelerators = [device for device in chosen if device.kind is not DeviceKind.HOST]
    groups = _equal(accelerators or chosen)
    plans = [plan_engine(profile, group, override=override, policies=policies, born=born) for group in groups]
    return min((each for each in plans if isinstance(each, TooBig)), key=lambda each: each.short_bytes, default=None)


def has_long_enough(placement: Placement) -> bool:
    """Is it no engine whose context had to be made short (``is_long_enough``)?"""
    return placement.engine is None or is_long_enough(placement.engine)


def _equal(devices: Iterable[Device]) -> list[list[Device]]:
    """Devices of one kind and size together."""
    groups: dict[tuple[str, str, int], list[Device]] = {}
    for device in devices:
        groups.setdefault((device.kind, device.name, device.total_bytes), []).append(device)
    return list(groups.values())


def _placement(device: Device, engine: EnginePlan, override: ModelOverride, *, born: bool) -> Placement:
    """It batches by itself, and there is one of it. No other memory than the host's is shared with a nursery."""
    return Placement(
        runtime=Runtime.VLLM,
        device_id=device.id,
        device_kind=device.kind,
        device_index=device.index,
        footprint=Footprint(estimated_bytes=override.stated_bytes(device.budget_bytes) or engine.total_bytes),
        max_batch_size=0,
        instance_count=1,
        engine=engine,
        exclusive=override.exclusive,
        born=born and device.kind is DeviceKind.HOST,
    )


def _ranks(placement: Placement) -> int:
    ranks = placement.engine.engine_args.get("tensor_parallel_size", 1) if placement.engine is not None else 1
    return ranks if isinstance(ranks, int) else 1

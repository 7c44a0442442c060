"""Where a model goes that Ray serves. What enters: a model, its rooms, the cluster. What leaves: placements with their
replicas.

A Ray that runs on this machine alone has this machine's memory: its models are placed on the host and the GPUs like all
others, and pinned to them. Of a cluster elsewhere the planner sees two devices (``brain.cluster``), and Ray chooses the node.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from modelium.brain.engine.devices import has_long_enough, place_engine
from modelium.brain.placement.cluster import GPUS, HOSTS
from modelium.brain.placement.rooms import Room, place, places_here
from modelium.values import (
    Bundle,
    Device,
    DeviceKind,
    Footprint,
    JsonValue,
    LanguageModel,
    ModelOverride,
    ModelProfile,
    ModelView,
    Placement,
    Policies,
    Ray,
    RayNode,
    RayOptions,
    RayWay,
    Replicas,
    Runtime,
)

_TARGET_ONGOING = 2.0
_MOST_STAGES = 8


def places_on_ray(
    view: ModelView,
    profile: ModelProfile,
    rooms: Iterable[Room],
    override: ModelOverride,
    policies: Policies,
    ray: Ray,
    *,
    way: RayWay,
) -> list[tuple[Room, Placement]]:
    """Placements that could hold the model when nothing else is loaded, best first.

    1. On this machine, when all of Ray runs here.
    2. On a cluster elsewhere: on its GPUs where it has any that are large enough, else in its nodes' memory. A device that
       the user chose is taken by its name there too (``ray``, ``ray:cuda``).
    3. An engine that is too large for one GPU takes several of one node, and of several nodes if it must (a pipeline).
    4. What it takes is what all replicas take that there may be: Ray starts them without asking anybody.
    """
    engine = way is RayWay.ENGINE
    # An application says itself how many of it there are.
    chosen = RayOptions() if profile.app is not None else override.ray.over(policies.ray)
    if ray.here:  # 1
        found = places_here(view, profile, Runtime.RAY, rooms, override, policies, engine=engine)
        return [(room, replace(_here(placement, chosen), way=way)) for room, placement in found]
    places = [room for room in rooms if room.device.cluster and override.allows(room.device.id)]
    places.sort(key=lambda room: room.device.id != GPUS)
    result = []
    for room in places:  # 2
        placement = (
            _engine_there(profile, room.device, ray, override, policies, chosen)
            if engine
            else _model_there(view, profile, room.device, ray, override, chosen)
        )
        if placement is not None and placement.footprint.bytes <= room.device.budget_bytes:
            result.append((room, replace(placement, way=way)))
    return result


def _here(placement: Placement, chosen: RayOptions) -> Placement:
    pinned = ",".join(map(str, placement.gpus))
    bundle = Bundle(cpus=chosen.cpus_per_replica or 0.0)
    return _with_replicas(placement, replace(_scaling(chosen), bundles=(bundle,), visible_devices=pinned))


def _model_there(
    view: ModelView, profile: ModelProfile, device: Device, ray: Ray, override: ModelOverride, chosen: RayOptions
) -> Placement | None:
    placement = place(view, profile, Runtime.RAY, device, override)
    need = placement.footprint.estimated_bytes
    cpus = 1.0 if chosen.cpus_per_replica is None else chosen.cpus_per_replica
    if device.kind is DeviceKind.CUDA:
        sizes = [node.gpu_bytes for node in ray.nodes if node.gpu_bytes >= need]
        if not sizes:
            return None
        bundle = Bundle(cpus=cpus, gpus=_share(need, min(sizes), chosen))
    else:
        if not any(node.total.memory_bytes >= need for node in ray.nodes):
            return None
        bundle = Bundle(cpus=cpus, gpus=chosen.gpus_per_replica or 0.0, memory_bytes=need)
    return _with_replicas(placement, replace(_scaling(chosen), bundles=(bundle,)))


def _engine_there(
    profile: ModelProfile, device: Device, ray: Ray, override: ModelOverride, policies: Policies, chosen: RayOptions
) -> Placement | None:
    """Rule 3: as few GPUs as it takes for a context that is long enough, all of a rank's node first."""
    assert profile.language is not None, "only what generates text has an engine"
    cpus = 1.0 if chosen.cpus_per_replica is None else chosen.cpus_per_replica
    unpinned = replace(override, device=None)
    if device.kind is DeviceKind.HOST:
        node = max(ray.nodes, key=lambda each: each.total.memory_bytes, default=None)
        found = place_engine(profile, [_of_node(node, device)], unpinned, policies) if node is not None else []
        if not found:
            return None
        bundle = Bundle(cpus=max(1.0, cpus), memory_bytes=found[0].footprint.bytes)
        return _as_group(found[0], device, replace(_scaling(chosen), bundles=(bundle,)), {})
    best: Placement | None = None
    for stages in range(1, min(len(ray.nodes), _MOST_STAGES) + 1):
        if stages > profile.language.layers:
            break
        part = profile if stages == 1 else stage_of(profile, profile.language, stages)
        for gpus in _equal_gpus(ray.nodes, stages, device):
            found = place_engine(part, gpus, unpinned, policies)
            if not found:
                continue
            placement = found[0]
            ranks = len(placement.devices) * stages
            share = 1.0 if ranks > 1 else _share(placement.footprint.bytes, gpus[0].total_bytes, chosen)
            extra: dict[str, JsonValue] = {"distributed_executor_backend": "ray"} if ranks > 1 else {}
            if stages > 1:
                extra["pipeline_parallel_size"] = stages
            bundles = (Bundle(cpus=cpus, gpus=share),) * ranks
            made = _as_group(placement, device, replace(_scaling(chosen), bundles=bundles), extra)
            if has_long_enough(made):
                return made
            best = made if best is None or _context(made) > _context(best) else best
    return best


def _context(placement: Placement) -> int:
    return placement.engine.max_model_len if placement.engine is not None else 0


def stage_of(profile: ModelProfile, language: LanguageModel, stages: int) -> ModelProfile:
    """The largest stage of a pipeline as if it were a model: a share of the layers, and of the weights, rounded up.

    vLLM gives the first stages the layers that are left over, and the first and the last one an embedding each; so the
    vocabulary's matrices are counted whole.
    """
    layers = math.ceil(language.layers / stages)
    vocabulary = min(language.vocabulary * language.hidden_size, profile.parameters // 2)
    element = profile.weight_bytes / profile.parameters if profile.parameters else 2.0
    rest = math.ceil((profile.parameters - vocabulary) / stages)
    shrunk = replace(
        language,
        layers=layers,
        groups=tuple(replace(group, layers=math.ceil(group.layers / stages)) for group in language.groups),
    )
    return replace(
        profile, parameters=vocabulary + rest, weight_bytes=math.ceil((vocabulary + rest) * element), language=shrunk
    )


def _as_group(placement: Placement, device: Device, replicas: Replicas, extra: dict[str, JsonValue]) -> Placement:
    """The same on the cluster's device; a footprint is what all ranks take together, for there the ranks' GPUs are one."""
    engine = placement.engine
    assert engine is not None
    total = Footprint(estimated_bytes=placement.footprint.bytes * max(1, len(replicas.bundles)) * replicas.maximum)
    args = {**engine.engine_args, **extra}
    return replace(
        placement,
        runtime=Runtime.RAY,
        device_id=device.id,
        device_index=device.index,
        footprint=total,
        engine=replace(engine, devices=(device.id,), gpus=(), engine_args=args),
        replicas=replicas,
    )


def _equal_gpus(nodes: Sequence[RayNode], wanted: int, group: Device) -> list[list[Device]]:
    """GPUs of one node as devices, for each size of which at least ``wanted`` nodes have as many."""
    fraction = group.budget_bytes / group.total_bytes if group.total_bytes else 0.9
    found = []
    for size in sorted({node.gpu_bytes for node in nodes if node.gpu_bytes}):
        counts = sorted((int(node.total.gpus) for node in nodes if node.gpu_bytes >= size), reverse=True)
        if len(counts) >= wanted and counts[wanted - 1]:
            found.append(
                [
                    replace(
                        group,
                        id=f"{GPUS}:{index}",
                        total_bytes=size,
                        used_bytes=0,
                        budget_bytes=int(size * fraction),
                        name="GPU",
                    )
                    for index in range(counts[wanted - 1])
                ]
            )
    return found


def _of_node(node: RayNode, group: Device) -> Device:
    return replace(group, id=HOSTS, total_bytes=node.total.memory_bytes, used_bytes=0, budget_bytes=node.total.memory_bytes)


def _share(need: int, size: int, chosen: RayOptions) -> float:
    """Of a GPU, in hundredths, so that models share one as their memory does."""
    if chosen.gpus_per_replica is not None:
        return chosen.gpus_per_replica
    return min(1.0, max(0.01, math.ceil(100 * need / size) / 100)) if size else 1.0


def _scaling(chosen: RayOptions) -> Replicas:
    least = chosen.min_replicas if chosen.min_replicas is not None else min(1, chosen.max_replicas or 1)
    most = max(chosen.max_replicas or max(least, 1), least, 1)
    return Replicas(minimum=least, maximum=most, target_ongoing_requests=chosen.target_ongoing_requests or _TARGET_ONGOING)


def _with_replicas(placement: Placement, replicas: Replicas) -> Placement:
    """Rule 4. A measurement is of the replicas that there were; where there may be more, the estimate stands."""
    fixed = replicas.minimum == replicas.maximum
    measured = placement.footprint.measured_bytes if fixed and placement.engine is None else None
    footprint = Footprint(estimated_bytes=placement.footprint.estimated_bytes * replicas.maximum, measured_bytes=measured)
    return replace(placement, runtime=Runtime.RAY, footprint=footprint, replicas=replicas)

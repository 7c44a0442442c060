"""Where a model goes: rooms (devices with what is committed on them) enter, the devices worth trying leave, best first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from modelium.brain.engine.devices import place_engine
from modelium.brain.placement.corrections import kind_of
from modelium.brain.placement.memory import estimate_footprint
from modelium.brain.runtimes.choice import SUPPORTS
from modelium.values import (
    Device,
    DeviceKind,
    Footprint,
    ModelOverride,
    ModelProfile,
    ModelView,
    Placement,
    Policies,
    Runtime,
    State,
)


@dataclass(slots=True, kw_only=True)
class Room:
    """A device and what is committed on it; the planner's working copy, changed while it plans.

    ``promised``: committed to models that are loading, so not (wholly) in ``device.used_bytes`` yet. ``returning``: held by
    models that are on their way out. ``reserved``: kept for a model that waits for room here. ``engines``: of ``loads``, those
    of vLLM engines. ``awaited``: an engine waits to start alone here.
    """

    device: Device
    committed: int = 0
    promised: int = 0
    returning: int = 0
    reserved: int = 0
    loads: int = 0
    engines: int = 0
    awaited: bool = False

    @property
    def free(self) -> int:
        """Bytes that may be promised now: inside the budget, really there, and nobody else's."""
        device = self.device
        return min(device.budget_bytes - self.committed, device.total_bytes - device.used_bytes - self.promised) - self.reserved

    def copied(self) -> Room:
        """For a plan to change: it is copied for each device that a plan touches, and ``copy.copy`` takes ten times as long."""
        return Room(
            device=self.device,
            committed=self.committed,
            promised=self.promised,
            returning=self.returning,
            reserved=self.reserved,
            loads=self.loads,
            engines=self.engines,
            awaited=self.awaited,
        )

    def count(self, view: ModelView, times: int) -> None:
        """Count what a model takes here once more (``times`` 1), or not any more (-1)."""
        held = times * view.bytes_held
        self.committed += held
        if view.state is State.LOADING:
            self.promised += held
            self.loads += times
            self.engines += times * (view.placement is not None and view.placement.by_vllm)
        elif view.state.leaves:
            self.returning += held


def rooms_of(devices: Iterable[Device], models: Iterable[ModelView]) -> dict[str, Room]:
    """What is committed where. A tensor-parallel engine takes its bytes on each of its devices."""
    rooms = {device.id: Room(device=device) for device in devices}
    for view in models:
        if view.bytes_held and view.placement is not None:
            for room in (rooms[device] for device in view.placement.devices if device in rooms):
                room.count(view, 1)
    return rooms


def choose_batch_size(profile: ModelProfile, override: ModelOverride, *, engine: bool = False) -> int:
    """``max_batch_size`` of the entry: 0 for vLLM, which batches by itself, for applications, and where the graph cannot batch;
    else the user's, else by the size of the task's inputs."""
    if engine or profile.app is not None or (profile.onnx is not None and not profile.onnx.dynamic_batch):
        return 0
    return override.max_batch_size or profile.task.row.batch


def places_here(
    view: ModelView,
    profile: ModelProfile,
    runtime: Runtime,
    rooms: Iterable[Room],
    override: ModelOverride,
    policies: Policies | None = None,
    *,
    engine: bool = False,
    born: bool = False,
) -> list[tuple[Room, Placement]]:
    """Devices of this machine that could hold the model when empty, best first; of several the first.

    1. The device the user chose, and no other; or those he chose.
    2. Accelerators, the one with the most free memory first.
    3. Host memory: for vLLM only where there is no accelerator.
    4. For vLLM (``engine``), where no single one is large enough: equal accelerators together.
    5. An ONNX graph that the python runtime runs, which is the CPU's there: host memory.
    """
    candidates = _candidates(rooms, override, engine=engine)
    if profile.onnx_file and not override.names_devices:  # 5
        candidates = [room for room in candidates if room.device.kind is DeviceKind.HOST]
    if engine and profile.language is not None:  # 4
        by_id = {room.device.id: room for room in candidates}
        devices = [room.device for room in candidates]
        placements = place_engine(profile, devices, override, policies or Policies(), born=born)
        return [(by_id[placement.device_id], placement) for placement in placements]
    result = []
    for room in candidates:
        placement = place(view, profile, runtime, room.device, override, policies, born=born)
        if placement.footprint.bytes <= room.device.budget_bytes:
            result.append((room, placement))
    return result


def place(
    view: ModelView,
    profile: ModelProfile,
    runtime: Runtime,
    device: Device,
    override: ModelOverride,
    policies: Policies | None = None,
    *,
    born: bool = False,
) -> Placement:
    """The model on this very device, whether there is room or not. ``born``: a nursery forks its processes, which is another
    manner on the host alone: no other device's memory is shared with a nursery.
    """
    batch = choose_batch_size(profile, override)
    # One process of Triton's in front of replicas.
    instances = 1 if SUPPORTS[runtime].replicates else override.instance_count or 1
    born = born and device.kind is DeviceKind.HOST
    stated = override.stated_bytes(device.budget_bytes)
    estimated = stated or estimate_footprint(
        profile, runtime, device=device.kind, max_batch_size=max(batch, 1), instances=instances, born=born
    )
    placement = Placement(
        runtime=runtime,
        device_id=device.id,
        device_kind=device.kind,
        device_index=device.index,
        footprint=Footprint(estimated_bytes=estimated),
        max_batch_size=batch,
        instance_count=instances,
        exclusive=override.exclusive,
        born=born,
    )
    if stated:
        return placement
    # What was measured on the host, or of two instances, says nothing about a GPU, or about one.
    measured = view.learned.get(placement.manner) if view.learned else view.footprint.measured_bytes
    factor = policies.corrections.get(kind_of(placement)) if policies is not None else None
    corrected = int(estimated * factor) if factor is not None and measured is None else None
    footprint = Footprint(estimated_bytes=estimated, measured_bytes=measured, corrected_bytes=corrected)
    return replace(placement, footprint=footprint)


def _candidates(rooms: Iterable[Room], override: ModelOverride, *, engine: bool) -> list[Room]:
    """Rules 1 to 3."""
    candidates = [room for room in rooms if not room.device.cluster]
    candidates = [room for room in candidates if override.allows(room.device.id)]  # 1
    accelerators = [room for room in candidates if room.device.kind is not DeviceKind.HOST]
    if engine and accelerators:  # 3
        candidates = accelerators
    candidates.sort(key=lambda room: (room.device.kind is DeviceKind.HOST, -room.free, room.device.id))  # 2, 3
    return candidates

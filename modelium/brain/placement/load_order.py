"""When a load may begin. What enters: a placement and its rooms. What leaves: why it must wait, or nothing.

A vLLM engine on an accelerator measures what is free there, loads its weights, measures again, and takes the difference for its
own: whatever comes or goes meanwhile is booked to the wrong side, or stops it. On the host it is told its cache in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from modelium.brain.placement.rooms import Room
from modelium.values import DeviceKind, Placement


def measures(room: Room) -> bool:
    """Whether an engine that starts there looks at the device's free memory: nothing may be unloaded there meanwhile."""
    return room.engines > 0 and room.device.kind is not DeviceKind.HOST and not room.device.cluster


def obstacle(placement: Placement, rooms: Iterable[Room], loads_per_device: int) -> str:
    """Why a load must wait for others; empty when it need not. The first that holds:

    1. Enough loads run on the device.
    2. An engine starts there: another waits for it, and on an accelerator everything does.
    3. An engine waits to start there (it was decided about earlier): what comes after it waits too, or it never would.
    4. It is an engine itself, and something is being loaded or unloaded on its accelerator.
    """
    engine = placement.by_vllm
    for room in rooms:
        device, accelerator = room.device.id, room.device.kind is not DeviceKind.HOST
        if room.loads >= loads_per_device:  # 1
            reason = f"{room.loads} loads run on {device} already"
        elif room.device.cluster:  # Ray gives each engine GPUs of its own, or a share that it keeps
            continue
        elif room.engines and (engine or accelerator):  # 2
            reason = f"a vllm engine starts on {device}"
        elif room.awaited and accelerator:  # 3
            reason = f"a vllm engine waits to start alone on {device}"
        elif engine and accelerator and (room.loads or room.returning):  # 4
            reason = f"an engine starts alone on {device}, where models are being {'loaded' if room.loads else 'unloaded'}"
        else:
            continue
        return reason
    return ""

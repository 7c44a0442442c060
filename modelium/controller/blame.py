"""Whose failure a failed load is. What enters: a model, the error, the devices. What leaves: whether it is the model's own."""

from __future__ import annotations

from collections.abc import Iterable

from modelium.controller.record import Model
from modelium.errors import (
    EntryError,
    FolderChanged,
    MachineTrouble,
    ModeliumError,
    OutOfMemory,
    RayUnavailable,
    TritonUnavailable,
)
from modelium.values import Device

_MEMORY_TRIES = 3


def is_its_own(model: Model, error: ModeliumError, devices: Iterable[Device]) -> bool:
    """Want of memory is the machine's until it looks like the model's; its record counts how often in a row.

    Else a folder that asks for more than there is would be loaded for ever, and others unloaded for it each time.
    """
    if not isinstance(error, OutOfMemory):
        model.memory_failures = 0
        return not isinstance(error, EntryError | MachineTrouble | FolderChanged | RayUnavailable | TritonUnavailable)
    model.memory_failures += 1
    places = {"host", *(model.placement.devices if model.placement is not None else ())}
    sizes = [device.total_bytes for device in devices if device.id in places]
    return model.memory_failures >= _MEMORY_TRIES or (bool(sizes) and error.asked_bytes > max(sizes))

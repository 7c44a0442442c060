"""What unloads leave behind on a device. What enters: by how much a device's residue grew over a model's load and unload, and
readings of it. What leaves: how many bytes are leaked there.

A device's *residue* is what is taken there by no model's process and by no other program: what Triton itself holds, and what
nobody does. A model that comes and goes leaves it as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from modelium.sizes import MIB
from modelium.values import Device

# Less is no leak to speak of: allocators keep some of what was given back to them, and Triton's first load sets up what stays.
NOISE_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """``owed_bytes``: what unloads have left, and what has not come back since. ``base_bytes``: the residue without that.
    ``lowest_bytes``: the smallest residue since Triton came up; what is above it bounds what can be owed."""

    lowest_bytes: int
    owed_bytes: int = 0
    base_bytes: int = 0

    @property
    def leaked_bytes(self) -> int:
        """What is shown, and planned with."""
        return self.owed_bytes if self.owed_bytes >= NOISE_BYTES else 0


def after_unload(leak: Leak | None, *, grown_bytes: int, residue_bytes: int) -> Leak:
    """Nothing of a model is loaded any more. ``grown_bytes``: over its load and its unload together; below 0 where the device
    has more than before."""
    before = leak or Leak(lowest_bytes=max(0, residue_bytes - max(0, grown_bytes)))
    lowest = min(before.lowest_bytes, residue_bytes)
    owed = min(max(0, before.owed_bytes + grown_bytes), residue_bytes - lowest)
    return Leak(lowest_bytes=lowest, owed_bytes=owed, base_bytes=residue_bytes - owed)


def after_reading(leak: Leak | None, residue_bytes: int) -> Leak:
    """What came back is not owed any more. A reading alone makes nobody owe: Triton may hold more for what it answers."""
    if leak is None:
        return Leak(lowest_bytes=residue_bytes)
    owed = min(leak.owed_bytes, max(0, residue_bytes - leak.base_bytes))
    return replace(leak, lowest_bytes=min(leak.lowest_bytes, residue_bytes), owed_bytes=owed)


def marked(device: Device, leak: Leak | None) -> Device:
    """The device with what is leaked there. No unload brings that back, so models may take no more than the rest."""
    leaked = leak.leaked_bytes if leak is not None else 0
    if not leaked:
        return device
    rest = max(0, device.total_bytes - leaked) // MIB * MIB
    return replace(device, leaked_bytes=leaked, budget_bytes=min(device.budget_bytes, rest))

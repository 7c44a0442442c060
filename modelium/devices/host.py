"""The host's memory as this process may use it: the machine's, or a control group's limit where that is smaller."""

from __future__ import annotations

import psutil

from modelium.devices.control_groups import MemoryLimit, memory_limits


def read_host_memory() -> MemoryLimit:
    """Of this machine, or of the container that it is. ``used_bytes`` is what cannot be had now, whoever holds it; page cache
    that can be dropped is not used."""
    memory = psutil.virtual_memory()
    machine = MemoryLimit(total_bytes=memory.total, used_bytes=memory.total - memory.available)
    bounds = [machine, *memory_limits()]
    total = min(bound.total_bytes for bound in bounds)
    available = min(bound.total_bytes - bound.used_bytes for bound in bounds)
    return MemoryLimit(total_bytes=total, used_bytes=total - max(0, min(available, total)))

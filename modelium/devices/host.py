"""The host's memory as this process may use it: the machine's, or a control group's limit where that is smaller."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """Of this machine, or of the container that it is."""

    total_bytes: int
    used_bytes: int


def read_host_memory() -> HostMemory:
    """``used_bytes`` is what cannot be had now, whoever holds it; page cache that can be dropped is not used."""
    memory = psutil.virtual_memory()
    machine = HostMemory(total_bytes=memory.total, used_bytes=memory.total - memory.available)
    bounds = [machine, *[limit for group in _groups() if (limit := _read_group(group)) is not None]]
    total = min(bound.total_bytes for bound in bounds)
    available = min(bound.total_bytes - bound.used_bytes for bound in bounds)
    return HostMemory(total_bytes=total, used_bytes=total - max(0, min(available, total)))


def _groups() -> list[Path]:
    """This process's control group (v2) and those above it: each may have a limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if own is None:
        return []
    group = _CGROUPS / own
    return [group, *[parent for parent in group.parents if parent.is_relative_to(_CGROUPS)]]


def _read_group(group: Path) -> HostMemory | None:
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit == "max":
            return None
        current = int((group / "memory.current").read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        droppable = int(statistics.get("inactive_file", 0)) + int(statistics.get("active_file", 0))
        return HostMemory(total_bytes=int(limit), used_bytes=max(0, current - droppable))
    except (OSError, ValueError):
        return None

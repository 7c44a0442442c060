"""Limits that control groups set to this process's memory, version 1 or 2: /proc and /sys enter, the limits leave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 2**60
"""Version 1 has no word for "no limit": it says a number that no machine has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimit:
    """Of one control group. ``used_bytes``: what cannot be had; page cache that can be dropped is not used."""

    total_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    """Where a version of control groups keeps what, below ``mount``. ``statistics``: of the group and those below it."""

    mount: str
    limit: str
    usage: str
    statistics: tuple[str, str]


_ONE = _Version(
    mount="sys/fs/cgroup/memory",
    limit="memory.limit_in_bytes",
    usage="memory.usage_in_bytes",
    statistics=("total_inactive_file", "total_active_file"),
)
_TWO = _Version(mount="sys/fs/cgroup", limit="memory.max", usage="memory.current", statistics=("inactive_file", "active_file"))


def memory_limits(root: Path = Path("/")) -> list[MemoryLimit]:
    """Of this process's groups and those above them: each may have a limit. None where there is none."""
    return [limit for version, group in _groups(root) if (limit := _read_limit(version, group)) is not None]


def _groups(root: Path) -> Iterator[tuple[_Version, Path]]:
    """``/proc/self/cgroup`` has a line ``ID:CONTROLLERS:PATH`` for each hierarchy, of version 2 ``0::PATH``. Inside a container
    the path may be the host's: then only the groups above it are found, the mount's own among them."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        version = _TWO if number == "0" else _ONE if "memory" in controllers.split(",") else None
        if version is None or ".." in Path(path).parts:
            continue
        mount = root / version.mount
        group = mount / path.lstrip("/")
        yield from ((version, each) for each in (group, *group.parents) if each.is_relative_to(mount))


def _read_limit(version: _Version, group: Path) -> MemoryLimit | None:
    try:
        total = int((group / version.limit).read_text())  # version 2 says "max" where there is none
        if total >= _UNLIMITED:
            return None
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        droppable = sum(int(statistics.get(name, 0)) for name in version.statistics)
        used = int((group / version.usage).read_text()) - droppable
    except (OSError, ValueError):
        return None
    return MemoryLimit(total_bytes=total, used_bytes=max(0, used))

"""Memory limits of control groups, from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelium.devices.control_groups import MemoryLimit, memory_limits

GIB = 2**30
NO_LIMIT = "9223372036854771712\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def group(directory: str, *, limit: int | str, used: int, version: int = 2) -> dict[str, str]:
    if version == 2:
        names, total = ("memory.max", "memory.current"), ""
    else:
        names, total = ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_"
    statistics = f"cache 5\n{total}inactive_file {GIB}\n{total}active_file {GIB}\n"
    values = (str(limit), str(used), statistics)
    return {f"{directory}/{name}": value for name, value in zip((*names, "memory.stat"), values, strict=True)}


def test_version_two_counts_each_group_with_a_limit(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/pod/container\n"}
    files |= group("sys/fs/cgroup/pod", limit=16 * GIB, used=10 * GIB)
    files |= group("sys/fs/cgroup/pod/container", limit="max", used=9 * GIB)
    assert memory_limits(write(tmp_path, files)) == [MemoryLimit(total_bytes=16 * GIB, used_bytes=8 * GIB)]


@pytest.mark.parametrize("controllers", ["memory", "cpu,memory"])
def test_version_one_has_a_hierarchy_for_memory(tmp_path: Path, controllers: str) -> None:
    files = {"proc/self/cgroup": f"9:name=systemd:/a\n4:{controllers}:/a/b\n3:cpuset:/a\n0::/\n"}
    files |= group("sys/fs/cgroup/memory/a/b", limit=4 * GIB, used=3 * GIB, version=1)
    files |= group("sys/fs/cgroup/memory/a", limit=8 * GIB, used=GIB, version=1)
    files |= group("sys/fs/cgroup/memory", limit=NO_LIMIT, used=20 * GIB, version=1)
    assert memory_limits(write(tmp_path, files)) == [
        MemoryLimit(total_bytes=4 * GIB, used_bytes=GIB),
        MemoryLimit(total_bytes=8 * GIB, used_bytes=0),  # all of it can be dropped
    ]


def test_inside_a_container_the_path_is_the_hosts_and_the_mount_is_the_group(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "4:memory:/docker/0123\n"}
    files |= group("sys/fs/cgroup/memory", limit=4 * GIB, used=3 * GIB, version=1)
    assert memory_limits(write(tmp_path, files)) == [MemoryLimit(total_bytes=4 * GIB, used_bytes=GIB)]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": ""},
        {"proc/self/cgroup": "0::/../../etc\n4:memory:/x\nnonsense\n::\n"},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "much\n"},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1\n", "sys/fs/cgroup/memory.stat": "one two three\n"},
    ],
)
def test_what_cannot_be_read_is_no_limit(tmp_path: Path, files: dict[str, str]) -> None:
    assert memory_limits(write(tmp_path, files)) == []


def test_this_machines_are_read() -> None:
    assert all(limit.total_bytes > 0 for limit in memory_limits())

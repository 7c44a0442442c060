"""What a Modelium's processes hold: a served one enters; memory and open files by kind of process, zombies and the like leave.

Memory is proportional, as the kernel counts it (``smaps_rollup``): a page that n processes map counts 1/n in each. So what is
of files is too little where a process of somebody else maps the same libraries; the other two parts do not depend on others.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from left import is_zombie, shm_prefix
from rich.table import Table
from served import Served

from modelium.sizes import MIB, human_bytes

_SHM = Path("/dev/shm")
_PARTS = re.compile(r"^(Pss|Pss_Anon|Pss_Shmem|Pss_File): +(\d+) kB$", re.MULTILINE)
TRITON, STUBS, CHILDREN, NURSERY, MODELIUM = "tritonserver", "stubs", "children", "nursery", "modelium"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes. ``anonymous``: what nothing backs; ``shared``: files in memory, as of weights; ``files``: as of libraries."""

    anonymous: int = 0
    shared: int = 0
    files: int = 0

    @property
    def total(self) -> int:
        return self.anonymous + self.shared + self.files

    def __add__(self, other: Memory) -> Memory:
        return Memory(
            anonymous=self.anonymous + other.anonymous, shared=self.shared + other.shared, files=self.files + other.files
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """At one moment. ``open_files`` and ``memory`` by kind of process; ``shm_files``: of this Triton in /dev/shm."""

    memory: dict[str, Memory]
    open_files: dict[str, int]
    processes: dict[str, int]
    zombies: int
    shm_files: int
    registered: int  # children of the nursery with a file in its register


def held_by(served: Served) -> Held:
    kinds = processes_of(served)
    prefix = shm_prefix(served.directory)
    return Held(
        memory={kind: memory(processes, weights=kind == CHILDREN) for kind, processes in kinds.items()},
        open_files={kind: sum(map(open_files, processes)) for kind, processes in kinds.items()},
        processes={kind: len(processes) for kind, processes in kinds.items()},
        zombies=sum(map(is_zombie, served.processes())),
        shm_files=sum(1 for path in _SHM.iterdir() if prefix and path.name.startswith(prefix)),
        registered=len(register(served.directory, "children")),
    )


def held_table(before: Held, after: Held) -> Table:
    table = Table("", "processes", "then", "memory", "then", "more", "of it anonymous", "open files", "then")
    for kind in sorted(before.memory | after.memory):
        first, then = (one.memory.get(kind, Memory()) for one in (before, after))
        table.add_row(
            kind,
            *(str(one.processes.get(kind, 0)) for one in (before, after)),
            human_bytes(first.total),
            human_bytes(then.total),
            *(f"{size / MIB:+.2f} MiB" for size in (then.total - first.total, then.anonymous - first.anonymous)),
            *(str(one.open_files.get(kind, 0)) for one in (before, after)),
        )
    for what, one in (("before", before), ("after", after)):
        counts = f"{one.zombies} zombies, {one.shm_files} files in /dev/shm, {one.registered} children in the register"
        table.caption = f"{table.caption}; {what}: {counts}" if table.caption else f"{what}: {counts}"
    return table


def processes_of(served: Served) -> dict[str, list[psutil.Process]]:
    """All that live, by kind."""
    born, own = (register(served.directory, which) for which in ("children", "nurseries"))
    found: dict[str, list[psutil.Process]] = defaultdict(list)
    for process in [psutil.Process(served.pid), *served.processes()]:
        with contextlib.suppress(psutil.Error):
            if is_zombie(process):
                continue
            name = Path(process.exe()).name
            kind = CHILDREN if process.pid in born else NURSERY if process.pid in own else MODELIUM
            if kind == MODELIUM:
                kind = {"tritonserver": TRITON, "triton_python_backend_stub": STUBS}.get(name, MODELIUM)
            found[kind].append(process)
    return dict(found)


def register(directory: Path, which: str) -> set[int]:
    """The processes in the nursery's register, living or not: ``children`` or ``nurseries``."""
    place = directory / "state" / "nursery" / which
    return {int(path.name) for path in place.iterdir() if path.name.isdigit()} if place.is_dir() else set()


def nursery_listens(served: Served, *kinds: str) -> bool:
    """Those of these runtimes, and all that they import at their start is imported: before that, who asks one waits."""
    logs = (served.directory / "state" / "nursery" / f"{kind}.log" for kind in kinds)
    return all(log.is_file() and "is warm" in log.read_text(errors="replace") for log in logs)


def generations(served: Served) -> list[psutil.Process]:
    """The nursery's processes that bear children: each is below another of its processes, the first of which keeps it."""
    own = processes_of(served).get(NURSERY, [])
    pids = {process.pid for process in own}
    found = []
    for process in own:
        with contextlib.suppress(psutil.Error):
            if process.ppid() in pids:
                found.append(process)
    return found


def memory(processes: Iterable[psutil.Process], *, weights: bool) -> Memory:
    """``weights``: of files in memory also what none of them has touched: it is there, and nothing can take it back. The
    nursery has the same files open, and maps none."""
    whole, in_memory = Memory(), dict[int, int]()
    for process in processes:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            size = {part: int(kib) * 1024 for part, kib in _PARTS.findall(text)}
            whole += Memory(anonymous=size["Pss_Anon"], shared=size["Pss_Shmem"], files=size["Pss_File"])
            if weights:
                in_memory |= files_in_memory(process.pid)
    return replace(whole, shared=max(whole.shared, sum(in_memory.values())))


def files_in_memory(pid: int) -> dict[int, int]:
    """Each that the process has open, with the bytes that it takes."""
    found = {}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(descriptor.readlink()).startswith("/memfd:"):
                seen = descriptor.stat()
                found[seen.st_ino] = seen.st_blocks * 512
    return found


def cpu_seconds(served: Served) -> float:
    """That all its living processes have computed so far."""
    whole = 0.0
    for process in [psutil.Process(served.pid), *served.processes()]:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            whole += times.user + times.system
    return whole


def open_files(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.num_fds())
    return 0

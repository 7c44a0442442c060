"""Linux processes and shared memory: what enters are process ids, what leaves are their descendants, killed, and /dev/shm
swept of what only they had mapped.

Standard library only: the guardian imports this file and must start in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_PROC = Path("/proc")
_SHM = Path("/dev/shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRow:
    """A process as /proc shows it. ``started`` (clock ticks since boot) tells it from a later one with the same id."""

    pid: int
    parent: int
    session: int
    started: int
    zombie: bool
    name: str = field(default="", compare=False)  # as it calls itself now, which is not who it is


def read_process(pid: int) -> ProcessRow | None:
    """None when there is no such process."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # "pid (name) state ppid pgrp session …": the name may hold spaces and parentheses, so count from its end.
    name, fields = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
    return ProcessRow(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
        zombie=fields[0] in "ZX" and int(fields[17]) <= 1,  # else another of its threads runs
        name=name,
    )


def all_processes() -> Iterator[ProcessRow]:
    """Of this machine; those that end meanwhile are left out."""
    for entry in os.listdir(_PROC):  # noqa: PTH208 — Path.iterdir builds an object per entry
        if entry.isdigit() and (process := read_process(int(entry))) is not None:
            yield process


def descendants(pid: int) -> list[ProcessRow]:
    """Everything below ``pid``, zombies left out, parents before children."""
    children: dict[int, list[ProcessRow]] = {}
    for process in all_processes():
        children.setdefault(process.parent, []).append(process)
    found: list[ProcessRow] = []
    queue = [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += [process for process in below if not process.zombie]
        queue += [process.pid for process in below]
    return found


def read_register(directory: str) -> dict[int, int]:
    """Processes that have a file there, by id, with when they were ``started``; what they are there for follows."""
    found = {}
    for name in os.listdir(directory) if directory and Path(directory).is_dir() else ():  # noqa: PTH208
        with contextlib.suppress(OSError, ValueError, IndexError):
            found[int(name)] = int((Path(directory) / name).read_text().split()[0])
    return found


def same(process: ProcessRow) -> bool:
    """Is this very process still there and not a zombie?"""
    now = read_process(process.pid)
    return now is not None and now.started == process.started and not now.zombie


def send(process: ProcessRow, signum: int) -> None:
    """Signal this very process; nothing happens when it has ended, even if its id is in use again."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        if same(process):  # checked through the open descriptor: the id cannot be reused between check and signal
            signal.pidfd_send_signal(descriptor, signum)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def awaited_children(pid: int) -> set[int]:
    """Processes for whose end a thread of ``pid`` waits in the kernel, whatever else that thread has to do.

    From ``/proc/PID/task``: a thread's ``wchan`` says where it sleeps, its ``syscall`` what it asked for (``wait4``, the id
    first). Only this user's processes, and where ``ptrace`` is restricted only descendants, show the latter; of others the
    thread's own children are taken. A thread that sleeps anywhere else costs one short read.
    """
    found: set[int] = set()
    tasks = _PROC / str(pid) / "task"
    with contextlib.suppress(OSError):
        for thread in os.listdir(tasks):  # noqa: PTH208 — Path.iterdir builds an object per entry
            if _read(tasks / thread / "wchan") != "do_wait":
                continue
            call = _read(tasks / thread / "syscall").split()
            if len(call) > 1:
                found.add(int(call[1], 16))
            else:
                found.update(map(int, _read(tasks / thread / "children").split()))
    return found


def _read(path: Path) -> str:
    """ "" where it cannot be read, or is gone."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def kill_all(find: Callable[[], list[ProcessRow]], *, within_s: float, reap: Callable[[], None] = lambda: None) -> set[Path]:
    """SIGKILL whatever ``find`` finds until it finds nothing; the shared-memory files that they had mapped are returned."""
    mapped: set[Path] = set()
    deadline = time.monotonic() + within_s
    while found := find():
        for process in found:
            mapped |= mapped_shared_memory(process.pid)
        for process in found:
            send(process, signal.SIGKILL)
        reap()
        if time.monotonic() > deadline:
            break  # in an uninterruptible wait (a dying GPU context): nothing more can be done from here
        time.sleep(0.02)
    reap()
    return mapped


def mapped_shared_memory(pid: int) -> set[Path]:
    """The files of /dev/shm that a process has mapped now."""
    found: set[Path] = set()
    try:
        with (_PROC / str(pid) / "maps").open(encoding="utf-8", errors="replace") as maps:
            for line in maps:
                place = line.find(" /dev/shm/")
                if place >= 0 and not line.endswith(" (deleted)\n"):
                    found.add(Path(line[place + 1 : -1]))
    except OSError:
        pass
    return found


def sweep_shared_memory(prefix: str, mapped: Iterable[Path]) -> list[Path]:
    """Unlink the files whose name starts with ``prefix``, and those of ``mapped`` that nobody else has mapped.

    vLLM's ``psm_*`` and torch's files carry no owner in their names; a client's own region that Triton had mapped at the
    client's request must survive us.
    """
    doomed = {path for path in _list_shared_memory() if prefix and path.name.startswith(prefix)}
    suspects = {path for path in mapped if path not in doomed and _is_ours(path)}
    if suspects:
        for process in all_processes():
            suspects -= mapped_shared_memory(process.pid)
            if not suspects:
                break
    gone: list[Path] = []
    for path in sorted(doomed | suspects):
        with contextlib.suppress(OSError):
            path.unlink()
            gone.append(path)
    return gone


def _list_shared_memory() -> list[Path]:
    try:
        return list(_SHM.iterdir())
    except OSError:
        return []


def _is_ours(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.getuid()
    except OSError:
        return False


def boot_id() -> str:
    """This boot's identity: process ids of an earlier boot mean nothing."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""

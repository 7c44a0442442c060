"""Which processes serve which model: what enters is the server's process id, what leaves are its stubs and their offspring.

Measured on the embedded server: a stub's command line is ``STUB ENTRY/VERSION/FILE SHM … INSTANCE BACKEND``. The instance
is ``MODEL_0`` or ``MODEL_0_1``, for the throw-away stub of auto-complete plain ``MODEL``; for Python-based backends too the
path is the entry's. Model names may end like instances do (``bert_0``), so the path decides where the name ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_STUB = "triton_python_b"  # the kernel keeps 15 characters of triton_python_backend_stub
_INSTANCE_SUFFIX = re.compile(r"(_\d+){1,2}")
_INSTANCE_ARGUMENT = -2


@dataclass(frozen=True, slots=True, order=True)
class Process:
    """One process for ever: ids are used again, an id with its start (clock ticks since boot) is not."""

    pid: int
    created_at: int


@dataclass(frozen=True, slots=True)
class _Row:
    parent: int
    created_at: int
    command: str


def alive(process: Process) -> bool:
    """Whether this very process runs. A zombie does not: its memory is already free."""
    row = read_row(process.pid)
    return row is not None and row.created_at == process.created_at


def find_process(pid: int) -> Process | None:
    """The process that has this id now."""
    row = read_row(pid)
    return None if row is None else Process(pid, row.created_at)


def watch_exit(process: Process, callback: Callable[[], None]) -> Callable[[], None]:
    """Call ``callback`` once, in the running loop, when the process has ended (also when it already had).

    What is returned ends the watch and may be called at any time, any number of times.
    """
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return loop.call_soon(callback).cancel
    # The descriptor now holds the id's owner fast; only then is it worth asking who that is.
    if not alive(process):
        os.close(descriptor)
        return loop.call_soon(callback).cancel

    def cancel() -> None:
        nonlocal descriptor
        if descriptor >= 0:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.remove_reader(descriptor)
            os.close(descriptor)
            descriptor = -1

    def ended() -> None:
        cancel()
        callback()

    loop.add_reader(descriptor, ended)
    return cancel


class ProcessMap:
    """Remembers who belonged to whom: when a stub dies, its offspring moves to another parent and lives on. ``own``: at the
    last look, the server and what is below it that is no model's."""

    def __init__(self) -> None:
        self._known: dict[Process, str] = {}
        self.own: tuple[int, ...] = ()

    def read(self, server_pid: int) -> dict[str, tuple[Process, ...]]:
        """Model name → its living processes, the stubs before their offspring. One pass over /proc."""
        rows: dict[int, _Row] = {}
        children: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):  # noqa: PTH208 - an object per entry would double the time
            if entry.isdigit() and (row := read_row(int(entry))) is not None:
                rows[int(entry)] = row
                children.setdefault(row.parent, []).append(int(entry))
        found: dict[Process, str] = {}
        own = [server_pid]
        queue: list[tuple[int, str | None]] = [(child, None) for child in children.get(server_pid, ())]
        for pid, inherited in queue:
            row = rows[pid]
            model = inherited
            if row.command == _STUB:
                model = model_of_command(read_command_line(pid)) or inherited
            if model is not None:
                found[Process(pid, row.created_at)] = model
            else:
                own.append(pid)
            queue += [(child, model) for child in children.get(pid, ())]
        for process, model in self._known.items():
            row_now = rows.get(process.pid)
            if process not in found and row_now is not None and row_now.created_at == process.created_at:
                found[process] = model
        self._known, self.own = found, tuple(own)
        models: dict[str, list[Process]] = {}
        for process, model in found.items():
            models.setdefault(model, []).append(process)
        return {model: tuple(processes) for model, processes in models.items()}


def model_of_command(arguments: Sequence[str]) -> str | None:
    """The model that a stub's command line is about; None when it is no stub's.

    >>> model_of_command(["…/stub", "/repo/bert_0/1/model.onnx", "shm", "1", "1", "9", "/b", "336", "bert_0_0", "DEFAULT"])
    'bert_0'
    """
    if len(arguments) < 4:
        return None
    instance = arguments[_INSTANCE_ARGUMENT]
    for part in reversed(arguments[1].split("/")):
        if part and (instance == part or (instance.startswith(part) and _INSTANCE_SUFFIX.fullmatch(instance, len(part)))):
            return part
    return re.sub(r"(_\d+){1,2}$", "", instance) or None


def resident_bytes(pids: Iterable[int]) -> int:
    """Memory of processes together: proportional set sizes, so a page that n processes share counts 1/n in each."""
    return sum(_proportional_bytes(pid) for pid in pids)


def _proportional_bytes(pid: int) -> int:
    total = 0
    try:
        with Path(f"/proc/{pid}/smaps_rollup").open("rb") as rollup:
            for line in rollup:
                if line.startswith((b"Pss:", b"SwapPss:")):
                    total += int(line.split()[1]) * 1024
    except PermissionError:  # another user's, or a hardened kernel
        return _resident_bytes(pid)
    except OSError:
        return 0
    return total


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGESIZE")


def unshared_bytes(pids: Iterable[int]) -> int:
    """What these processes have of memory that no file backs. Unlike proportional sizes it does not change when another one
    that maps the same libraries ends."""
    return sum(_unshared_bytes(pid) for pid in pids)


def _unshared_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_bytes().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith((b"RssAnon:", b"RssShmem:", b"VmSwap:")))


def read_row(pid: int) -> _Row | None:
    """What ``/proc`` says of a process, None for one that is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - read for every process of the machine
            stat = file.read()
    except OSError:
        return None
    # "pid (command) state ppid …": the command may hold spaces and parentheses, so count from its end.
    opening, closing = stat.find(b"("), stat.rfind(b")")
    fields = stat[closing + 2 :].split(maxsplit=20)
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return _Row(int(fields[1]), int(fields[19]), stat[opening + 1 : closing].decode("utf-8", "replace"))


def read_command_line(pid: int) -> list[str]:
    """Its words, none for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "surrogateescape").removesuffix("\0").split("\0")
    except OSError:
        return []

"""Linux processes: what enters are process ids, what leaves is who has that id, what it runs, and when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_THREADS = 17  # how many, counted from the state


@dataclass(frozen=True, slots=True, order=True)
class Process:
    """One process for ever: ids are used again, an id with its start (clock ticks since boot) is not."""

    pid: int
    created_at: int


@dataclass(frozen=True, slots=True)
class Row:
    """What ``/proc`` says of a process. ``command``: the first 15 characters of its program's name."""

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


def read_row(pid: int) -> Row | None:
    """What ``/proc`` says of a process, None for one that is gone.

    One whose first thread has ended is a zombie by name, and holds its memory as long as another thread runs.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - read for every process of the machine
            stat = file.read()
    except OSError:
        return None
    # "pid (command) state ppid …": the command may hold spaces and parentheses, so count from its end.
    opening, closing = stat.find(b"("), stat.rfind(b")")
    fields = stat[closing + 2 :].split(maxsplit=20)
    if len(fields) < 20 or (fields[0] in (b"Z", b"X") and int(fields[_THREADS]) <= 1):
        return None
    return Row(int(fields[1]), int(fields[19]), stat[opening + 1 : closing].decode("utf-8", "replace"))


def read_rows() -> dict[int, Row]:
    """Of all processes, by id."""
    rows: dict[int, Row] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - an object per entry would double the time
        if entry.isdigit() and (row := read_row(int(entry))) is not None:
            rows[int(entry)] = row
    return rows


def has_memory(pid: int) -> bool:
    """Whether it has any. One that ends gives it back first, and then its children away."""
    try:
        return Path(f"/proc/{pid}/statm").read_bytes().split()[0] != b"0"
    except (OSError, IndexError):
        return False


def read_command_line(pid: int) -> list[str]:
    """Its words, none for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "surrogateescape").removesuffix("\0").split("\0")
    except OSError:
        return []

"""What runs of a Modelium leave behind: a directory and the processes that it had enter, what is left of them leaves."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_SHM = Path("/dev/shm")
_CLEAN_WITHIN_S = 20.0  # a guardian gives Triton 8 s, and what hangs 5 s more


@dataclass(slots=True)
class Past:
    """What runs that are over had: processes, and what the names of their shared memory begin with."""

    processes: set[psutil.Process] = field(default_factory=set)
    prefixes: set[str] = field(default_factory=set)

    def note(self, directory: Path) -> None:
        self.processes |= family(directory)
        self.prefixes |= {prefix for prefix in [shm_prefix(directory)] if prefix}


def family(directory: Path) -> set[psutil.Process]:
    """Every process that has to do with this directory, whoever its parent is now."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = " ".join(process.cmdline())
            if str(directory) in words or process.cwd().startswith(str(directory)):
                found.add(process)
    return found - {psutil.Process()}


def shm_prefix(directory: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((directory / "state" / "server.json").read_text())["shm_prefix"])
    return ""


def what_is_left(directory: Path, earlier: set[psutil.Process], prefixes: set[str]) -> list[str]:
    """Of runs that are over; a guardian that still cleans up after its own is given its time."""
    deadline = time.monotonic() + _CLEAN_WITHIN_S
    while True:
        left = [f"process {process.pid}" for process in earlier if process.is_running() and not is_zombie(process)]
        left += [f"/dev/shm/{path.name}" for path in _SHM.iterdir() if path.name.startswith(tuple(prefixes or {"\0"}))]
        left += [str(path.relative_to(directory)) for path in temporary(directory)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def is_zombie(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return True


def taken(ports: tuple[int, ...]) -> list[str]:
    """Which of them somebody still listens at."""
    found = []
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                found.append(f"port {port}")
    return found


def temporary(directory: Path) -> Iterator[Path]:
    """Work that nobody does any more: in the repository's workshop, and beside the files of the state directory."""
    for workshop in (directory / ".repository.staging", directory / "repository" / ".staging"):
        for work in workshop.glob("*"):
            if not locked(work):
                yield work
    yield from (path for pattern in ("*.new", "*.tmp") for path in (directory / "state").glob(pattern))


def locked(path: Path) -> bool:
    """Somebody is at work there now."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return True  # it went while we looked
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False

"""The engine's processes: what enters is a process group, what leaves is nothing of it: no processes, shared memory or sockets.

The stub leads a process group of its own (``lead_group``); every process that vLLM starts is in it. Run as a program, this file
is the group's guard: it waits until the stub is gone, however it went, and ends what is left. Otherwise a killed stub's
``EngineCore``, and the workers of one with several ranks, live on for ever, with the device's memory.

Standard library only: the guard must start in milliseconds and hold little.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_SHM = "/dev/shm/"
_SOCKETS, _OURS = "VLLM_RPC_BASE_PATH", "MODELIUM_VLLM_SOCKETS"  # where vLLM makes its sockets; the same, where it is ours
_PLACES, _LOCK = "vllm-", "lock"
_LONGEST_PLACE = 107 - 37  # a socket's path may have 107 bytes, and each has a name of 36


def lead_group() -> int:
    """Make this process the leader of a group of its own; the group's id."""
    with contextlib.suppress(PermissionError):  # it leads a session, and with it a group, already
        os.setpgid(0, 0)
    return os.getpgid(0)


def start_guard(group: int) -> subprocess.Popen[bytes]:
    """The guard runs outside the group and ends the group as soon as this process has ended.

    From then on the engine's sockets, and the files by which its ranks find each other, have a directory of their own. vLLM
    leaves some in /tmp, however it ends.
    """
    import tempfile  # which the guard does without

    _sweep(Path(tempfile.gettempdir()))
    place = tempfile.mkdtemp(prefix=_PLACES)
    fcntl.flock(os.open(f"{place}/.{_LOCK}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), fcntl.LOCK_EX)
    Path(place, f".{_LOCK}").rename(Path(place, _LOCK))  # nobody ever finds it open
    os.environ[_OURS] = place
    if _SOCKETS not in os.environ and len(os.fsencode(place)) <= _LONGEST_PLACE:
        os.environ[_SOCKETS] = place
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(group)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=True, process_group=0)


def own_directory() -> str:
    """Where the engine's sockets and files are; "" before ``start_guard``."""
    return os.environ.get(_OURS, "")


def remove_sockets() -> None:
    """The engine's directory of sockets, which nobody uses any more."""
    if place := own_directory():
        _remove(Path(place))


def _sweep(directory: Path) -> None:
    """Remove those whose engine was killed together with its guard. Of a living one, somebody holds the lock."""
    for place in directory.glob(f"{_PLACES}*"):
        with contextlib.suppress(OSError):
            lock = os.open(place / _LOCK, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(place)
            finally:
                os.close(lock)


def _remove(place: Path) -> None:
    with contextlib.suppress(OSError):
        for file in place.iterdir():
            file.unlink()
        place.rmdir()


def members(group: int) -> dict[int, str]:
    """Process id → name of everything in the group but this process; zombies have ended."""
    found = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 — Path.iterdir builds an object per entry
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        # "pid (name) state ppid pgrp …": the name may hold spaces and parentheses, so count from its end.
        fields = stat[stat.rindex(")") + 2 :].split()
        if int(fields[2]) == group and fields[0] not in "ZX":
            found[int(entry)] = _title(entry) or stat[stat.index("(") + 1 : stat.rindex(")")]
    return found


def _title(pid: str) -> str:
    """The first word of the command line, which is where vLLM's processes write what they are."""
    with contextlib.suppress(OSError):
        return Path("/proc", pid, "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace").split(" ")[0]
    return ""


def end_group(group: int, *, within_s: float = 5.0) -> list[int]:
    """SIGKILL every member but this process, and unlink the shared memory that only they had; their ids are returned."""
    mapped: set[str] = set()
    ended: set[int] = set()
    deadline = time.monotonic() + within_s
    while found := members(group):
        for pid in found:
            mapped |= mapped_shared_memory(pid)
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        ended.update(found)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if time.monotonic() > deadline:
            break  # in an uninterruptible wait (a dying GPU context): nothing more can be done from here
        time.sleep(0.02)
    unlink_abandoned(mapped)
    return sorted(ended)


def mapped_shared_memory(pid: int) -> set[str]:
    """The files of /dev/shm that a process has mapped now."""
    found = set()
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:  # noqa: PTH123
        for line in maps:
            place = line.find(f" {_SHM}")
            if place >= 0 and not line.endswith(" (deleted)\n"):
                found.add(line[place + 1 : -1])
    return found


def unlink_abandoned(mapped: set[str]) -> None:
    """Unlink those that nobody has mapped any more: vLLM's ``psm_*`` and torch's files carry no owner in their names."""
    if not mapped:
        return
    suspects = set(mapped)
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            suspects -= mapped_shared_memory(int(entry))
    for path in suspects:
        with contextlib.suppress(OSError):
            if os.stat(path).st_uid == os.getuid():  # noqa: PTH116
                os.unlink(path)  # noqa: PTH108


def guard(stub: int, group: int) -> None:
    """Wait for the end of ``stub``, this process's parent, then end ``group``."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(stub)
        if os.getppid() == stub:  # else it has ended, and its id may be in use again
            select.select([descriptor], [], [])
    end_group(group)
    remove_sockets()


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with the stub, not with a terminal
    guard(int(sys.argv[1]), int(sys.argv[2]))

"""What a process that forks has to know and do: its threads and devices, who has ended, and how a fork never returns."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Iterable, Iterator


class NotWarm(Exception):
    """This process must not fork children: it has a thread or a CUDA context."""


def watched(pids: Iterable[int]) -> dict[int, int]:
    """A descriptor that tells the end of each."""
    found = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            found[os.pidfd_open(pid)] = pid
    return found


def check_warm() -> None:
    """Raises ``NotWarm`` where a fork of this process would be a trap."""
    threads = os.listdir("/proc/self/task")  # noqa: PTH208
    if len(threads) > 1:
        raise NotWarm(f"an import has started {len(threads) - 1} threads")
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith("/dev/nvidia"):  # noqa: PTH115
                raise NotWarm("an import has opened a GPU")


def reaped() -> Iterable[tuple[int, int]]:
    """The children of this process that have ended, and how."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, status


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """What a forked process does; it ends with it, whatever happens, and never returns to what its parent was at."""
    code = 1
    try:
        yield
        code = 0
    except NotWarm as error:
        say(f"the nursery gives up: {error}")
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def say(what: str) -> None:
    """A line in the server's log."""
    with contextlib.suppress(OSError):
        os.write(2, f"{time.strftime('%Y-%m-%d %H:%M:%S')} modelium: [{os.getpid()}] {what}\n".encode())

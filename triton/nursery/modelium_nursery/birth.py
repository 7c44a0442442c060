"""What a forked child does before it is a model's process: an order and descriptors enter; it never leaves.

It becomes as if Triton had started it: the stub's environment, directory, output, limits and cores. It keeps nothing of the
nursery's but its imports: every other descriptor is closed, and chance starts anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from . import lifelines, orders
from .shares import Shares
from .shelf import Place

_PR_SET_NAME = 15
_NAME_BYTES = 15


def begin(
    order: orders.Birth, handed: orders.Handed, *, stub: int, places: dict[str, Place], notes: int, tell: int
) -> NoReturn:
    """Serve one instance, and end. ``notes``, ``tell``: where the nursery is told which modules the child had to import, and
    which files in memory it uses."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _take_over_output(handed)
        _close_others({*handed[:4], notes, tell, *(descriptor for place in places.values() for descriptor in place.all)})
        life = socket.socket(fileno=handed.life)
        lifelines.hold(life)
        _resemble(stub, order)
        _begin_chance_anew()
        from . import serving  # numpy, which the keeper does without

        serving.serve(order, handed, Shares(places, tell), notes)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(1)


def _take_over_output(handed: orders.Handed) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (handed.output, 1), (handed.errors, 2)):
        os.dup2(source, target)


def _close_others(kept: set[int]) -> None:
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(entry) > 2 and int(entry) not in kept:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(int(entry))


def _resemble(stub: int, order: orders.Birth) -> None:
    os.environ.clear()
    os.environ.update(order.environment)
    time.tzset()
    with contextlib.suppress(OSError):
        os.chdir(order.working_directory)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, os.sched_getaffinity(stub))
    for name in ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_STACK"):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(getattr(resource, name), resource.prlimit(stub, getattr(resource, name)))
    with contextlib.suppress(OSError):  # where memory ends, a model goes, and not what others are born from
        Path("/proc/self/oom_score_adj").write_text(Path(f"/proc/{stub}/oom_score_adj").read_text())
    be_called(f"m:{order.name}")


def be_called(name: str) -> None:
    """The name that ``ps`` shows of this process, as much of it as the kernel keeps."""
    shown = name.encode("ascii", "replace")[:_NAME_BYTES]
    ctypes.CDLL(None).prctl(_PR_SET_NAME, ctypes.c_char_p(shown), 0, 0, 0)


def _begin_chance_anew() -> None:
    """Two children that drew the same numbers would sample the same texts."""
    random.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
    if (torch := sys.modules.get("torch")) is not None:
        torch.default_generator.seed()

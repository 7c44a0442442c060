"""The program that looks at folders: lists of requests enter on stdin, an analysis for each leaves on stdout, all behind their
length (4 bytes).

``pool`` starts it by its module's name and ends it. What it sets for itself is a net for accidents and for bytes that nobody
vouches for; it holds as long as no reader is turned into a program, which Python's readers of bytes make hard.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import resource
import signal
import sys
from typing import BinaryIO

from modelium.analysis.wire import READY, SPENT, encode
from modelium.analyzers import analyze
from modelium.analyzers.architectures import mappings

MEMORY_BYTES = 512 * 2**20
CPU_S = 10
_KEPT_BYTES = 64 * 2**20
_OPEN_FILES = 64
_NICER_BY = 10
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def serve(source: BinaryIO, sink: BinaryIO, most_bytes: int) -> None:
    """Until ``source`` ends, which it does with the parent, or more than ``most_bytes`` stayed taken: the next folder is not
    to pay for this one."""
    _send(sink, READY)
    while len(head := source.read(4)) == 4:
        for candidate, override in pickle.loads(source.read(int.from_bytes(head))):  # our own: see wire
            if _taken() > most_bytes:
                return
            _allow_time()
            try:
                answer = encode(analyze(candidate, override))
            except MemoryError:
                _send(sink, SPENT)
                return
            _send(sink, answer)


def _send(sink: BinaryIO, message: bytes) -> None:
    sink.write(len(message).to_bytes(4) + message)
    sink.flush()


def _allow_time() -> None:
    """So many seconds of the processor for one folder; the clock on the wall is the parent's."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + CPU_S, resource.RLIM_INFINITY)


def _taken() -> int:
    with open("/proc/self/statm") as pages:  # noqa: PTH123 – no Path needed for one number
        return int(pages.read().split()[0]) * resource.getpagesize()


def _limit(taken: int) -> None:
    """After everything is imported: the limits are over what the start takes."""
    _lower(resource.RLIMIT_AS, taken + MEMORY_BYTES)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)
    with contextlib.suppress(OSError):
        os.nice(_NICER_BY)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's


def _lower(which: int, soft: int, hard: int | None = None) -> None:
    highest = resource.getrlimit(which)[1]
    hard = soft if hard is None else hard
    if highest != resource.RLIM_INFINITY:
        soft, hard = min(soft, highest), highest if hard == resource.RLIM_INFINITY else min(hard, highest)
    resource.setrlimit(which, (soft, hard))


def _shut_in() -> None:
    """End with the parent, never gain rights, have no network. Best effort: not every kernel and container allows each.

    An ordinary user gets a network of its own, an empty one, through a user namespace. root keeps its right to read any file,
    which such a namespace would take, and so needs the right to make networks; in most containers it has none.
    """
    kernel = ctypes.CDLL(None, use_errno=True)
    kernel.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    kernel.unshare(_CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWUSER | _CLONE_NEWNET)


if __name__ == "__main__":
    parent = os.getppid()
    _shut_in()
    mappings()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what some library prints is no answer
    at_start = _taken()
    _limit(at_start)
    if os.getppid() == parent:
        serve(sys.stdin.buffer, answers, at_start + _KEPT_BYTES)

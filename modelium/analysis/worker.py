"""The program that looks at folders: lists of requests enter on stdin, what is found leaves on stdout (``wire``).

``process`` starts it by its module's name and ends it. It imports what is needed once and looks at each list in a child that
it forks, so that nothing of one list is left for the next, and a child that was ended costs no second start. What a child sets
for itself is a net for accidents and for bytes that nobody vouches for; it holds as long as no reader is turned into a
program, which Python's readers of bytes make hard. Its messages are passed on whole or not at all.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from modelium.analysis.wire import ANSWER, CHILD, ENDED, MAX_ANSWER_BYTES, READY, SPENT, encode
from modelium.analyzers import Remembered, analyze
from modelium.analyzers.architectures import mappings
from modelium.values import Candidate, ModelOverride, Unsupported

MEMORY_BYTES = 512 * 2**20
CPU_S = 10
_KEPT_BYTES = 64 * 2**20
_OPEN_FILES = 64
_NICER_BY = 10
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


@dataclass(slots=True)
class _Looking:
    """The child that looks now; 0: none."""

    child: int = 0

    def break_off(self, *_: object) -> None:
        if self.child:
            os.kill(self.child, signal.SIGKILL)  # it is ours until it is waited for


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Until ``source`` ends, which it does with the parent. SIGUSR1 breaks off the look under way."""
    looking = _Looking()
    signal.signal(signal.SIGUSR1, looking.break_off)
    _send(sink, READY, b"")
    while len(head := source.read(4)) == 4:
        requests = source.read(int.from_bytes(head))
        ours, theirs = os.pipe()
        us = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        looking.child = os.fork()
        if not looking.child:
            os.close(ours)
            _look_and_end(requests, theirs, parent=us, leave=sink)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        os.close(theirs)
        _send(sink, CHILD, str(looking.child).encode())
        with os.fdopen(ours, "rb") as answers:
            for answer in _whole_messages(answers):
                _send(sink, ANSWER, answer)
        looking.break_off()  # it closed its end, or says too much
        status = os.waitpid(looking.child, 0)[1]
        looking.child = 0
        _send(sink, ENDED, str(os.waitstatus_to_exitcode(status)).encode())


def _whole_messages(source: BinaryIO) -> Iterator[bytes]:
    """Until it ends, or sends what is none."""
    while len(head := source.read(4)) == 4 and (size := int.from_bytes(head)) <= MAX_ANSWER_BYTES:
        message = source.read(size)
        if len(message) < size:
            return
        yield message


def _send(sink: BinaryIO, kind: bytes, message: bytes) -> None:
    sink.write(kind + len(message).to_bytes(4) + message)
    sink.flush()


# -- in the child ------------------------------------------------------------------------------------------------------------


def _look_and_end(requests: bytes, answers: int, *, parent: int, leave: BinaryIO) -> None:
    """Never returns: it ends with 0 when it is through, or when what it took is not to be paid for by the next folder."""
    code = 1
    try:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        gc.disable()  # it ends soon; to go through the 100,000 tensors of a mixture would take half as long again
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.close(leave.fileno())
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1):  # what some library prints is no answer
            os.dup2(nothing, stream)
        at_start = _taken()
        _limit(at_start)
        if os.getppid() == parent:
            _look(pickle.loads(requests), answers, at_start + _KEPT_BYTES)  # our own: see wire
        code = 0
    finally:
        os._exit(code)


def _look(requests: list[tuple[Candidate, ModelOverride, str]], answers: int, most_bytes: int) -> None:
    for candidate, override, known in requests:
        if _taken() > most_bytes:
            return
        _allow_time()
        try:
            remembered = Remembered(known)
            analysis = analyze(candidate, override, remembered)
            answer = encode(analysis, remembered.text())
            if len(answer) > MAX_ANSWER_BYTES:
                why = "what it says of itself is too long"
                answer = encode(Unsupported(name=candidate.name, path=candidate.path, why=why, hint="is it damaged?"))
        except MemoryError:
            _answer(answers, SPENT)
            return
        _answer(answers, answer)


def _answer(answers: int, message: bytes) -> None:
    left = memoryview(len(message).to_bytes(4) + message)
    while left:
        left = left[os.write(answers, left) :]


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


def _lower(which: int, soft: int, hard: int | None = None) -> None:
    highest = resource.getrlimit(which)[1]
    hard = soft if hard is None else hard
    if highest != resource.RLIM_INFINITY:
        soft, hard = min(soft, highest), highest if hard == resource.RLIM_INFINITY else min(hard, highest)
    resource.setrlimit(which, (soft, hard))


# -- at the start ------------------------------------------------------------------------------------------------------------


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
    started_by = os.getppid()
    _shut_in()
    mappings()
    with contextlib.suppress(OSError):
        os.nice(_NICER_BY)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's
    found = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    gc.freeze()  # a child that goes through it would copy it
    if os.getppid() == started_by:
        serve(sys.stdin.buffer, found)

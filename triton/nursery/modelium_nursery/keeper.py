"""The process that keeps a nursery: command line in, and as long as whoever it serves lives, one generation that listens.

It imports nothing heavy, forks the first generation, and another one when none serves any more. What loses its parent below it
becomes its child, so that children whose nursery was killed are still struck from the register when they end.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import resource
import select
import signal
import socket
import sys
import time
from pathlib import Path

from . import forks, imports, nursery, trials
from .places import coming, listen, make_private, socket_name
from .register import Register
from .trials import Trial

_PR_SET_CHILD_SUBREAPER = 36
_LOOK_MS = 1000  # nothing tells a process that it became the parent of another
_STRAY_GRACE_S = 5.0
_AGAIN_AFTER_S = (1.0, 5.0, 30.0)
# OpenBLAS, which numpy brings, starts its threads when it is imported; torch starts its own when it first computes.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
_STEADY_S = 60.0  # a generation that served so long did not fail because of what it imports


def main() -> None:
    """``python -I -m`` cannot find this package: see ``client.command_line``."""
    parser = argparse.ArgumentParser(prog="modelium-nursery", description=__doc__)
    parser.add_argument("directory", type=Path, help="where its socket and its register are")
    parser.add_argument("kind", help="part of the socket's name; a stub asks for the nursery of its runtime")
    parser.add_argument("imports", help="a file that is run first: it imports what every model of the kind needs")
    parser.add_argument("--family", type=int, default=0, help="end when this process does")
    chosen = parser.parse_args()
    os.umask(0o077)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # one for each file of weights, and some for each child
    make_private(chosen.directory)
    lock = os.open(chosen.directory / f"{chosen.kind}.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # another one serves
    Keeper(chosen.directory, chosen.kind, chosen.imports, chosen.family, lock).keep()


class Keeper:
    """Keeps one generation serving."""

    def __init__(self, directory: Path, kind: str, imports: str, family: int, lock: int) -> None:
        self._directory, self._kind, self._imports, self._family = directory, kind, imports, family
        self._lock = lock  # this process's alone: it must be free when this process has ended
        self._register = Register(directory)
        self._end = os.pipe2(os.O_CLOEXEC)  # open as long as this process lives
        self._failures = 0
        self._listener: socket.socket | None = None
        self._generations: set[int] = set()  # those that this process has forked
        self._ended: dict[int, int] = {}  # and how the last of them ended
        self._others: set[int] = set()  # children of an earlier keeper, which was killed
        self._told = False  # to end
        self._strays: dict[int, float] = {}  # what nobody waits for, and since when

    def keep(self) -> None:
        """Until the family ends, or SIGTERM: then what was born goes on if there is a family, and nothing more is born."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._note_end)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._register.tidy()
        self._others = self._register.living()
        self._register.enter_own()
        family = _pidfd(self._family)
        try:
            while self._run_generation(woken, family):
                pass
            if family is not None:
                self._see_them_out(woken, family)
        finally:
            self._register.strike_own(os.getpid())
            if self._family:
                self._leave_nothing()

    def _note_end(self, *_: object) -> None:
        self._told = True

    def _run_generation(self, woken: int, family: int | None) -> bool:
        """Until it ends; whether there shall be another one."""
        started, served = time.monotonic(), False
        if self._listener is None:
            self._listener = listen(self._directory, self._kind)
        serving, trial = self._start(self._listener)
        poll = _poll_of(serving, woken, family, trial.socket.fileno())
        try:
            while True:
                ready = {descriptor for descriptor, _ in poll.poll(_LOOK_MS)}
                trial.end_if_late()
                if trial.over and trial.socket.fileno() in ready:
                    poll.unregister(trial.socket)
                self._reap(woken)
                self._end_strays()
                if family in ready or self._told:
                    return False
                if serving in ready:
                    if os.read(serving, 1) != nursery.WARM:
                        break
                    served = True
            if not served and self._blames(trial):
                return True
        finally:
            os.close(serving)
            trial.socket.close()
        if not served:  # perhaps it never will: let models load without it
            self._close_socket()
        self._failures = 0 if time.monotonic() - started > _STEADY_S else self._failures + 1
        if self._failures > 1:
            pause = _poll_of(woken, family)
            until = time.monotonic() + _AGAIN_AFTER_S[min(self._failures - 2, len(_AGAIN_AFTER_S) - 1)]
            while (left := until - time.monotonic()) > 0:
                if family in {descriptor for descriptor, _ in pause.poll(left * 1000)} or self._told:
                    return False
                self._reap(woken)
        return True

    def _blames(self, trial: Trial) -> bool:
        """It ended before it was warm. Was that an import? Then the next one does without."""
        if trial.pid not in self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(trial.pid, signal.SIGKILL)  # nothing to one that is ending
            _, self._ended[trial.pid] = os.waitpid(trial.pid, 0)
            self._generations.discard(trial.pid)
        return trials.refuse_culprit(trial, self._ended[trial.pid], self._directory, self._kind) is not None

    def _see_them_out(self, woken: int, family: int) -> None:
        """Bear no more. What was born goes on until its stub or the family ends."""
        self._close_socket()
        os.close(self._end[1])  # so the generations end
        poll = _poll_of(woken, family)
        while any(self._register.knows(pid) for pid in _children_of_this()):
            if family in {descriptor for descriptor, _ in poll.poll(_LOOK_MS)}:
                return
            self._reap(woken)
            self._end_strays()

    def _close_socket(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for path in (coming(self._directory, self._kind), self._directory / socket_name(self._kind)):
            path.unlink(missing_ok=True)

    def _start(self, listener: socket.socket) -> tuple[int, Trial]:
        """Fork a generation; a descriptor that ends when neither it nor a successor serves any more, and how its imports go."""
        serving, alive = os.pipe2(os.O_CLOEXEC)
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid:
            self._generations.add(pid)
            self._ended.pop(pid, None)
            os.close(alive)
            its.close()
            return serving, Trial(pid=pid, socket=ours)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for descriptor in (serving, self._lock, self._end[1]):
            os.close(descriptor)
        ours.close()
        os.environ.update(_ONE_THREAD)
        with forks.leaving():
            imports.run_file(self._imports)
            modules = imports.remembered(self._directory, self._kind)
            trials.import_all(modules, its)
            its.send(trials.READY)
            its.close()
            nursery.Nursery(
                directory=self._directory,
                kind=self._kind,
                alive=alive,
                keeper=self._end[0],
                register=self._register,
                listener=listener,
                known={*modules, *imports.refused(self._directory, self._kind)},
            ).serve()
        raise AssertionError("unreachable")

    def _leave_nothing(self) -> None:
        """Remove what nobody else would: the directory, when the last of its nurseries ends."""
        while found := _children_of_this():  # the generations, then their children, whose stubs end with the family
            for pid in found:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
        self._register.tidy()
        for path in (*self._directory.glob(f"{self._kind}.*"), self._directory / socket_name(self._kind)):
            path.unlink(missing_ok=True)
        for directory in (*self._register.directories, self._directory):
            with contextlib.suppress(OSError):  # of another kind
                directory.rmdir()

    def _reap(self, woken: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(woken, 4096)
        for pid, status in forks.reaped():
            if pid in self._generations:
                self._ended[pid] = status
                forks.say(f"the nursery of {self._kind} models that was process {pid} {_how(status)}")
            self._generations.discard(pid)
            self._register.strike(pid)
            self._register.strike_own(pid)

    def _end_strays(self) -> None:
        """End what a child has started and left behind: it has nobody left to answer to.

        What became a child of this process has lost its parent. If it is a child of a nursery or one of its processes, it is in
        the register, and goes on. Anything else has a moment to clean up, as Python's resource tracker does.
        """
        for gone in {pid for pid in self._others if not self._register.knows(pid)}:
            self._others.discard(gone)
            self._register.strike(gone)
        now = time.monotonic()
        strays = {pid for pid in _children_of_this() if not self._register.knows(pid)} - self._generations
        self._strays = {pid: self._strays.get(pid, now) for pid in strays}
        for pid, since in self._strays.items():
            if now - since > _STRAY_GRACE_S:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _children_of_this() -> set[int]:
    try:
        return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
    except OSError:  # a kernel without that list
        return set()


def _poll_of(*descriptors: int | None) -> select.poll:
    poll = select.poll()
    for descriptor in descriptors:
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
    return poll


def _pidfd(pid: int) -> int | None:
    if not pid:
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        sys.exit(0)  # it has ended already


if __name__ == "__main__":
    main()

"""Imports that may go wrong: modules enter, a process that has imported them leaves, or the one that must not be imported.

What is imported is foreign code: it may start a thread, open a GPU, end the process or never return. So a process is forked for
it, which tells its parent what it comes to next. When it ends before it is ready, or takes too long, the parent knows why.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from . import imports
from .forks import check_warm, say

_WITHIN_S = 60.0  # that the import of one module may take: a package of transformers takes a second, from a slow disk more
_LONGEST_NAME = 4096
READY = b"\0"


def import_all(modules: Iterable[str], parent: socket.socket) -> list[str]:
    """In the forked process, which then says that it is ``READY``: those that could be imported. Raises ``NotWarm``."""
    found = []
    check_warm()
    for module in modules:
        parent.send(module.encode()[:_LONGEST_NAME])
        if imports.imported(module):
            found.append(module)
        check_warm()
    return found


@dataclass(slots=True, kw_only=True)
class Trial:
    """In its parent: how far the forked process is. ``wanted``: what it is to import."""

    pid: int
    socket: socket.socket
    wanted: list[str] = field(default_factory=list)
    within_s: float = _WITHIN_S
    ready: bool = False
    silent: bool = False  # it has closed its end, and ends, or has ended
    _module: str = ""
    _since: float = field(default_factory=time.monotonic)
    _was_late: bool = False

    def hear(self) -> None:
        """Read what it has said."""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while not self.ready and not self.silent:
                said = self.socket.recv(_LONGEST_NAME, socket.MSG_DONTWAIT)
                self.ready, self.silent = said == READY, not said
                if said != READY and said:
                    self._module, self._since = said.decode(errors="replace"), time.monotonic()

    @property
    def over(self) -> bool:
        """Nothing more will be heard."""
        return self.ready or self.silent

    def left_s(self) -> float | None:
        """Seconds until it is late; None where nothing is waited for."""
        if self.ready or not self._module or self._was_late:
            return None
        return max(0.0, self._since + self.within_s - time.monotonic())

    def end_if_late(self) -> None:
        """Kill it where one import takes too long."""
        self.hear()
        if self.left_s() == 0:
            self._was_late = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def culprit(self, status: int) -> str | None:
        """The module that ended it; None where somebody else has killed it, or it was at none. ``status``: of ``waitpid``."""
        self.hear()
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGTERM)
        return None if self.ready or (killed and not self._was_late) else self._module or None


def refuse_culprit(trial: Trial, status: int, directory: Path, kind: str) -> str | None:
    """The module that ended a forked process, which nobody imports any more, if it was one."""
    culprit = trial.culprit(status)
    if culprit is not None:
        say(f"models import {culprit} themselves from now on: that ends a nursery, makes it unfit to fork or takes too long")
        imports.refuse(directory, kind, culprit)
    return culprit

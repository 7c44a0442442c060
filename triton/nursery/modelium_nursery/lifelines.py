"""Two processes that end together: each holds one end of a socket, and the kernel kills the one when the other's end closes.

No thread watches and no interpreter has to run, so this also ends a process that hangs in foreign code. The signal is that of
asynchronous input (``F_SETSIG``, fcntl(2)), which the kernel also sends when the other end is closed.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket

_F_SETSIG = 10  # Linux's number; Python has no name for it


def hold(end: socket.socket) -> None:
    """From now on this process is killed (SIGKILL) when the other end closes. Nobody may ever write to it."""
    fcntl.fcntl(end, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(end, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(end, select.POLLIN)
    if poll.poll(0):  # it closed before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def let_go(end: socket.socket) -> None:
    """The other side may end from now on."""
    fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) & ~os.O_ASYNC)

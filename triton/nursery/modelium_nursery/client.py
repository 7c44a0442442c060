"""A stub's side of a birth: an order enters, a child with its sockets leaves, or None where there is no nursery.

Without one, the model is loaded in the stub. One that is still importing is waited for: it began earlier than the stub would.
So is one that does not even listen, as long as whoever starts the nurseries says that it is coming: a model that loads in its
stub meanwhile imports everything once more, and holds that until it is unloaded.
"""

from __future__ import annotations

import array
import json
import mmap
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from . import lifelines, orders, packets, places
from .packets import MOST_CANCELLABLE

_BORN_WITHIN_S = 60.0  # a fork takes some hundredths of a second; but the nursery may have to import vLLM first
_GONE_WITHIN_S = 10.0
_LOOK_S = 0.02
_BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from modelium_nursery.keeper import main; main()"


class Child(NamedTuple):
    """A process that was born for this one. ``cancelled`` has a byte for each request under way."""

    pid: int
    requests: socket.socket
    services: socket.socket
    cancelled: mmap.mmap
    life: socket.socket
    handle: int

    def let_go(self) -> None:
        """This process outlives it from now on."""
        lifelines.let_go(self.life)

    def end(self) -> None:
        """Kill it, and return when its memory is free, or when it could not be seen to end in ten seconds."""
        try:
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        except ProcessLookupError:
            return
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        poll.poll(_GONE_WITHIN_S * 1000)


def bear(kind: str, imports: str, make_order: Callable[[], orders.Birth], say: Callable[[str], None]) -> Child | None:
    """Ask the nursery of ``kind`` for a child. None: there is none; unless somebody else starts them, one is started then.

    ``imports``: the file that a nursery runs first.
    """
    server = os.getppid()
    directory = places.directory(server)
    if directory is None:
        return None
    try:
        order = make_order()  # first: a model on a slow disk must not keep the nursery waiting
        connection = reach(directory, kind)
    except (OSError, orders.Refused) as error:
        if places.managed():
            say(f"no nursery of {kind} models is there ({error}): the model is loaded in the stub")
        else:
            _start(directory, kind, imports, server, say)
        return None
    with connection:
        try:
            return _order(connection, order)
        except (OSError, ValueError, orders.Refused) as error:
            say(f"the nursery gave no child ({error}): the model is loaded in the stub")
            return None


def command_line(directory: Path, kind: str, imports: str, family: int = 0) -> list[str]:
    """What starts a nursery, but for the interpreter."""
    package = str(Path(__file__).resolve().parents[1])
    return ["-I", "-X", "utf8", "-c", _BOOT, package, str(directory), kind, imports, "--family", str(family)]


def reach(directory: Path, kind: str, within_s: float = _BORN_WITHIN_S) -> socket.socket:
    """A connection to the nursery of ``kind``. Raises ``OSError`` where there is none, and none is coming within that time."""
    until = time.monotonic() + within_s
    while True:
        try:
            return _connect(directory, kind)
        except (FileNotFoundError, ConnectionRefusedError):
            if not places.coming(directory, kind).exists() or time.monotonic() > until:
                raise
        time.sleep(_LOOK_S)


def _connect(directory: Path, kind: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with places.Reach(directory) as here:
            connection.connect(f"{here}/{places.socket_name(kind)}")
    except BaseException:
        connection.close()
        raise
    connection.settimeout(_BORN_WITHIN_S)
    orders.peer_of(connection)  # this user's, or it raises
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * orders.MOST_BYTES)
    return connection


def _order(connection: socket.socket, order: orders.Birth) -> Child:
    requests, its_requests = packets.pair()
    services, its_services = packets.pair()
    life, its_life = socket.socketpair()
    flags = os.memfd_create("modelium-cancelled", os.MFD_CLOEXEC)
    os.ftruncate(flags, MOST_CANCELLABLE)
    handed = [its_requests.fileno(), its_services.fileno(), its_life.fileno(), flags, 1, 2]
    try:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", handed))]
        connection.sendmsg([orders.write(order)], rights)
        answer = json.loads(connection.recv(1 << 16) or b'{"refused": "it has ended"}')
        if "pid" not in answer:
            raise orders.Refused(answer.get("refused", "no answer"))
        handle = os.pidfd_open(answer["pid"])
        cancelled = mmap.mmap(flags, MOST_CANCELLABLE)
    finally:
        os.close(flags)
        for end in (its_requests, its_services, its_life):
            end.close()
    lifelines.hold(life)  # from here on, this process ends with the child
    return Child(pid=answer["pid"], requests=requests, services=services, cancelled=cancelled, life=life, handle=handle)


def _start(directory: Path, kind: str, imports: str, server: int, say: Callable[[str], None]) -> None:
    import subprocess  # which most stubs do not need

    try:
        places.make_private(directory)
        subprocess.Popen(
            [sys.executable, *command_line(directory, kind, imports, server)],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        say(f"a nursery cannot be started: {error}")

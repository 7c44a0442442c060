"""What Triton (2.51) and the stubs of its python backend tell each other in shared memory: whether a model is still asked.

Triton's own part of an unload takes a second in which nothing happens: it waits until the model's last request is answered,
clears a stub's heartbeat, sleeps for a second, and takes the stub for well if that has set the heartbeat again (it does so
every 300 ms). Only then is the stub told to end. But from the moment in which the heartbeat is cleared, nobody asks the model
for anything: what needs no farewell may be ended at once. Triton clears it for each request too, so the queues between the two
say whether one is under way.

What enters: the process ids of a model. What leaves: whether Triton has let go of them.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_SHM = Path("/dev/shm")
# A stub's command line: itself, its file, the region's name, two sizes, Triton's id, the backend's directory, the place of what
# is shared for control, the instance, the runtime's directory.
_WORDS, _REGION, _SERVER, _PLACE, _INSTANCE = 10, 2, 5, 7, 8
# The region (python_backend r24.10, pb_utils.h and message_queue.h): each thing in it comes after its owner's count. Control:
# the heartbeat, three other flags, two mutexes, the places of the queues to the stub and to Triton. A queue: two semaphores and
# a mutex, its size, the place of its buffer, and how many messages were put into it, modulo its size.
_OWNER_BYTES = 16
_CONTROL = struct.Struct("=4B84xqq")
_QUEUE = struct.Struct("=104xQqi")
_SET, _CLEARED = b"\1", b"\0"
# A request between two queues of Triton's own is seen nowhere. It stays there for microseconds.
_QUIET_S = 0.01
_LOOK_EVERY_S = 0.001
# Of Triton's second, after a heartbeat was first seen cleared: the stub would have set it again within 300 ms.
_SURELY_S = 0.6


@dataclass(slots=True, kw_only=True)
class _Stub:
    """``traffic``: how many messages were put into both queues, at the last look. ``quiet_since``: when the heartbeat was first
    seen cleared with that."""

    descriptor: int
    control: int
    queues: tuple[int, int]
    traffic: tuple[int, int] = (0, 0)
    busy: bool = False
    quiet_since: float | None = None

    def renew(self) -> None:
        os.pwrite(self.descriptor, _SET, self.control)

    def end(self) -> None:
        os.pwrite(self.descriptor, _CLEARED, self.control)

    def look(self) -> None:
        """What was cleared for a request must not be taken for the end."""
        (size, to_stub), (_, to_triton) = (_read_queue(self.descriptor, place) for place in self.queues)
        known, was_busy = self.traffic, self.busy
        self.traffic = to_stub, to_triton
        # Both begin with two messages. A request is one to the stub, an answer to Triton, and a word to the stub about that.
        self.busy = (to_stub - 2 * to_triton + 2) % size != 0
        if self.traffic != known or self.busy:
            self.quiet_since = None
        if self.busy or (self.traffic != known and not was_busy):
            self.renew()
        elif self.quiet_since is None and os.pread(self.descriptor, 1, self.control) == _CLEARED:
            self.quiet_since = time.monotonic()

    def is_let_go(self) -> bool:
        return self.quiet_since is not None and time.monotonic() - self.quiet_since >= _QUIET_S


class Heartbeats:
    """Of the stubs of one copy of a model; a context that ends with their use."""

    def __init__(self, stubs: Iterable[_Stub] = ()) -> None:
        self._stubs = tuple(stubs)
        self._lock = threading.Lock()

    @classmethod
    def of(cls, pids: Iterable[int], server_pid: int | None) -> Heartbeats:
        """Without any where none can be seen, and where there is more than one copy: the end of which would be meant?"""
        stubs: dict[str, _Stub] = {}
        try:
            for pid in pids:
                words = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
                if len(words) <= _WORDS or words[_SERVER] != str(server_pid):
                    continue
                if words[_INSTANCE] in stubs:
                    raise ValueError(f"{words[_INSTANCE]} is there twice")
                stubs[words[_INSTANCE]] = _open(words[_REGION], int(words[_PLACE]))
        except (OSError, ValueError, struct.error):
            cls(stubs.values()).close()
            return cls()
        return cls(stubs.values())

    def __bool__(self) -> bool:
        return bool(self._stubs)

    def __enter__(self) -> Heartbeats:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def renew(self) -> None:
        """As the stubs do. Before the unload is asked for: in the first moments after a load they may not have done so yet."""
        for stub in self._stubs:
            stub.look()
            stub.renew()
            stub.quiet_since = None

    def let_go(self) -> bool:
        """Has Triton cleared one since they were renewed, and for no request? Then none is under way, and none will come.

        To be asked every few milliseconds. It can be missed all the same: the stub may set its heartbeat before anybody looks.
        """
        with self._lock:
            for stub in self._stubs:
                stub.look()
            return any(stub.is_let_go() for stub in self._stubs)

    def may_still_end(self) -> bool:
        """Is Triton's second so far from over that stubs which end now end before it asks them for a farewell? To be asked when
        it has let go of them."""
        quiet = [stub.quiet_since for stub in self._stubs if stub.quiet_since is not None]
        return bool(quiet) and time.monotonic() - min(quiet) < _SURELY_S

    def watch(self, within_s: float) -> bool:
        """``let_go()``, asked each millisecond; for a thread beside a busy loop, from before the unload is asked for."""
        until = time.monotonic() + within_s
        while not (gone := self.let_go()) and self._stubs and time.monotonic() < until:
            time.sleep(_LOOK_EVERY_S)
        return gone

    def end(self) -> None:
        """The stubs have ended: Triton would wait for ever for the farewell of one that it takes for well (measured)."""
        for stub in self._stubs:
            stub.end()

    def region_bytes(self) -> int:
        """What the regions take that Triton has not removed yet; it does when its second is over."""
        found = (os.fstat(stub.descriptor) for stub in self._stubs)
        return sum(each.st_blocks * 512 for each in found if each.st_nlink)

    def close(self) -> None:
        """Look no more, in whichever thread."""
        with self._lock:
            for stub in self._stubs:
                os.close(stub.descriptor)
            self._stubs = ()


def _open(region: str, place: int) -> _Stub:
    """Raises ``OSError``, and ``ValueError`` or ``struct.error`` where there is something else."""
    name = region.removeprefix("/")
    if not name or "/" in name:
        raise ValueError(f"{region!r} names no region")
    with contextlib.ExitStack() as closing:
        descriptor = os.open(_SHM / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        closing.callback(os.close, descriptor)
        control = place + _OWNER_BYTES
        *flags, to_stub, to_triton = _CONTROL.unpack(os.pread(descriptor, _CONTROL.size, control))
        queues = to_stub + _OWNER_BYTES, to_triton + _OWNER_BYTES
        sizes = {_read_queue(descriptor, queue)[0] for queue in queues}
        if any(flag not in (0, 1) for flag in flags) or len(sizes) != 1 or not 4 <= sizes.pop() <= 1_000_000:
            raise ValueError(f"{region!r} has something else there")
        closing.pop_all()
    return _Stub(descriptor=descriptor, control=control, queues=queues)


def _read_queue(descriptor: int, place: int) -> tuple[int, int]:
    """Its size, and how many messages were put into it."""
    size, _, put = _QUEUE.unpack(os.pread(descriptor, _QUEUE.size, place))
    return size, put

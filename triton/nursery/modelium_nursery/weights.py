"""Files of weights in memory, once for all children that use the same file.

A nursery knows files by device, inode, size and time of change, and gives each an empty file in memory (``Shelf``); it never
opens a model's file. The first child that needs the weights copies them there and seals it (``fill``); from then on nobody can
change it: neither a child, nor whoever writes over or cuts the file on disk. It goes with the last child that uses it.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from .folders import LONGEST_HEADER

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_PIECE = 1 << 26
_AT_ONCE = 100  # descriptors in one message; the kernel takes 253
_MOST_PACKET = 1 << 17
_NO_MORE = b"[]"
_USED_AS_THEY_ARE = frozenset({"F32", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"})

Identity = tuple[int, int, int, int, int]


@dataclass(slots=True)
class _Shared:
    descriptor: int
    users: set[int] = field(default_factory=set)


class Shelf:
    """A nursery's: file of weights → file in memory, and which children use it."""

    def __init__(self) -> None:
        self._shared: dict[Identity, _Shared] = {}

    def reserve(self, paths: Iterable[str]) -> dict[str, tuple[Identity, int]]:
        """A descriptor for each file that is there; a child of this process inherits them."""
        found = {}
        for path in paths:
            try:
                identity = identity_of(os.stat(path))  # noqa: PTH116 - the nursery imports as little as it can
            except OSError:
                continue
            if identity not in self._shared:
                file = os.memfd_create("modelium-weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
                self._shared[identity] = _Shared(file)
            found[path] = identity, self._shared[identity].descriptor
        return found

    def send(self, to: socket.socket) -> None:
        """To another process, which goes on from here."""
        entries = list(self._shared.items())
        for at in range(0, len(entries), _AT_ONCE):
            part = entries[at : at + _AT_ONCE]
            text = json.dumps([[identity, sorted(shared.users)] for identity, shared in part]).encode()
            files = array.array("i", [shared.descriptor for _, shared in part])
            to.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        to.send(_NO_MORE)

    @classmethod
    def receive(cls, of: socket.socket) -> Shelf:
        """What another process has sent. Raises ``EOFError`` when that has ended."""
        shelf, room = cls(), socket.CMSG_SPACE(_AT_ONCE * array.array("i").itemsize)
        while (packet := of.recvmsg(_MOST_PACKET, room))[0] != _NO_MORE:
            text, rights, *_ = packet
            if not text:
                raise EOFError
            files = [one for _, kind, data in rights if kind == socket.SCM_RIGHTS for one in array.array("i", data)]
            for (identity, users), descriptor in zip(json.loads(text), files, strict=True):
                os.set_inheritable(descriptor, False)
                shelf._shared[tuple(identity)] = _Shared(descriptor, set(users))
        return shelf

    def use(self, identities: Iterable[Identity], child: int) -> None:
        """The child was born with them."""
        for identity in identities:
            self._shared[identity].users.add(child)

    def forget(self, child: int) -> None:
        """It has ended. What nobody uses any more goes."""
        for shared in self._shared.values():
            shared.users.discard(child)
        self.clear()

    def close(self) -> None:
        """Let go of everything: of a copy of this process."""
        for shared in self._shared.values():
            os.close(shared.descriptor)
        self._shared.clear()

    @property
    def users(self) -> frozenset[int]:
        """The children that use something here."""
        return frozenset().union(*(shared.users for shared in self._shared.values()))

    def clear(self) -> None:
        """Let go of what has no user."""
        for identity, shared in list(self._shared.items()):
            if not shared.users:
                os.close(shared.descriptor)
                del self._shared[identity]


def identity_of(seen: os.stat_result) -> Identity:
    """What tells a file from any other, and from itself after a change."""
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def fill(path: str, identity: Identity, descriptor: int) -> bool:
    """Make the file in memory hold the bytes of ``path``; waits while another child does. False: the file has changed.

    Raises ``OSError`` when it cannot be read, or memory is short; the next child tries again.
    """
    fcntl.lockf(descriptor, fcntl.LOCK_EX)  # a lock of the process: whoever dies while it fills gives it up
    try:
        if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE:
            return True
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            whole = identity_of(os.fstat(source)) == identity and _copied(source, descriptor, identity[2])
            whole = whole and identity_of(os.fstat(source)) == identity
        finally:
            os.close(source)
        if whole:
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        return whole
    finally:
        if not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE:
            os.ftruncate(descriptor, 0)  # a part of it would only take memory
        fcntl.lockf(descriptor, fcntl.LOCK_UN)


def _copied(source: int, target: int, size: int) -> bool:
    os.ftruncate(target, 0)
    os.lseek(target, 0, os.SEEK_SET)
    while size:
        copied = os.sendfile(target, source, None, min(size, _PIECE))
        if not copied:
            return False
        size -= copied
    return True


class Shares:
    """A child's: the files whose bytes it takes from memory. They are filled by a thread from the start, beside the imports.

    Only files that are used as they are: others are converted when they are loaded, and a second copy would be a waste.
    """

    def __init__(self, reserved: dict[str, tuple[Identity, int]]) -> None:
        self._reserved = {path: at for path, at in reserved.items() if is_used_as_it_is(path)}
        self._filled: set[str] = set()
        self._filler = threading.Thread(target=self._fill_all, name="weights", daemon=True)
        if self._reserved:
            self._filler.start()

    def path_of(self, path: str) -> str | None:
        """Where the bytes of a file of weights are to be mapped from; None: from the file itself."""
        if path not in self._reserved:
            return None
        self._filler.join()
        return f"/proc/self/fd/{self._reserved[path][1]}" if path in self._filled else None

    def _fill_all(self) -> None:
        for path, (identity, descriptor) in self._reserved.items():
            with contextlib.suppress(OSError):
                if fill(path, identity, descriptor):
                    self._filled.add(path)


def is_used_as_it_is(path: str) -> bool:
    """Does its header say that every number with a fraction in a safetensors file is a float32, which is what models compute
    with on the host?"""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            length = int.from_bytes(file.read(8), "little")
            if length > LONGEST_HEADER:
                return False
            header = json.loads(file.read(length))
        kinds = {one["dtype"] for name, one in header.items() if name != "__metadata__"}
        return "F32" in kinds and kinds <= _USED_AS_THEY_ARE
    except (OSError, ValueError, RecursionError, AttributeError, TypeError, KeyError):
        return False

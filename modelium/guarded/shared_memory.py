"""Shared memory that Triton shows to every user: the names that a run gives its files enter, files that only their owner may
open leave.

Triton's python backend makes them with the rights 0644 and sets those after the fact, so that no umask helps (Boost's
``shared_memory_object``). They hold what is asked and answered. The kernel tells of each file in ``/dev/shm``; what the
guardian then closes was open for the fraction of a millisecond. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

_SHM = "/dev/shm"
_IN_ATTRIB, _IN_CREATE = 0x4, 0x100
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name behind it


class PrivateMemory:
    """A watch over ``/dev/shm``: ``descriptor`` is readable when ``close_new`` has something to do; None for no watch."""

    def __init__(self, libc: ctypes.CDLL, prefix: str) -> None:
        self._prefix = prefix.encode()
        self.descriptor: int | None = None
        if prefix:
            descriptor = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
            if descriptor >= 0 and libc.inotify_add_watch(descriptor, _SHM.encode(), _IN_CREATE | _IN_ATTRIB) >= 0:
                self.descriptor = descriptor

    def close_new(self) -> None:
        """Take the rights of others from what was made, or opened to them, since the last time."""
        names: set[bytes] = set()
        while self.descriptor is not None:
            try:
                events = os.read(self.descriptor, 65_536)
            except BlockingIOError:
                break
            at = 0
            while at < len(events):
                *_, length = _EVENT.unpack_from(events, at)
                at += _EVENT.size
                names.add(events[at : at + length].rstrip(b"\0"))
                at += length
        for name in names:
            if name.startswith(self._prefix):
                with contextlib.suppress(OSError):
                    _close(f"{_SHM}/{os.fsdecode(name)}")


def _close(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        seen = os.fstat(descriptor)
        if seen.st_uid == os.getuid() and seen.st_mode & 0o077:
            os.fchmod(descriptor, seen.st_mode & 0o700)
    finally:
        os.close(descriptor)

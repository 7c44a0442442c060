"""What one Modelium alone may use: a file to lock enters, a descriptor that holds it leaves, or who holds it.

The lock is the kernel's: it ends with the process, however that ends. The file says whose it is.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from pathlib import Path

_log = logging.getLogger(__name__)


class Held(Exception):
    """By another process; its words say which."""


def claim(file: Path) -> int:
    """A descriptor: whoever closes it lets go. Raises ``Held``, ``OSError`` where the file cannot be made or opened."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        _lock(descriptor, file)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int, file: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 200).decode("utf-8", "replace").strip()
        raise Held(holder or "which has just started") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        _log.warning("%s is on a file system without locks: see to it that only one Modelium uses it", file.parent)

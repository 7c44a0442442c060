"""One Modelium a model repository: what enters is the repository, what leaves is a lock in it, or who holds it.

The lock lies in the repository, wherever each Modelium keeps its state. It is the kernel's: it ends with the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from modelium.errors import ConfigError

_log = logging.getLogger(__name__)

LOCK = ".modelium.lock"


@contextlib.contextmanager
def claim_repository(repository: Path) -> Iterator[None]:
    """Hold the repository, made where it is missing. Raises ``ConfigError`` when another process holds it."""
    try:
        repository.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(repository / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise ConfigError(
            f"triton.model_repository: {repository} cannot be used ({error.strerror}): give this user the right to write "
            "there, or choose another"
        ) from error
    try:
        _lock(descriptor, repository)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, repository: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 200).decode("utf-8", "replace").strip()
        raise ConfigError(
            f"another Modelium ({holder or 'which has just started'}) uses the model repository {repository}: end it, or "
            "choose another with triton.model_repository"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        _log.warning("%s is on a file system without locks: see to it that only one Modelium uses it", repository)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

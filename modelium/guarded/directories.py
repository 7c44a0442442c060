"""Directories of Modelium's own: a path enters, a directory that no other user may look into leaves."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_PRIVATE = 0o700


def make_private(directory: Path) -> None:
    """Make it (what is above it as the umask says). One of this user's that was there is closed to others; somebody else's,
    which this user may write to, stays as its owner wants it."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=_PRIVATE, exist_ok=True)
    seen = directory.stat()
    if seen.st_uid == os.getuid() and seen.st_mode & 0o077:
        with contextlib.suppress(OSError):  # a file system without rights
            directory.chmod(_PRIVATE)

"""The files of a model's weights, read into the page cache before anybody needs them: a profile enters, bytes leave.

The kernel reads them (``posix_fadvise``), and drops them again when the memory is needed for something else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from pathlib import Path, PurePosixPath

from modelium.values import ModelProfile

_PIECE_BYTES = 32 * 2**20  # between which reading can be broken off
_ADVICE_BYTES = 128 * 2**10  # of a longer stretch the kernel reads only the beginning (its own read-ahead is that long)


def find_files(profile: ModelProfile, root: Path) -> dict[Path, int]:
    """The files that the analysis named, with their sizes, in the order of reading: regular files that lie below ``root``, also
    where links lead to them. What is not there any more, or never was, is left out. Blocking."""
    top = os.path.realpath(root)
    found = {}
    folder = profile.path.parent if profile.path.is_file() else profile.path
    for name in profile.weight_files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            continue
        with contextlib.suppress(OSError, ValueError):  # ValueError: a name that no file can have
            real = Path(os.path.realpath(folder / name, strict=True))
            seen = real.lstat()
            if stat.S_ISREG(seen.st_mode) and real.is_relative_to(top):
                found[real] = seen.st_size
    return found


async def read_ahead(files: dict[Path, int]) -> None:
    """Have the kernel read as much of them as is said. Those that cannot be opened are left out. Can be cancelled."""
    for path, size in files.items():
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                for at in range(0, min(size, os.fstat(descriptor).st_size), _PIECE_BYTES):
                    await asyncio.to_thread(_advise, descriptor, at)
            finally:
                os.close(descriptor)


def _advise(descriptor: int, begin: int) -> None:
    for at in range(begin, begin + _PIECE_BYTES, _ADVICE_BYTES):
        os.posix_fadvise(descriptor, at, _ADVICE_BYTES, os.POSIX_FADV_WILLNEED)

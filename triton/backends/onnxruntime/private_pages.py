"""Make the pages of mapped files this process's own, at the addresses where they are.

What enters: a directory. What leaves: nothing; afterwards no file in it is mapped any more. onnxruntime maps external data and
computes on the file's pages: who writes over the file changes the answers, and who cuts it ends the process (SIGBUS).
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mremap.restype = ctypes.c_void_p
_libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]


def own(directory: Path) -> int:
    """Copy what is mapped privately of files below ``directory``, and put each copy in the mapping's place.

    Nothing may write to those pages meanwhile. The number of bytes is returned.
    """
    below = os.fsencode(os.path.realpath(directory)) + b"/"
    total = 0
    for line in Path("/proc/self/maps").read_bytes().splitlines():
        words = line.split(maxsplit=5)
        if len(words) < 6 or not words[5].startswith(below) or not words[1].startswith(b"r") or words[1][2:] != b"-p":
            continue
        start, end = (int(address, 16) for address in words[0].split(b"-"))
        _replace(start, end - start)
        total += end - start
    return total


def _replace(start: int, size: int) -> None:
    copy = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if copy == _FAILED:
        raise MemoryError(f"no memory for {size} bytes of weights: {os.strerror(ctypes.get_errno())}")
    ctypes.memmove(copy, start, size)
    if _libc.mremap(copy, size, size, _MREMAP_MAYMOVE | _MREMAP_FIXED, start) == _FAILED:
        raise OSError(ctypes.get_errno(), f"{size} bytes of weights cannot be moved: {os.strerror(ctypes.get_errno())}")

"""Files of weights in memory, once for all children that use the same file, or one of the same bytes.

The first child that needs the weights copies them there and seals the file (``fill``); from then on nobody can change it:
neither a child, nor whoever writes over or cuts the file on disk. Whoever has another file compares it with what is there, byte
by byte, and uses that only if it is the same (``is_same``): no child has to believe what another one says of a file.
"""

from __future__ import annotations

import fcntl
import json
import os

from .folders import LONGEST_HEADER

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_PIECE = 1 << 26
_COMPARED = 1 << 16  # bytes at a time; larger blocks would stay with the process
_SAMPLES, _SAMPLE = 16, 4096  # places that are compared first, and bytes of each
_USED_AS_THEY_ARE = frozenset({"F32", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"})

Identity = tuple[int, int, int, int, int]


def identity_of(seen: os.stat_result) -> Identity:
    """What tells a file from any other, and from itself after a change."""
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def fill(path: str, identity: Identity, descriptor: int) -> bool:
    """Make the file in memory hold the bytes of ``path``; waits while another child does. False: the file has changed.

    Raises ``OSError`` when it cannot be read, or memory is short; the next child tries again.
    """
    fcntl.lockf(descriptor, fcntl.LOCK_EX)  # a lock of the process: whoever dies while it fills gives it up
    try:
        if is_full(descriptor):
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
        if not is_full(descriptor):
            os.ftruncate(descriptor, 0)  # a part of it would only take memory
        fcntl.lockf(descriptor, fcntl.LOCK_UN)


def is_full(descriptor: int) -> bool:
    """Was it filled to its end, so that nobody can change it any more?"""
    return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS == _SEALS


def is_same(path: str, identity: Identity, descriptor: int) -> bool:
    """Does a full file in memory hold the bytes of ``path``? Raises ``OSError`` when that cannot be read."""
    size = identity[2]
    if not is_full(descriptor) or os.fstat(descriptor).st_size != size:
        return False
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        last = max(0, size - _SAMPLE)
        samples = {last * number // (_SAMPLES - 1) for number in range(_SAMPLES)}
        if any(os.pread(source, _SAMPLE, at) != os.pread(descriptor, _SAMPLE, at) for at in samples):
            return False
        ours, its = bytearray(_COMPARED), bytearray(_COMPARED)
        for at in range(0, size, _COMPARED):
            whole = min(_COMPARED, size - at)
            if os.preadv(source, [ours], at) != whole or os.preadv(descriptor, [its], at) != whole or ours != its:
                return False
        return identity_of(os.fstat(source)) == identity
    finally:
        os.close(source)


def _copied(source: int, target: int, size: int) -> bool:
    os.ftruncate(target, 0)
    os.lseek(target, 0, os.SEEK_SET)
    while size:
        copied = os.sendfile(target, source, None, min(size, _PIECE))
        if not copied:
            return False
        size -= copied
    return True


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

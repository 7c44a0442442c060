"""Arrays as messages carry them: names and arrays enter, descriptions and buffers leave, and back.

Arrays of strings are arrays of ``bytes`` objects, as Triton's python backend has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .packets import Buffer

_SMALL = 1 << 12  # bytes; to copy these is faster than to refer to them
Described = list[Any]  # name, type of an element ("" for strings), shape, and for strings the length of each


def pack(named: Iterable[tuple[str, np.ndarray]], buffers: list[Buffer]) -> list[Described]:
    """Describe the arrays, and add their bytes to ``buffers``: of all of them, or of none if one cannot be had."""
    described: list[Described] = []
    packed: list[Buffer] = []
    for name, given in named:
        if given.dtype == np.object_ or given.dtype.kind in "SU":
            texts = [_encoded(one) for one in given.reshape(-1).tolist()]
            described.append([name, "", list(given.shape), [len(text) for text in texts]])
            packed.append(texts[0] if len(texts) == 1 else b"".join(texts))
        elif given.nbytes <= _SMALL:
            described.append([name, given.dtype.str, list(given.shape)])
            packed.append(given.tobytes())
        else:
            whole = np.ascontiguousarray(given)  # which makes one dimension of none
            described.append([name, given.dtype.str, list(given.shape)])
            packed.append(whole.reshape(-1).view(np.uint8).data)
    buffers += packed
    return described


def unpack(described: Iterable[Described], buffers: Iterator[memoryview]) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays again; they may be written to. Numbers are not copied out of ``buffers``."""
    for name, kind, shape, *lengths in described:
        buffer = next(buffers)
        if kind:
            yield name, np.frombuffer(buffer, dtype=np.dtype(kind)).reshape(shape)
            continue
        texts = np.empty(math.prod(shape), dtype=np.object_)
        at = 0
        for number, length in enumerate(lengths[0]):
            texts[number] = bytes(buffer[at : at + length])
            at += length
        yield name, texts.reshape(shape)


def _encoded(text: Any) -> bytes:
    """As Triton's own ``serialize_byte_tensor``."""
    return text if isinstance(text, bytes) else str(text).encode()

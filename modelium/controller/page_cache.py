"""The files of a model's weights, read into the page cache before anybody needs them: a profile enters, bytes leave.

The kernel reads them (``posix_fadvise``), and drops them again when the memory is needed for something else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from modelium.values import ModelProfile, WeightFormat

_PIECE_BYTES = 32 * 2**20  # between which reading can be broken off
_ADVICE_BYTES = 128 * 2**10  # of a longer stretch the kernel reads only the beginning (its own read-ahead is that long)
_LONGEST_INDEX = 100 * 2**20
_NAMED = {WeightFormat.SAFETENSORS: "model.safetensors", WeightFormat.PICKLE: "pytorch_model.bin"}


def weight_files(profile: ModelProfile, root: Path) -> dict[Path, int]:
    """Its files of weights with their sizes, in the order of reading: regular files that lie below ``root``, also where links
    lead to them. None where it is not known which they are. Blocking."""
    found = {}
    for path in _named(profile):
        with contextlib.suppress(OSError):
            real = path.resolve(strict=True)
            seen = real.lstat()
            if stat.S_ISREG(seen.st_mode) and real.is_relative_to(root.resolve()):
                found[real] = seen.st_size
    return found


async def read_ahead(files: dict[Path, int]) -> None:
    """Have the kernel read them. Those that cannot be opened are left out. Can be cancelled."""
    for path in files:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                for at in range(0, os.fstat(descriptor).st_size, _PIECE_BYTES):
                    await asyncio.to_thread(_advise, descriptor, at)
            finally:
                os.close(descriptor)


def _advise(descriptor: int, begin: int) -> None:
    for at in range(begin, begin + _PIECE_BYTES, _ADVICE_BYTES):
        os.posix_fadvise(descriptor, at, _ADVICE_BYTES, os.POSIX_FADV_WILLNEED)


def _named(profile: ModelProfile) -> Iterator[Path]:
    if profile.path.is_file():
        yield profile.path
    elif profile.weight_format is WeightFormat.ONNX and profile.onnx_file:
        yield profile.path / profile.onnx_file
    elif (name := _NAMED.get(profile.weight_format)) is not None:
        yield from _parts(profile.path, name)


def _parts(folder: Path, name: str) -> Iterator[Path]:
    """The one file, or those that its index names."""
    if (folder / name).exists():
        yield folder / name
        return
    index = folder / f"{name}.index.json"
    with contextlib.suppress(OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        if index.stat().st_size <= _LONGEST_INDEX:
            names = {part for part in json.loads(index.read_bytes())["weight_map"].values() if isinstance(part, str)}
            yield from (folder / part for part in sorted(names))

"""What processes hold of the host's memory. Process ids enter, bytes leave.

Reading a process is a walk through its page tables, which holds up that process: each is read once by one ``Scales``.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_MEMFD = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ (\d+) +/memfd:", re.MULTILINE)
_SHARE = frozenset({b"Pss:", b"SwapPss:"})
_PRIVATE = frozenset({b"Private_Clean:", b"Private_Dirty:", b"SwapPss:"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rollup:
    """``share_bytes``: of all that it maps, each page divided by those who map it. ``private_bytes``: what nobody else maps.
    ``shared_memory_bytes``: its share of files in memory, private ones included. Both with what is swapped out."""

    share_bytes: int = 0
    private_bytes: int = 0
    shared_memory_bytes: int = 0


class Scales:
    """What processes hold, at one moment. ``born``: those that were forked by ``nursery``, and what these have started (an
    engine is a fork of one)."""

    def __init__(self, *, born: Collection[int] = (), nursery: Collection[int] = ()) -> None:
        self.born = frozenset(born)
        self._nursery = frozenset(nursery)
        self._rollups: dict[int, _Rollup] = {}

    def weigh(self, pids: Iterable[int]) -> int:
        """Of processes together: proportional set sizes, so a page that n processes share counts 1/n in each.

        Of who was born in the nursery, only what it has for itself: its private pages, and of weights in files in memory
        (memfd) the n-th part where n models use them, whether it has touched them or not. What it shares with the nursery is
        the nursery's.
        """
        return sum(self._born_bytes(pid) if pid in self.born else self._rollup(pid).share_bytes for pid in pids)

    def weigh_nursery(self) -> int:
        """What the nursery holds, alone or together with those who were born there."""
        own = sum(self._rollup(pid).share_bytes for pid in self._nursery)
        return own + sum(max(0, self._shared_with_nursery(pid)) for pid in self.born)

    def _born_bytes(self, pid: int) -> int:
        rollup = self._rollup(pid)
        return self._own_bytes(pid) + max(rollup.shared_memory_bytes, self._weights[pid].share)

    def _own_bytes(self, pid: int) -> int:
        """Private pages, without those of files in memory."""
        rollup = self._rollup(pid)
        return rollup.private_bytes - min(rollup.shared_memory_bytes, self._weights[pid].alone, rollup.private_bytes)

    def _shared_with_nursery(self, pid: int) -> int:
        rollup = self._rollup(pid)
        return rollup.share_bytes - rollup.shared_memory_bytes - self._own_bytes(pid)

    def _rollup(self, pid: int) -> _Rollup:
        found = self._rollups.get(pid)
        if found is None:
            found = self._rollups[pid] = _read_rollup(pid)
        return found

    @cached_property
    def _weights(self) -> dict[int, _Weights]:
        """By process, also of the nursery's own: one that maps weights shares them."""
        files = {pid: _memory_files(pid) for pid in self.born | self._nursery}
        users = Counter(inode for mapped in files.values() for inode in mapped)
        return {
            pid: _Weights(
                alone=sum(size for inode, size in mapped.items() if users[inode] == 1),
                share=sum(size // users[inode] for inode, size in mapped.items()),
            )
            for pid, mapped in files.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weights:
    """Files in memory that a process maps. ``alone``: those that no other one maps; ``share``: of all of them its part."""

    alone: int
    share: int


def resident_bytes(pids: Iterable[int]) -> int:
    """Memory of processes together: proportional set sizes, so a page that n processes share counts 1/n in each."""
    return Scales().weigh(pids)


def unshared_bytes(pids: Iterable[int]) -> int:
    """What these processes have of memory that no file backs. Unlike proportional sizes it does not change when another one
    that maps the same libraries ends."""
    return sum(_unshared_bytes(pid) for pid in pids)


def _read_rollup(pid: int) -> _Rollup:
    share = private = shared_memory = 0
    try:
        with Path(f"/proc/{pid}/smaps_rollup").open("rb") as rollup:
            next(rollup, None)  # the addresses
            for line in rollup:
                name, size, *_ = line.split()
                if name in _SHARE:
                    share += int(size) * 1024
                if name in _PRIVATE:
                    private += int(size) * 1024
                elif name == b"Pss_Shmem:":
                    shared_memory = int(size) * 1024
    except PermissionError:  # another user's, or a hardened kernel
        size_ = _resident_bytes(pid)
        return _Rollup(share_bytes=size_, private_bytes=size_)
    except OSError:
        return _Rollup()
    return _Rollup(share_bytes=share, private_bytes=private, shared_memory_bytes=shared_memory)


def _memory_files(pid: int) -> dict[int, int]:
    """Inode → how much of it is mapped; a part that is mapped twice counts once."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_bytes()
    except OSError:
        return {}
    parts: dict[int, set[tuple[int, int]]] = {}
    for begin, end, offset, inode in _MEMFD.findall(maps):
        parts.setdefault(int(inode), set()).add((int(offset, 16), int(end, 16) - int(begin, 16)))
    return {inode: _union(found) for inode, found in parts.items()}


def _union(parts: Iterable[tuple[int, int]]) -> int:
    total = reached = 0
    for offset, size in sorted(parts):
        total += max(0, offset + size - max(reached, offset))
        reached = max(reached, offset + size)
    return total


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGESIZE")


def _unshared_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_bytes().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith((b"RssAnon:", b"RssShmem:", b"VmSwap:")))

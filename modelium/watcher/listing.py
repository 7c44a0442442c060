"""One directory as it is now: what enters is a path, what leaves are its names, and marks that tell when a file changed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

_PARTIAL_SUFFIXES = (".incomplete", ".part", ".partial", ".tmp", ".crdownload", ".aria2")
_IGNORED_SUFFIXES = (*_PARTIAL_SUFFIXES, ".lock", "~")
# What other tools leave: macOS' archives, python, file systems, Windows, Synology.
_LITTER = frozenset(
    {"__MACOSX", "__pycache__", "lost+found", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "#recycle"}
)

MOST_ENTRIES = 5_000
# A directory changed this lately may change again within one tick of its clock, so its mtime proves nothing yet.
_FRESH_NS = 2_000_000_000


def is_ignored(name: str) -> bool:
    """Names that are never a model nor a part of one: hidden, lock files, downloads under way, other tools' litter."""
    return name.startswith(".") or name.endswith(_IGNORED_SUFFIXES) or name in _LITTER


@dataclass(frozen=True, slots=True)
class Listing:
    """One directory. ``links`` are symlinks to directories: named, never descended into (loops, ways out)."""

    mtime_ns: int
    files: list[str]
    directories: list[str]
    links: list[str]
    partials: list[str]


def list_directory(path: str) -> Listing:
    """Raises ``OSError``. Not sorted."""
    listing = Listing(os.stat(path).st_mtime_ns, [], [], [], [])  # the mtime first: a change meanwhile is seen next time
    with os.scandir(path) as entries:
        for count, entry in enumerate(entries):
            name = entry.name
            if count >= MOST_ENTRIES:
                break
            if name.endswith(_PARTIAL_SUFFIXES) and not name.startswith("."):
                listing.partials.append(name)
            elif is_ignored(name):
                continue
            elif entry.is_symlink():
                (listing.links if leads_to_directory(entry) else listing.files).append(name)
            elif entry.is_dir():
                listing.directories.append(name)
            elif entry.is_file():
                listing.files.append(name)
    return listing


def leads_to_directory(entry: os.DirEntry[str]) -> bool:
    """Is it a directory, or a link to one?"""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def marks_of(files: Iterable[str]) -> list[int]:
    """Size, mtime and ctime of each file, links followed; ctime catches a rewrite that puts the old mtime back."""
    stat = os.stat
    marks: list[int] = []
    for path in files:
        try:
            status = stat(path)
        except OSError:
            marks += (-1, 0, 0)  # a link to nothing, or gone since
        else:
            marks += (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return marks


def size_of(path: str) -> int:
    """In bytes; 0 for what is gone."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def mtime_ns(path: str) -> int:
    """0 for what is gone."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def is_fresh(changed_ns: int, now_ns: int) -> bool:
    """Was it changed so lately that a second change may have the same time?"""
    return now_ns - changed_ns < _FRESH_NS

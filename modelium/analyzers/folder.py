"""What lies in a folder: names, sizes and small contents, nothing that leaves the watch directory.

What enters: a candidate's path and the root that it must not leave. What leaves: a ``Folder``. Only regular files count
(a FIFO would block whoever opens it); hidden files and copies under way are set apart, they are never taken for
weights.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from modelium.analyzers.verdict import NotYet, Rejected, not_whole
from modelium.sizes import human_bytes

MAX_FILES = 20_000
MAX_DEPTH = 3
_IN_FLIGHT_ENDINGS = (
    ".incomplete",
    ".part",
    ".partial",
    ".filepart",
    ".tmp",
    ".temp",
    ".crdownload",
    ".download",
    ".aria2",
    ".lock",
    ".swp",
    "~",
)
_LFS_MAGIC = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A regular file: ``name`` is relative to the folder, with forward slashes; links are followed."""

    name: str
    path: str
    size: int
    mtime_ns: int

    def open(self) -> BinaryIO:
        """For reading; the caller closes it. Raises ``OSError``."""
        return Path(self.path).open("rb")


def is_in_flight(name: str) -> bool:
    """Hidden files, lock files and the endings that downloaders give to what is not whole yet."""
    return name.startswith(".") or name.endswith(_IN_FLIGHT_ENDINGS)


class Folder:
    """The files of one folder, read once: two questions about one file are answered from the same bytes."""

    __slots__ = ("_contents", "files", "in_flight", "path")

    def __init__(self, path: str, files: dict[str, File], in_flight: dict[str, File]) -> None:
        self.path = path
        self.files = files
        self.in_flight = in_flight
        self._contents: dict[str, bytes] = {}

    def get(self, name: str) -> File | None:
        """The file of that name below the folder, None where there is none."""
        return self.files.get(name)

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def names(self) -> Iterator[str]:
        """Of all files, relative to the folder."""
        return iter(self.files)

    def named(self, *endings: str) -> list[str]:
        """Names at the top of the folder with one of these endings, sorted."""
        return sorted(name for name in self.files if "/" not in name and name.endswith(endings))

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Contents of a listed file; too large a one is refused, a git-lfs pointer is not whole."""
        cached = self._contents.get(name)
        if cached is not None:
            return cached
        file = self.files[name]
        if file.size > limit_bytes:
            size, limit = human_bytes(file.size), human_bytes(limit_bytes)
            raise Rejected(f"{name} has {size}; no model needs more than {limit} there", "is it the right file?")
        with file.open() as stream:
            data = stream.read(limit_bytes + 1)
        refuse_lfs_pointer(file, data)
        self._contents[name] = data
        return data


def refuse_lfs_pointer(file: File, head: bytes) -> None:
    """A clone without git-lfs holds pointers of ~130 bytes where the weights belong; ``git lfs pull`` completes it."""
    if file.size < 1024 and head.startswith(_LFS_MAGIC):
        sizes = [line[5:] for line in head.decode("ascii", "replace").splitlines() if line.startswith("size ")]
        expected = int(sizes[0]) if sizes and sizes[0].isascii() and sizes[0].isdigit() and len(sizes[0]) < 20 else None
        raise not_whole(file.name, 0, expected, "only a git-lfs pointer is here: run `git lfs pull` in the folder it came from")


def list_folder(path: Path, root: Path) -> Folder:
    """List ``path`` to a depth of three. Raises ``Rejected`` where a link leaves ``root``, ``NotYet`` where it has vanished."""
    top, inside = os.fspath(path), _inside(root)
    if not (os.path.realpath(top) + os.sep).startswith(inside):
        raise _leaves(path.name, os.path.realpath(top), root)
    files: dict[str, File] = {}
    in_flight: dict[str, File] = {}
    pending = [(top, "", 0)]
    while pending:
        directory, prefix, depth = pending.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                name = prefix + entry.name
                hidden = is_in_flight(entry.name)
                linked = entry.is_symlink()
                if linked and not hidden:
                    target = os.path.realpath(entry.path)
                    if not (target + os.sep).startswith(inside):
                        raise _leaves(name, target, root)
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    if linked and not hidden:
                        raise not_whole(name, 0, detail="what the link points to is not there yet") from None
                    continue
                if stat.S_ISDIR(status.st_mode):
                    if not hidden and depth + 1 < MAX_DEPTH:
                        pending.append((entry.path, name + "/", depth + 1))
                elif stat.S_ISREG(status.st_mode):
                    found = File(name=name, path=entry.path, size=status.st_size, mtime_ns=status.st_mtime_ns)
                    (in_flight if hidden else files)[name] = found
                if len(files) + len(in_flight) > MAX_FILES:
                    raise Rejected(f"more than {MAX_FILES} files", "drop the folder of one model, not a collection")
    # aria2 writes into the file itself, at its full size from the start, and keeps NAME.aria2 beside it until it is done.
    for name in list(in_flight):
        if name.endswith(".aria2") and name[:-6] in files:
            in_flight[name[:-6]] = files.pop(name[:-6])
    return Folder(top, files, in_flight)


def file_of(path: Path, root: Path) -> File:
    """A model that is a single file."""
    target = os.path.realpath(path)
    if not (target + os.sep).startswith(_inside(root)):
        raise _leaves(path.name, target, root)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Rejected(f"{path.name} is not a regular file")
    return File(name=path.name, path=os.fspath(path), size=status.st_size, mtime_ns=status.st_mtime_ns)


def refuse_preallocated(file: File, head: bytes) -> None:
    """Some tools reserve the whole file first and fill it later: its head is zeros until then."""
    if head and not any(head):
        part = not_whole(file.name, 0, file.size, "reserved on disk, still zeros").missing
        raise NotYet(
            f"{file.name}: reserved on disk, still zeros", *part, hint_when_stale="copy the file again: it holds only zeros"
        )


def _inside(root: Path) -> str:
    real = os.path.realpath(root)
    return real if real.endswith(os.sep) else real + os.sep


def _leaves(name: str, target: str, root: Path) -> Rejected:
    return Rejected(
        f"{name} is a link to {target}, outside {root}", "copy the files into the folder, or watch the directory they are in"
    )

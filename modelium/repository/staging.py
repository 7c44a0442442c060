"""Directories that appear whole, and disappear whole, in a directory that somebody else reads at any moment.

What enters: a root and a finished directory. What leaves: the same directory under its final name, by one rename. Nothing here
knows about Triton or models.

The workshop is a hidden directory beside the root, not in it: Triton lists every directory of its repository, hidden or not.
A listing of Triton's fails altogether when a directory vanishes under its hands, so the root sees no other change than entries
that come and go. Where the root is a mount of its own, a rename from beside it is impossible, and the workshop lies inside it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class Staging:
    """The workshop of one root. Safe from several threads and processes; each piece of work has a directory of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._place: Path | None = None

    @contextlib.contextmanager
    def workspace(self, name: str) -> Iterator[Path]:
        """An empty directory that is gone afterwards, whatever happened. Its lock says that somebody is at work in it."""
        place = self._find_place()
        work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=place))
        descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield work
        finally:
            os.close(descriptor)
            shutil.rmtree(work, ignore_errors=True)

    def sweep(self) -> int:
        """Remove what a killed run left. Directories that a living process has locked stay."""
        swept = 0
        for place in self._places():
            for left in _directories(place):
                with contextlib.suppress(OSError):
                    descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(left)
                        swept += 1
                    finally:
                        os.close(descriptor)
        return swept

    def close(self) -> None:
        """Remove the workshop itself when it is empty."""
        for place in self._places():
            with contextlib.suppress(OSError):
                place.rmdir()
        self._place = None

    def _places(self) -> tuple[Path, Path]:
        return self._root.parent / f".{self._root.name}.staging", self._root / ".staging"

    def _find_place(self) -> Path:
        if self._place is None or not self._place.is_dir():
            beside, inside = self._places()
            self._root.mkdir(parents=True, exist_ok=True)
            together = _mount_of(self._root) == _mount_of(self._root.parent)
            self._place = beside if together and os.access(self._root.parent, os.W_OK) else inside
            self._place.mkdir(exist_ok=True)
        return self._place


def _mount_of(directory: Path) -> str:
    """The kernel's number of the mount that ``directory`` is on: bind mounts of one disk differ in it, not in ``st_dev``."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
    finally:
        os.close(descriptor)
    return next(line for line in lines if line.startswith("mnt_id:"))


def _directories(place: Path) -> list[Path]:
    try:
        return [entry for entry in place.iterdir() if entry.is_dir() and not entry.is_symlink()]
    except OSError:
        return []


def put(made: Path, target: Path) -> None:
    """Give ``made`` the name ``target``. What was there before is at ``made`` afterwards, for the caller to remove."""
    if not target.exists():
        made.rename(target)
    elif not exchange(made, target):
        exchange_in_steps(made, target)


def exchange_in_steps(made: Path, target: Path) -> None:
    """Swap two names where the file system has no exchange (NFS): for one moment there is nothing at ``target``."""
    aside = made.with_name(made.name + ".old")
    target.rename(aside)
    try:
        made.rename(target)
    except OSError:
        aside.rename(target)
        raise
    aside.rename(made)


def exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step. False where the kernel or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def write_file(path: Path, content: bytes) -> None:
    """Write ``content``, for which the disk is waited for later (``flush``)."""
    path.write_bytes(content)


def flush(place: Path) -> None:
    """Wait until the disk has that file, or all files below: after a power cut what was renamed must not be empty."""
    for path in _files(place).values() if place.is_dir() else (place,):
        if not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def is_same(made: Path, there: Path, *, but: str) -> bool:
    """Whether all files and links below both are the same, the one of the name ``but`` and Python's bytecode apart. False where
    nothing is ``there``."""
    one, other = _files(made), _files(there)
    same = one.keys() == other.keys()
    return same and all(_content(path) == _content(other[name]) for name, path in one.items() if name != but)


def _files(directory: Path) -> dict[str, Path]:
    """By their paths from ``directory`` on; links are not followed."""
    found = {}
    for folder, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if name != "__pycache__"]
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for path in (Path(folder) / name for name in (*files, *links)):
            found[str(path.relative_to(directory))] = path
    return found


def _content(path: Path) -> tuple[bool, bytes]:
    """Of a link, where it leads."""
    return (True, os.fsencode(path.readlink())) if path.is_symlink() else (False, path.read_bytes())


def copy_tree(template: Path, made: Path) -> None:
    """Copy the files that Triton and a model need into ``made``; config.pbtxt is written anew, and bytecode is nobody's."""
    for path in sorted(template.rglob("*")):
        relative = path.relative_to(template)
        if any(part.startswith(".") or part == "__pycache__" for part in relative.parts) or str(relative) == "config.pbtxt":
            continue
        if path.is_dir():
            (made / relative).mkdir(exist_ok=True)
        else:
            write_file(made / relative, path.read_bytes())


def newest_mtime_ns(directory: Path) -> int:
    """The newest modification time below ``directory`` as Triton computes it: links are followed, the directory counts."""
    newest = directory.stat().st_mtime_ns
    for folder, folders, files in os.walk(directory):
        for name in (*folders, *files):
            path = os.path.join(folder, name)  # noqa: PTH118 - os.walk's own words, this runs for each load
            try:
                newest = max(newest, os.stat(path).st_mtime_ns)  # noqa: PTH116
            except OSError:
                newest = max(newest, os.lstat(path).st_mtime_ns)
    return newest

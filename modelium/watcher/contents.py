"""What a model consists of: a path that was taken for one enters, its ``Candidate`` leaves, and what tells when it changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from modelium.file_names import is_weights
from modelium.names import served_name, stand_in_name
from modelium.values import Candidate, Unclaimed
from modelium.watcher.listing import MOST_ENTRIES, Listing, is_fresh, list_directory, marks_of
from modelium.watcher.shapes import VOCABULARY

TURNS = 4
_QUIET_NS = 60_000_000_000
_DEEPEST = 3  # levels of a model's folder that are looked at
_HEADER_BYTES = 2**18  # of weights: what analyzers read of them, mostly


@dataclass(slots=True)
class Folder:
    """What was found in one entry of the watch directory, and what must be unchanged for it to hold still."""

    directories: list[tuple[str, int]]  # path, mtime before it was listed
    files: list[str]
    marks: int  # hash over size, mtime, ctime of ``files``
    volatile: bool = False  # to be opened anew each time
    model: Candidate | None = None
    members: tuple[str, ...] = ()  # of an ORG
    unclaimed: tuple[Unclaimed, ...] = ()
    newest_ns: int = 0
    turn: int = 0  # surveys until the files are looked at again

    def unchanged(self, *, thorough: bool, now_ns: int) -> bool:
        """Is it as it was, by its directories' times, and now and then by those of all its files?"""
        if self.volatile:
            return False
        stat = os.stat
        try:
            for path, listed_ns in self.directories:
                if stat(path).st_mtime_ns != listed_ns:
                    return False
        except OSError:
            return False
        if not thorough and self.turn > 0 and now_ns - self.newest_ns > _QUIET_NS:
            self.turn -= 1
            return True
        self.turn = TURNS - 1
        return hash(tuple(marks_of(self.files))) == self.marks


@dataclass(frozen=True, slots=True)
class Contents:
    """Of the models in one watch directory."""

    root: Path

    def folder(
        self,
        label: str,
        path: str,
        top: Listing,
        *,
        now_ns: int,
        turn: int = 0,
        aside: Iterable[tuple[str, int]] = (),
        references: Iterable[str] = (),
        hints: Iterable[str] = (),
        note: str = "",
        only: Callable[[str], bool] = lambda _: True,
    ) -> Folder:
        """A model's folder: every file's mark, down to a bounded depth and number."""
        directories, names, digest = [*aside], [*hints], blake2b(digest_size=16)
        files: list[str] = list(references)
        level: list[tuple[str, Listing]] = [(path, top)]
        unsure = False
        for depth in range(_DEEPEST):
            deeper: list[tuple[str, Listing]] = []
            for at, listing in level:
                directories.append((at, listing.mtime_ns))
                files += [f"{at}/{name}" for name in sorted(filter(only, listing.files))]
                names += sorted(listing.links + listing.partials)
                unsure |= bool(listing.links)  # what they lead to may come and go unseen
                if depth + 1 == _DEEPEST or len(files) + len(directories) + len(deeper) > MOST_ENTRIES:
                    continue
                for name in sorted(listing.directories):
                    try:
                        deeper.append((f"{at}/{name}", list_directory(f"{at}/{name}")))
                    except OSError:  # a part that just went or may not be read does not make the model vanish
                        unsure = True
            level = deeper
        del files[MOST_ENTRIES:]
        marks = list(marks_of(files))
        digest.update("\0".join((path, *names, "", *files)).encode("utf-8", "surrogateescape"))
        digest.update(repr(marks).encode())
        newest_ns = max((min(mark) for mark in zip(marks[1::3], marks[2::3], strict=True)), default=0) or top.mtime_ns
        return Folder(
            directories,
            files,
            hash(tuple(marks)),
            volatile=unsure or is_fresh(max(changed_ns for _, changed_ns in directories), now_ns),
            model=self.candidate(label, path, digest.hexdigest(), newest_ns / 1e9, note, _reading_bytes(files, marks[::3])),
            newest_ns=max(newest_ns, *marks[2::3]) if marks else newest_ns,
            turn=turn % TURNS,
        )

    def file(self, path: str, beside: str, known: Folder | None) -> Folder:
        """A single file. Any loose file beside an ONNX file may hold its tensors, so all of them are in its signature."""
        size, changed_ns, status_ns = marks_of([path])
        seal = hash((beside, size, changed_ns, status_ns))
        if known is not None and known.model is not None and known.marks == seal:
            return known
        digest = blake2b(f"{size} {changed_ns} {status_ns} {beside}".encode(), digest_size=16).hexdigest()
        label = os.path.basename(path)[: -len(".onnx")]  # .gguf is as long
        newest, weight = min(changed_ns, status_ns) / 1e9, _reading_bytes([path], [size])
        return Folder([], [], seal, model=self.candidate(label, path, digest, newest, reading_bytes=weight))

    def candidate(
        self, label: str, path: str, signature: str, newest_mtime: float, note: str = "", reading_bytes: int = 0
    ) -> Candidate:
        """What the controller is told of a folder; one whose name cannot be served gets a stand-in's."""
        try:
            name, conflict = served_name(label), None
        except ValueError as error:
            name, conflict = stand_in_name(label), f"{path}: {error}"
        shown = _shown(label)
        if conflict is None and not _is_utf8(path):
            conflict = f"{_shown(path)}: the name is not UTF-8, so no runtime can be told of it: rename it"
        return Candidate(
            name=name,
            label=shown,
            path=Path(path),
            root=self.root,
            signature=signature,
            newest_mtime=newest_mtime,
            conflict=conflict,
            note=note,
            reading_bytes=reading_bytes,
        )


def _is_utf8(path: str) -> bool:
    """Of a path's bytes: Triton's configuration and its answers are text."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _reading_bytes(files: list[str], sizes: list[int]) -> int:
    """What analyzers may have to read of them; a vocabulary is only known to be there."""
    named = ((path.rpartition("/")[2], size) for path, size in zip(files, sizes, strict=True) if size > 0)
    return sum(min(size, _HEADER_BYTES) if is_weights(name) or VOCABULARY.fullmatch(name) else size for name, size in named)

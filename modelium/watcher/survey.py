"""One watch directory as it is now: what enters is its path, what leaves are the models that lie in it.

What counts as a model:

1. ``NAME/``: a directory with a model's file of its own, or an empty one (a model to be).
2. ``ORG/NAME/``: a directory in whose directories models stand is an ORG and each of them is a model, unless they are known
   parts of a model (``onnx/``, ``1_Pooling/`` …): a copy may begin with those. What else lies in it does not matter, not even a
   stray file that could be a model (it is named as ``unclaimed``), and what was a whole model stays one until its files are
   gone (``shapes``).
3. ``models--ORG--NAME/``: a Hugging Face cache folder. ``refs/main`` names the snapshot (``cache``).
4. ``NAME.onnx``: a single file; files beside it (``NAME.onnx.data``) are its external data, not models. ``NAME.gguf``: too.

A survey is the truth, not a guess from events. What makes it cheap: a directory is listed again only when its mtime
moved, and nothing is built anew where nothing changed. What is left are the ``stat`` calls, 2 to 3 µs each: 35 to 50 ms for
2,000 folders of 8 files. So while file events arrive, a survey looks at every directory and at the files of the folders
that were ``touched``; at the files of folders quiet for a minute only in every fourth survey. Names are always the truth of
this instant; a rewrite in place that sent no event is seen up to four surveys late.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from modelium.analyzers.fingerprint import matters
from modelium.names import cache_label
from modelium.values import Candidate, Unclaimed
from modelium.watcher.cache import choose_snapshot
from modelium.watcher.contents import Contents, Folder
from modelium.watcher.listing import (
    Listing,
    is_fresh,
    is_ignored,
    leads_to_directory,
    list_directory,
    marks_of,
    size_of,
)
from modelium.watcher.shapes import DOCUMENT, Evidence, Shape, evidence_of, is_part, may_be_stray, shape_of
from modelium.watcher.unclaimed import MOST, buried_models, loose_files

_OTHER_CACHES = ("datasets--", "spaces--", "kernels--")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a directory was taken for, those of its directories in which a model once stood, and whether it was a whole one."""

    shape: Shape
    proven: frozenset[str]
    whole: bool = False


class Surveyor:
    """Remembers one watch directory between surveys. Not thread-safe: the ``Watcher`` holds its lock.

    ``taken``: what its directories with directories in them were taken for, by path; it outlives what else is remembered.
    """

    def __init__(self, root: Path, others: Iterable[Path] = ()) -> None:
        self.root = root
        self._contents = Contents(root)
        self._others = frozenset(os.path.realpath(path) for path in others)
        self._folders: dict[str, Folder] = {}
        self.taken: dict[str, Taken] = {}
        self.unclaimed: tuple[Unclaimed, ...] = ()
        self._touched: frozenset[str] | None = None
        self._now_ns = 0

    def survey(self, now_ns: int, *, touched: frozenset[str] | None = None) -> list[Candidate]:
        """Every model of the directory, in the directory's order; the same objects as last time where nothing changed.

        ``touched``: the folders (``ROOT/NAME``, ``ROOT/ORG/NAME``) that had events; None: look at every file of all.
        Raises ``OSError`` when the watch directory itself cannot be listed.
        """
        before, self._folders = self._folders, {}
        self._touched, self._now_ns = touched, now_ns
        found: list[Candidate] = []
        files: list[os.DirEntry[str]] = []
        try:
            with os.scandir(self.root) as entries:
                for entry in entries:
                    if _passed_over(entry.name):
                        continue
                    if _is_directory(entry):
                        found += self._look(entry.path, entry.name, before)
                    else:
                        files.append(entry)
        except OSError:
            self._folders = before
            raise
        onnx, gguf, loose = _sort(files)
        if onnx:
            beside = _beside(loose)
            found += [self._look_at_file(path, beside, before) for path in onnx]
        found += [self._look_at_file(path, "", before) for path in gguf]
        unclaimed = [one for folder in self._folders.values() for one in folder.unclaimed]
        unclaimed += loose_files(str(self.root), map(os.path.basename, loose), beside_onnx=bool(onnx))
        self.unclaimed = tuple(sorted(unclaimed)[:MOST])
        for path in [path for path in self.taken if path not in self._folders]:
            del self.taken[path]
        return found

    def _look(self, path: str, label: str, before: dict[str, Folder], *, in_org: bool = False) -> Iterator[Candidate]:
        folder = before.get(path)
        thorough = self._touched is None or path in self._touched
        if folder is None or not folder.unchanged(thorough=thorough, now_ns=self._now_ns):
            try:
                folder = self._open(path, label, in_org=in_org)
            except OSError as error:
                if not os.path.lexists(path):
                    return  # went away meanwhile
                # Not readable now (rights, a network disk with a hiccup): what was known still holds, else show it as it is.
                shown = self._contents.candidate(label, path, f"unreadable: {error.strerror}", 0.0)
                folder = folder or Folder([], [], 0, model=shown)
                folder.volatile = True
            if folder is None:
                return
            known = before.get(path)
            if known is not None and known.model == folder.model:
                folder.model = known.model  # one object as long as nothing changed: cheap to compare, for everybody
        self._folders[path] = folder
        if folder.model is not None:
            yield folder.model
        for member in folder.members:
            yield from self._look(f"{path}/{member}", f"{label}/{member}", before, in_org=True)

    def _open(self, path: str, label: str, *, in_org: bool) -> Folder | None:
        if self._others and os.path.realpath(path) in self._others:
            return None  # a watch directory inside this one: it is surveyed by itself
        if os.path.islink(path) and not self._is_inside(path):
            # Not looked into at all; the analyzers refuse it with the reason.
            link = self._contents.candidate(label, path, f"link: {os.readlink(path)}", os.lstat(path).st_mtime)
            return Folder([], [], 0, volatile=True, model=link)
        top = list_directory(path)
        cached = cache_label(os.path.basename(path))
        if cached is not None and ("snapshots" in top.directories or not top.files):
            return self._open_cache(path, cached, top)
        members = tuple(sorted(top.directories + top.links))
        if in_org:
            folder = self._read(label, path, top)
            folder.unclaimed = buried_models(path, top)
            return folder
        return self._open_mixed(label, path, top, members)

    def _open_mixed(self, label: str, path: str, top: Listing, members: tuple[str, ...]) -> Folder:
        """A directory with directories in it: a model, an organisation, or what was the one and became the other too."""
        documents_only = not top.partials and all(map(DOCUMENT.fullmatch, top.files))
        was = self.taken.get(path)
        directories, proven, best, unsure = [(path, top.mtime_ns)], set[str](), Evidence.NONE, bool(top.links)
        for name in members:
            at = f"{path}/{name}"
            if name in top.links:
                continue
            if is_part(name, top.files):
                with contextlib.suppress(OSError):  # it went away, and its parent's time says so
                    directories.append((at, os.stat(at).st_mtime_ns))  # with weights in it, it tells what this directory is
                continue
            try:
                listing = list_directory(at)
            except OSError:
                unsure = True
                if was is not None and name in was.proven:
                    proven.add(name)
                continue
            directories.append((at, listing.mtime_ns))
            evidence = evidence_of(at, listing, size_of)
            if evidence is Evidence.SOME:
                unsure = True  # weights of no bytes yet: no directory's time says when they are filled
                if was is not None and name in was.proven:
                    evidence = Evidence.FILE  # it is being replaced
            if evidence >= Evidence.FILE:
                proven.add(name)
            best = max(best, evidence)
        mine = evidence_of(path, top, size_of)
        before = was.shape if was is not None else None
        whole = mine is Evidence.WHOLE or (before is Shape.MODEL and was is not None and was.whole)
        shape = Shape.MODEL
        if not all(is_part(name, top.files) for name in members):
            stray = not whole and may_be_stray(path, top)
            shape = shape_of(mine, best, stray=stray, documents_only=documents_only, was=before)
        kept = tuple(sorted(proven & was.proven)) if was is not None else ()
        if shape is Shape.ORG:
            self.taken[path] = Taken(shape=shape, proven=frozenset(proven))
            # What a link leads to may come and go, and no directory that is watched here says so.
            volatile = unsure or mine is not Evidence.NONE or is_fresh(max(at for _, at in directories), self._now_ns)
            unclaimed = loose_files(path, top.files)
            return Folder(directories, [], hash(()), volatile=volatile, members=members, unclaimed=unclaimed)
        folder = self._read(label, path, top)
        if mine or kept or before is Shape.MODEL:
            self.taken[path] = Taken(shape=shape, proven=frozenset(kept), whole=whole)
        folder.members = kept
        folder.volatile |= unsure
        return folder

    def _open_cache(self, path: str, label: str, top: Listing) -> Folder:
        """``refs/main`` → ``snapshots/REV``; blobs that are still coming down are ``blobs/*.incomplete``."""
        aside = [(path, top.mtime_ns)]
        hints: list[str] = []
        for name in ("blobs", "refs"):
            if name in top.directories:
                listing = list_directory(f"{path}/{name}")
                aside.append((f"{path}/{name}", listing.mtime_ns))
                hints += [f"{name}/{partial}" for partial in listing.partials]
        found = choose_snapshot(path, top)
        chosen = f"{path}/snapshots/{found.revision}" if found.revision else path
        references = [f"{path}/refs/main"]
        aside += found.looked_at
        return self._contents.folder(
            label,
            chosen,
            list_directory(chosen),
            now_ns=self._now_ns,
            turn=self._turn(),
            aside=aside,
            references=references,
            hints=hints,
            note=found.note,
        )

    def cached(self, path: str) -> Candidate | None:
        """The model of a cache folder, which need not lie in the watch directory; None where it is no cache folder."""
        label = cache_label(os.path.basename(path))
        return self._open_cache(path, label, list_directory(path)).model if label is not None else None

    def look_again(self, path: str) -> Candidate | None:
        """At a model that was found at ``path`` before; None where none is. Compare its signature with another look's only:
        what is no part of the model (a log that grows, what else lies beside an ONNX file) is not in it.
        """
        try:
            if os.path.isdir(path):
                found = self._contents.folder("", path, list_directory(path), now_ns=self._now_ns, only=matters).model
            elif path.lower().endswith(".onnx"):
                stem = os.path.basename(path)[: -len(".onnx")]
                with os.scandir(self.root) as entries:
                    _, _, loose = _sort(
                        e for e in entries if e.name.startswith(stem) and matters(e.name) and not _is_directory(e)
                    )
                found = self._look_at_file(path, _beside(loose), {})
            else:
                found = self._look_at_file(path, "", {})
        except OSError:
            return None
        return found

    def _look_at_file(self, path: str, beside: str, before: dict[str, Folder]) -> Candidate:
        folder = self._folders[path] = self._contents.file(path, beside, before.get(path))
        assert folder.model is not None
        return folder.model

    def _read(self, label: str, path: str, top: Listing) -> Folder:
        return self._contents.folder(label, path, top, now_ns=self._now_ns, turn=self._turn())

    def _turn(self) -> int:
        """Of one more folder; so that each survey has its share."""
        return len(self._folders)

    def _is_inside(self, path: str) -> bool:
        root = os.path.realpath(self.root)
        return os.path.realpath(path).startswith(root + os.sep) and os.path.isdir(path)


def _passed_over(name: str) -> bool:
    return is_ignored(name) or name.startswith(_OTHER_CACHES)


def _sort(files: Iterable[os.DirEntry[str]]) -> tuple[list[str], list[str], list[str]]:
    """The paths of ONNX files, of GGUF files, and of the others."""
    onnx: list[str] = []
    gguf: list[str] = []
    loose: list[str] = []
    for entry in files:
        name = entry.name.lower()
        (onnx if name.endswith(".onnx") else gguf if name.endswith(".gguf") else loose).append(entry.path)
    return onnx, gguf, sorted(loose)


def _beside(loose: list[str]) -> str:
    """The same in each process, as every signature: what is known of a folder outlives Modelium."""
    text = "\0".join((*loose, repr(marks_of(loose)))).encode("utf-8", "surrogateescape")
    return blake2b(text, digest_size=16).hexdigest() if loose else ""


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """A directory, a link to one, or a link that leads nowhere: that one is shown as what it is."""
    if not entry.is_symlink():
        return entry.is_dir()
    return leads_to_directory(entry) or not (entry.name.lower().endswith((".onnx", ".gguf")) or os.path.exists(entry.path))

"""A Hugging Face cache folder: what enters is ``models--ORG--NAME/``, what leaves is the snapshot that is meant.

``refs/main`` names it, else it is the newest one. A download writes ``refs/main`` first and the files then, and it may never
end: while that snapshot lacks what another has, the newest whole one is meant, now and after a restart.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from modelium.watcher.listing import Listing, list_directory, mtime_ns, size_of
from modelium.watcher.shapes import VOCABULARY, Evidence, evidence_of

_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHARD = re.compile(r"(.+)-\d{5,6}-of-(\d{5,6})\.(\w+)")
_MOST_SNAPSHOTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """``revision``: "" where there is none. ``looked_at``: what must be unchanged for this to hold, with its time."""

    revision: str
    note: str = ""
    looked_at: tuple[tuple[str, int], ...] = ()


def choose_snapshot(path: str, top: Listing) -> Chosen:
    """Raises ``OSError`` where the cache cannot be listed."""
    if "snapshots" not in top.directories:
        return Chosen(revision="")
    snapshots = list_directory(f"{path}/snapshots")
    looked_at = [(f"{path}/snapshots", snapshots.mtime_ns)]
    newest_first = sorted(snapshots.directories, key=lambda name: mtime_ns(f"{path}/snapshots/{name}"), reverse=True)
    named = _read_revision(f"{path}/refs/main")
    wanted = named if named in newest_first else next(iter(newest_first), "")
    if len(newest_first) < 2:
        return Chosen(revision=wanted, looked_at=tuple(looked_at))
    listings: dict[str, Listing] = {}
    for name in newest_first[:_MOST_SNAPSHOTS]:
        try:
            listings[name] = list_directory(f"{path}/snapshots/{name}")
        except OSError:
            continue
        looked_at.append((f"{path}/snapshots/{name}", listings[name].mtime_ns))
    whole = [name for name, listing in listings.items() if _is_whole(f"{path}/snapshots/{name}", listing)]
    # A tokenizer often comes last: without one where the others have one, a snapshot is not whole.
    spoken = [name for name in whole if any(map(VOCABULARY.fullmatch, listings[name].files))]
    whole = spoken or whole
    if wanted in whole or not whole:
        return Chosen(revision=wanted, looked_at=tuple(looked_at))
    older = whole[0]
    note = f"snapshot {wanted[:12]} is not whole yet, the older {older[:12]} is served: finish its download"
    return Chosen(revision=older, note=note, looked_at=tuple(looked_at))


def _is_whole(path: str, listing: Listing) -> bool:
    if evidence_of(path, listing, size_of) < Evidence.FILE:
        return False
    shards: dict[tuple[str, str, str], int] = {}
    for name in listing.files:
        if match := _SHARD.fullmatch(name):
            shards[match[1], match[2], match[3]] = shards.get((match[1], match[2], match[3]), 0) + (
                size_of(f"{path}/{name}") > 0
            )
    return all(count >= int(total) for (_, total, _), count in shards.items())


def _read_revision(reference: str) -> str:
    try:
        descriptor = os.open(reference, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would be waited for without end
        with os.fdopen(descriptor, "rb") as file:
            revision = (file.read(200) or b"").decode(errors="replace").strip()
    except OSError:
        return ""
    return revision if _REVISION.fullmatch(revision) else ""

"""Which folders were being looked at, and which took too much: kept on disk, so that a restart does not begin with them again.

What enters: marks of revisions (``mark_of``), before each look and after it. What leaves: whether one may be looked at. It
lies beside the ledger, not in it: the ledger is written whole and flushed, which is too much to do before each of 2,000 looks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from modelium.values import Candidate

_MOST_TRIES = 3
_KEPT = 5_000


def mark_of(candidate: Candidate) -> str:
    """Of the folder as it is now: another when a byte of it changes."""
    text = f"{candidate.path}\0{candidate.signature}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


class Notebook:
    """``directory`` None: nothing outlives this process. A disk that fails costs the memory, nothing else."""

    def __init__(self, directory: Path | None = None) -> None:
        self._over: dict[str, str] = {}  # mark → the limit that it went beyond
        self._tries: dict[str, int] = {}  # mark → how often Modelium ended while it was looked at
        self._under_way: set[str] = set()
        self._file = directory / "analyses.json" if directory is not None else None
        self._now: int | None = None
        if directory is not None:
            with contextlib.suppress(OSError):
                directory.mkdir(parents=True, exist_ok=True)
                self._now = os.open(directory / "analyses.now", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._read()

    def why_not(self, mark: str) -> str | None:
        """The limit that this revision went beyond when it was looked at."""
        return self._over.get(mark)

    def is_suspect(self, mark: str) -> bool:
        """Modelium ended while it was looked at: others come first."""
        return mark in self._tries

    def begin(self, mark: str) -> None:
        """Note that ``mark`` is being looked at, should Modelium end meanwhile."""
        self._under_way.add(mark)
        self._note()

    def end(self, mark: str, over: str | None = None) -> None:
        """``mark`` was looked at; ``over``: beyond which limit it went, so that nobody looks at it again."""
        self._under_way.discard(mark)
        self._note()
        if over is not None:
            self._over[mark] = over
        if (self._tries.pop(mark, None) is not None) or over is not None:
            self._save()

    def leave(self, mark: str) -> None:
        """The look was broken off, and not by what was looked at: it says nothing about it."""
        self._under_way.discard(mark)
        self._note()

    def _note(self) -> None:
        """The marks under way; written over, not flushed: it has to outlive this process, not the power."""
        if self._now is not None:
            text = json.dumps(sorted(self._under_way)).encode()
            with contextlib.suppress(OSError):
                os.ftruncate(self._now, os.pwrite(self._now, text, 0))

    def _read(self) -> None:
        assert self._file is not None
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            kept = json.loads(self._file.read_bytes())
            self._over = {str(mark): str(why) for mark, why in kept["over"].items()}
            self._tries = {str(mark): int(count) for mark, count in kept["tries"].items()}
        left: object = []
        with contextlib.suppress(OSError, ValueError):
            left = json.loads(os.pread(self._now, 2**20, 0)) if self._now is not None else []
        for mark in left if isinstance(left, list) else []:
            self._tries[str(mark)] = self._tries.get(str(mark), 0) + 1
            if self._tries[str(mark)] >= _MOST_TRIES:
                self._over[str(mark)] = f"Modelium was killed {_MOST_TRIES} times while it looked at it"
                del self._tries[str(mark)]
        if left:
            self._save()
        self._note()

    def _save(self) -> None:
        if self._file is None:
            return
        self._over = dict(list(self._over.items())[-_KEPT:])
        beside = self._file.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            beside.write_text(json.dumps({"over": self._over, "tries": self._tries}))
            beside.replace(self._file)

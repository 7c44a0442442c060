"""``incoming/``: what enters are watch directories, what leaves are ``Candidate``s (by ``scan``) and wake-ups (by events).

Events only wake the loop: ``scan`` reads the whole real state each time and needs no event to do so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from modelium.values import Candidate, Unclaimed, WatchDirectory
from modelium.watcher.standing import Standing, standing_of
from modelium.watcher.survey import Surveyor
from modelium.watcher.wakeups import Alarm, FolderEvents

__all__ = ["Watcher"]

_log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 1.0  # while a scan finds changes: a copy in progress sends no event until a file is closed
_SCAN_SHARE = 0.1  # events may make us scan for at most this part of the time


class Watcher:
    """Surveys the watch directories and wakes its owner when something in them changed.

    ``settle_seconds``: after the last change a wake-up comes this much later too, for files whose completeness can only be
    judged by their silence.
    """

    def __init__(self, directories: Sequence[Path], *, settle_seconds: float = 2.0) -> None:
        self._directories = tuple(dict.fromkeys(directory.absolute() for directory in directories))
        self._settle_s = settle_seconds
        self._lock = threading.Lock()
        self._surveyors = [
            Surveyor(directory, [other for other in self._directories if other != directory]) for directory in self._directories
        ]
        self._last: dict[Path, list[Candidate]] = {}
        self._claims: dict[Path, tuple[int, float]] = {}
        self._scans = 0
        self._result: tuple[Candidate, ...] = ()
        self._standing: dict[Path, Standing] = {}
        self._suspended: dict[Path, str] = {}
        self._said: frozenset[Unclaimed] = frozenset()
        self._alarm: Alarm | None = None
        self._events: FolderEvents | None = None

    def start(self, wake: Callable[[], None]) -> None:
        """Create the watch directories where missing and begin to call ``wake``, from a foreign thread. Idempotent."""
        with self._lock:
            if self._alarm is not None:
                return
            for directory in self._directories:
                try:
                    directory.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    _log.warning("watch directory %s cannot be made: %s", directory, error.strerror)
            self._alarm = Alarm(wake)
            self._events = FolderEvents(self._directories, self._alarm)
            self._events.start()

    def stop(self) -> None:
        """End the threads. Idempotent; ``scan`` goes on working. Must not be called from ``wake``."""
        with self._lock:
            alarm, events, self._alarm, self._events = self._alarm, self._events, None, None
        if events is not None:
            events.stop()
        if alarm is not None:
            alarm.stop()

    def scan(self) -> tuple[Candidate, ...]:
        """Every model in the watch directories now, by name; the same tuple as last time when nothing changed."""
        with self._lock:
            began = time.monotonic()
            touched = None
            if self._events is not None:  # before the survey, so that what happens during it rings
                self._events.ensure()
                touched = self._events.take_touched()
            changed = False
            for surveyor in self._surveyors:
                found = self._survey(surveyor, touched)
                if found != self._last.get(surveyor.root):
                    self._last[surveyor.root] = found
                    changed = True
            self._scans += 1
            self._say_unclaimed()
            if changed:
                self._result = self._settle_claims([candidate for found in self._last.values() for candidate in found])
            if self._alarm is not None:
                self._alarm.pause_s = max(0.05, (time.monotonic() - began) / _SCAN_SHARE)
                self._look_again(self._alarm, changed=changed)
            return self._result

    @property
    def directories(self) -> tuple[WatchDirectory, ...]:
        """As the last scan found them."""
        return tuple(WatchDirectory(path=path, suspended=self._suspended.get(path, "")) for path in self._directories)

    @property
    def unclaimed(self) -> tuple[Unclaimed, ...]:
        """What the last scan found that looks like a model and is none as it lies there."""
        return tuple(one for surveyor in self._surveyors for one in surveyor.unclaimed)

    def _survey(self, surveyor: Surveyor, touched: frozenset[str] | None) -> list[Candidate]:
        """What is there, or what was there when the directory was last what it was: a lost disk takes no model away."""
        root, last = surveyor.root, self._last.get(surveyor.root, [])
        try:
            before = standing_of(root)
            found = surveyor.survey(time.time_ns(), touched=touched)
            after = standing_of(root)
        except OSError as error:
            return self._suspend(root, f"it cannot be read ({error.strerror})", last)
        was = self._standing.get(root, before)
        if before != after or (last and not found and was != after):
            return self._suspend(root, "another, empty directory is in its place: was it unmounted?", last)
        self._standing[root] = after
        if self._suspended.pop(root, ""):
            _log.info("watch directory %s is back", root)
        return found

    def _suspend(self, root: Path, why: str, last: list[Candidate]) -> list[Candidate]:
        if self._suspended.get(root) != why:
            _log.warning("watch directory %s is suspended: %s; its models stay as they were until it is back", root, why)
        self._suspended[root] = why
        return last

    def _say_unclaimed(self) -> None:
        now = frozenset(self.unclaimed)
        for one in sorted(now - self._said):
            _log.warning("%s is not served: %s", one.path, one.advice)
        self._said = now

    def _settle_claims(self, found: list[Candidate]) -> tuple[Candidate, ...]:
        """One model a name: the first that was seen keeps it, the later ones are told. Order of claims never changes."""
        self._claims = {c.path: self._claims.get(c.path, (self._scans, c.newest_mtime)) for c in found}
        found.sort(key=lambda candidate: (candidate.name, self._claims[candidate.path], candidate.path))
        result: list[Candidate] = []
        holder: Candidate | None = None
        for candidate in found:
            if holder is None or candidate.name != holder.name:
                holder = candidate
                result.append(candidate)
            else:
                words = f"{candidate.path} and {holder.path} both claim the name {candidate.name}: rename one of them"
                result.append(replace(candidate, conflict=candidate.conflict or words))
        return tuple(result)

    def _look_again(self, alarm: Alarm, *, changed: bool) -> None:
        if changed:
            alarm.ring(_LOOK_AGAIN_S)
        newest = max((candidate.newest_mtime for candidate in self._result), default=0.0)
        settles_in_s = newest + self._settle_s - time.time()
        if 0 < settles_in_s <= self._settle_s:
            alarm.ring(settles_in_s + 0.01)

"""File events: what enters are watchdog's events, what leaves are few and prompt calls of ``wake``.

Events are hints only; the survey is the truth. So a watch that cannot be had (inotify limits, file systems without
events) costs latency, never correctness, and is said once in the log.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch
from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper

from modelium.watcher.listing import is_ignored

_log = logging.getLogger(__name__)

# No "modified": a copy of gigabytes would send thousands of them, and its end is a "closed".
# No "opened": our own reading would wake us.
_EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
]
_GATHER_S = 0.02  # events come in groups (created, closed, the next file)
_LEAST_PAUSE_S = 0.05

# watchdog holds every rename back for this long to pair its two halves, and all later events with it (0.5 s by
# default). Downloads end in a rename; we only want to know that something happened.
InotifyMoveEventGrouper.delay = 0.01


class Alarm:
    """Calls ``wake`` from a thread of its own: soon after the first ring, and never more often than ``pause_s``."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.pause_s = _LEAST_PAUSE_S
        self._wake = wake
        self._due: float | None = None
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="modelium-watcher", daemon=True)
        self._thread.start()

    def ring(self, within_s: float) -> None:
        """Wake at the latest ``within_s`` from now, the pause aside."""
        due = time.monotonic() + within_s
        with self._changed:
            if self._due is None or due < self._due:
                self._due = due
                self._changed.notify()

    def stop(self) -> None:
        """No more wake-ups; waits for the one under way."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        last = float("-inf")
        while True:
            with self._changed:
                while not self._stopping:
                    now = time.monotonic()
                    left = float("inf") if self._due is None else max(self._due, last + self.pause_s) - now
                    if left <= 0:
                        break
                    self._changed.wait(None if self._due is None else left)
                if self._stopping:
                    return
                self._due = None
            last = time.monotonic()
            try:
                self._wake()
            except Exception:
                _log.exception("the watcher's wake-up failed")


class FolderEvents(FileSystemEventHandler):
    """watchdog's observer over the watch directories. ``ensure`` repairs what was lost: directories come and go."""

    def __init__(self, directories: Sequence[Path], alarm: Alarm) -> None:
        self._roots = [f"{directory}/" for directory in directories]
        self._alarm = alarm
        self._observer: BaseObserver | None = None
        self._watches: dict[str, tuple[ObservedWatch, tuple[int, int]]] = {}
        self._warned: set[str] = set()
        self._noting = threading.Lock()  # events are noted in watchdog's thread and taken in the scan's
        self._touched: set[str] | None = None  # None: all

    def start(self) -> None:
        """Begin to watch. Where that is impossible, the periodic scan has to do: said once in the log."""
        try:
            self._observer = Observer()
            self._observer.start()
        except OSError as error:
            self._warn("", f"file events are not available ({error}); new models are found by the periodic scan only")
            self._observer = None
        self.ensure()

    def stop(self) -> None:
        """Watch no more."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None
        self._watches.clear()

    def take_touched(self) -> frozenset[str] | None:
        """The models' folders that had events since the last call; None when any may have changed unseen."""
        with self._noting:
            touched, self._touched = self._touched, set()
        return None if touched is None or len(self._watches) < len(self._roots) else frozenset(touched)

    def ensure(self) -> None:
        """A live watch on every directory that is there: after a directory went and came back it is another one."""
        if self._observer is None:
            return
        alive = {emitter.watch for emitter in self._observer.emitters if emitter.is_alive()}
        for root in self._roots:
            try:
                status = Path(root).stat()
            except OSError:
                identity = None
            else:
                identity = (status.st_dev, status.st_ino)
            watch, watched = self._watches.get(root, (None, None))
            if watch is not None and (identity != watched or watch not in alive):
                self._observer.unschedule(watch)
                del self._watches[root]
                watch = None
            if watch is None and identity is not None:
                self._schedule(self._observer, root, identity)

    def _schedule(self, observer: BaseObserver, root: str, identity: tuple[int, int]) -> None:
        try:
            # Links inside are not followed (loops); the watch directory itself may well be one: hence the "/" at its end.
            watch = observer.schedule(self, root, recursive=True, event_filter=_EVENTS)
        except OSError as error:
            self._warn(
                root,
                f"{root}: no file events ({error}); changes are found by the periodic scan."
                " On Linux, raise fs.inotify.max_user_watches and max_user_instances",
            )
        else:
            self._watches[root] = (watch, identity)
            with self._noting:
                self._touched = None
            self._warned.discard(root)

    def dispatch(self, event: FileSystemEvent) -> None:
        """watchdog's: an event wakes the scan, if it is of a path that matters."""
        matters = False
        for path in (event.src_path, event.dest_path):
            matters |= bool(path) and self._note(os.fsdecode(path))
        if matters:
            self._alarm.ring(_GATHER_S)

    def _note(self, path: str) -> bool:
        """Whether a change of this path matters; if so, NAME and ORG/NAME of it are noted."""
        root = next((root for root in self._roots if path.startswith(root)), None)
        parts = path[len(root or "") :].split("/")
        if root is not None and any(map(is_ignored, parts)):
            return False
        with self._noting:
            if root is None:
                self._touched = None
            elif self._touched is not None:
                self._touched |= {root + parts[0], root + "/".join(parts[:2])}
        return True

    def _warn(self, key: str, message: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            _log.warning(message)

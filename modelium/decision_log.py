"""The log of decisions: the last in memory, and all as lines of JSON in the state directory, of which the oldest are dropped.

What enters: decisions as they are made. What leaves: ``decisions.jsonl``, and who made room for a model. Memory of the past is
a help, never a condition: a full disk is said once.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from modelium.guarded.directories import make_private
from modelium.values import Decision
from modelium.views import Decision as Line
from modelium.views import written

_log = logging.getLogger(__name__)

_REMEMBERED = 1_000
_FILE_BYTES = 4 * 2**20
_OLDER_FILES = 3


class DecisionLog:
    """``path``: of the newest file, older ones have ``.1`` and so on behind it; None: memory only. ``clock``: in seconds of the
    wall clock."""

    def __init__(
        self, path: Path | None = None, *, clock: Callable[[], float] = time.time, file_bytes: int = _FILE_BYTES
    ) -> None:
        self._clock = clock
        self._latest: deque[Decision] = deque(maxlen=_REMEMBERED)
        self._file: _Lines | None = None
        if path is not None:
            try:
                make_private(path.parent)
                self._file = _Lines(path, maxBytes=file_bytes, backupCount=_OLDER_FILES, encoding="utf-8", delay=True)
            except OSError as error:
                _log.warning("%s cannot be written (%s): decisions are kept in memory only", path, error.strerror)

    def note(self, decision: Decision) -> None:
        """It was made now."""
        self._latest.appendleft(decision)
        if self._file is not None:
            at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
            line = {"at": at} | {name: value for name, value in written(Line, decision).items() if name != "age_s"}
            self._file.emit(logging.makeLogRecord({"msg": json.dumps(line)}))

    def for_the_sake_of(self, model: str) -> tuple[Decision, ...]:
        """The unloads that made room for it. The newest first."""
        return tuple(decision for decision in self._latest if decision.beneficiary == model)

    def close(self) -> None:
        """No more will come."""
        if self._file is not None:
            self._file.close()


class _Lines(RotatingFileHandler):
    _failing = False

    def emit(self, record: logging.LogRecord) -> None:
        """A line; where that fails it is said once."""
        self._failed = False
        super().emit(record)
        if self._failing and not self._failed:
            self._failing = False
            _log.info("%s is written again", self.baseFilename)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002 – a method of logging's
        """Instead of a traceback for each line."""
        self._failed = True
        if not self._failing:
            self._failing = True
            _log.warning("%s cannot be written (%s); decisions are kept in memory", self.baseFilename, sys.exc_info()[1])

"""Logging that strangers cannot flood: log records enter, what is worth a line leaves.

Equal lines are written a few times a minute and counted from then on; the next one that is written says how many were not. What
a client did wrong to HTTP itself is not worth a traceback, nor a line each.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from aiohttp.http_exceptions import HttpProcessingError

MOST_LINES = 5  # alike, in one period
PERIOD_S = 60.0
MOST_KINDS = 1024
_MOST_CHARACTERS = 4000  # of one line


@dataclass(slots=True)
class _Seen:
    since_s: float
    written: int = 0
    left_out: int = 0


class CountEqualLines(logging.Filter):
    """For a handler. Lines are equal when logger, level and the words before their arguments are."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._now = now
        self._seen: OrderedDict[tuple[str, int, str], _Seen] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def kinds(self) -> int:
        """Of lines that are remembered."""
        return len(self._seen)

    def filter(self, record: logging.LogRecord) -> bool:
        _shorten(record)
        key = (record.name, record.levelno, str(record.msg)[:200])
        with self._lock:
            now = self._now()
            seen = self._seen.pop(key, None) or _Seen(now)
            self._seen[key] = seen
            while len(self._seen) > MOST_KINDS:
                self._seen.popitem(last=False)
            if now - seen.since_s >= PERIOD_S:
                left_out = seen.left_out
                self._seen[key] = seen = _Seen(now)
                if left_out:
                    record.msg = f"{record.getMessage()} ({left_out:,} more like this in the minutes before)"
                    record.args = None
            seen.written += 1
            if seen.written <= MOST_LINES:
                return True
            seen.left_out += 1
            return False


def _shorten(record: logging.LogRecord) -> None:
    """A client's fault in HTTP is one line; no line is endless."""
    fault = record.exc_info[1] if record.exc_info else None
    if record.name == "aiohttp.server" and isinstance(fault, HttpProcessingError | ConnectionError):
        record.msg = "a client sent what is no HTTP, or went away: %s"
        record.args = (f"{type(fault).__name__}: {fault}".splitlines()[0][:200],)
        record.exc_info, record.exc_text = None, None
        record.levelno, record.levelname = logging.INFO, "INFO"
    message = record.getMessage()
    if len(message) > _MOST_CHARACTERS:
        record.msg, record.args = f"{message[:_MOST_CHARACTERS]}…", None


def count_equal_lines() -> None:
    """On every handler of the root logger."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(CountEqualLines())

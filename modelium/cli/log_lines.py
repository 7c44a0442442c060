"""Logging that strangers cannot flood: log records enter, what is worth a line leaves.

Equal lines are written a few times a minute, and lines that are equal but for their arguments two hundred times. What is
left out is counted, and told when the minute is over. What a client did wrong to HTTP itself is not worth a traceback.
"""

from __future__ import annotations

import atexit
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from aiohttp.http_exceptions import HttpProcessingError

MOST_LINES = 5  # equal, in one period
MOST_ALIKE = 200  # equal but for their arguments
PERIOD_S = 60.0
MOST_KINDS = 1024  # of equal lines, and as many of lines that are alike
_MOST_CHARACTERS = 4000  # of one line

_Key = tuple[str, int, str]


@dataclass(slots=True)
class _Seen:
    since_s: float
    words: str
    written: int = 0
    left_out: int = 0


class _Told(logging.LogRecord):
    """How many lines were left out: always written."""


class _Kinds:
    """What was seen lately of lines of one kind; the oldest is forgotten when there are too many."""

    def __init__(self, most: int) -> None:
        self._most = most  # lines of a kind, in one period
        self._seen: OrderedDict[_Key, _Seen] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def find(self, key: _Key, words: str, now_s: float) -> tuple[_Seen, int]:
        """Of this kind; and how many were left out in a period before this one."""
        seen = self._seen.pop(key, None) or _Seen(now_s, words)
        before = 0
        if now_s - seen.since_s >= PERIOD_S:
            before, seen = seen.left_out, _Seen(now_s, words)
        self._seen[key] = seen
        while len(self._seen) > MOST_KINDS:
            self._seen.popitem(last=False)
        return seen, before

    def is_full(self, seen: _Seen) -> bool:
        return seen.written >= self._most

    def end(self, now_s: float) -> list[_Told]:
        """Forget the kinds whose period is over; what is to be told of them."""
        over = [(key, seen) for key, seen in self._seen.items() if now_s - seen.since_s >= PERIOD_S]
        for key, _ in over:
            del self._seen[key]
        return [_told(key, seen) for key, seen in over if seen.left_out]

    def first_end_s(self) -> float | None:
        """When the first period is over of which there is something to tell."""
        return min((seen.since_s + PERIOD_S for seen in self._seen.values() if seen.left_out), default=None)


class CountEqualLines(logging.Filter):
    """For a handler. Lines are equal when logger, level and words are; alike, when the words before their arguments are.

    ``write`` takes what is told of lines left out; ``later`` calls a function after so many seconds.
    """

    def __init__(
        self,
        write: Callable[[logging.LogRecord], object],
        later: Callable[[float, Callable[[], None]], None],
        now: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__()
        self._write, self._later, self._now = write, later, now
        self._equal, self._alike = _Kinds(MOST_LINES), _Kinds(MOST_ALIKE)
        self._waits = False
        self._lock = threading.Lock()

    @property
    def kinds(self) -> int:
        """Of lines that are remembered."""
        return max(len(self._equal), len(self._alike))

    def filter(self, record: logging.LogRecord) -> bool:
        """Is the line to be written? Those that came too often are counted instead."""
        if isinstance(record, _Told):
            return True
        template = _shorten(record)
        words = record.getMessage()
        with self._lock:
            now_s = self._now()
            equal, equal_before = self._equal.find((record.name, record.levelno, words), words, now_s)
            alike, alike_before = self._alike.find((record.name, record.levelno, template), words, now_s)
            if before := equal_before + alike_before:
                record.msg, record.args = f"{words} ({before:,} more like this in the minutes before)", None
            if self._equal.is_full(equal):
                equal.left_out += 1 + before
            elif self._alike.is_full(alike):
                alike.left_out += 1 + before
            else:
                equal.written += 1
                alike.written += 1
                return True
            self._wait(now_s)
            return False

    def tell(self, *, last: bool = False) -> None:
        """Of the lines that were left out in periods that are over; at the very ``last``, in all."""
        with self._lock:
            now_s, self._waits = self._now(), False
            end_s = math.inf if last else now_s
            told = self._equal.end(end_s) + self._alike.end(end_s)
            self._wait(now_s)
        for record in told:
            self._write(record)

    def _wait(self, now_s: float) -> None:
        ends_s = [end_s for kinds in (self._equal, self._alike) if (end_s := kinds.first_end_s()) is not None]
        if ends_s and not self._waits:
            self._waits = True
            self._later(max(0.0, min(ends_s) - now_s), self.tell)


def _told(key: _Key, seen: _Seen) -> _Told:
    name, level, _ = key
    words = f"{seen.words} ({seen.left_out:,} more like this in the minute before)"
    return _Told(name, level, __file__, 0, words, None, None)


def _shorten(record: logging.LogRecord) -> str:
    """A client's fault in HTTP is one line; no line is endless. Returns the words before their arguments."""
    fault = record.exc_info[1] if record.exc_info else None
    if record.name == "aiohttp.server" and isinstance(fault, HttpProcessingError | ConnectionError):
        record.msg = "a client sent what is no HTTP, or went away: %s"
        record.args = (f"{type(fault).__name__}: {fault}".splitlines()[0][:200],)
        record.exc_info, record.exc_text = None, None
        record.levelno, record.levelname = logging.INFO, "INFO"
    template = str(record.msg)[:200]
    message = record.getMessage()
    if len(message) > _MOST_CHARACTERS:
        record.msg, record.args = f"{message[:_MOST_CHARACTERS]}…", None
    return template


def count_equal_lines() -> None:
    """On every handler of the root logger."""
    for handler in logging.getLogger().handlers:
        counting = CountEqualLines(handler.handle, _call_later)
        handler.addFilter(counting)
        atexit.register(counting.tell, last=True)


def _call_later(seconds: float, do: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, do)
    timer.daemon = True
    timer.start()

"""Which model was asked when, of the last days: requests enter as they come and end, CSV files of bounded size leave.

A line is ``time_s,model,duration_s``: seconds since 1970 at its arrival, and how long the model answered (empty where it never
did). They are in the order of arrival. Nothing of what was asked is kept. A request costs an entry in memory; files are written
beside the loop, and what cannot be written is lost, not waited for.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from modelium.guarded.directories import make_private

log = logging.getLogger(__name__)

HEADER = b"time_s,model,duration_s\n"
_FILES = 4  # the oldest goes when the newest is full
_WRITE_EVERY_S = 5.0
_HOLDS_BACK_S = 600.0  # later requests wait so long for the end of an earlier one: lines are in order
_HOLDS_MOST = 50_000


@dataclass(slots=True, eq=False)
class Entry:
    """One request. ``begun``: when it got its model, by the monotonic clock."""

    arrived: float
    model: str
    begun: float | None = None
    ended: float | None = None

    def begin(self) -> None:
        """Its model answers from now on."""
        self.begun = time.monotonic()

    def end(self) -> None:
        """It is over, however it ended."""
        self.ended = time.monotonic()


class Trail:
    """``directory``: where the files are. ``most_bytes``: of all of them together."""

    def __init__(self, directory: Path, *, most_bytes: int) -> None:
        self._directory = directory
        self._most_bytes = most_bytes // _FILES
        self._wall_ahead = time.time() - time.monotonic()  # a clock that is set back puts no line out of order
        self._entries: deque[Entry] = deque()
        self._lock = threading.Lock()
        self._failing = False
        self._looked = False

    def arrive(self, model: str) -> Entry:
        """A request came."""
        entry = Entry(time.monotonic(), model)
        self._entries.append(entry)
        return entry

    async def run(self) -> None:
        """Write what is over, every few seconds, and the rest when cancelled."""
        try:
            while True:
                await asyncio.sleep(_WRITE_EVERY_S)
                await self.flush()
        finally:
            self._write(self._settled(everything=True))

    async def flush(self) -> None:
        """Write what can be written in order."""
        if lines := self._settled():
            await asyncio.to_thread(self._write, lines)

    def open_files(self) -> list[BinaryIO]:
        """To be read one after the other, and closed; blocking."""
        with self._lock, ExitStack() as opened:
            files: list[BinaryIO] = [opened.enter_context(path.open("rb")) for path in reversed(self._paths()) if path.exists()]
            opened.pop_all()
            return files

    def _settled(self, *, everything: bool = False) -> list[str]:
        """The lines of those from the earliest on that are over, or that the others have waited for long enough."""
        entries, now, lines = self._entries, time.monotonic(), []
        while entries:
            first = entries[0]
            waited_for_enough = now - first.arrived > _HOLDS_BACK_S or len(entries) > _HOLDS_MOST
            if not (first.ended or waited_for_enough or everything):
                break
            entries.popleft()
            took = "" if first.begun is None else f"{(first.ended or now) - first.begun:.3f}"
            lines.append(f"{first.arrived + self._wall_ahead:.3f},{first.model},{took}\n")
        return lines

    # -- files, in a thread ------------------------------------------------------------------------------------------

    def _paths(self) -> list[Path]:
        """The newest first."""
        return [self._directory / (f"trace.{age}.csv" if age else "trace.csv") for age in range(_FILES)]

    def _write(self, lines: list[str]) -> None:
        if not lines:
            return
        with self._lock:
            try:
                self._append("".join(lines).encode())
            except OSError as error:
                if not self._failing:
                    log.warning("%s cannot be written (%s): requests leave no trace meanwhile", self._directory, error.strerror)
                self._failing = True
                return
            self._failing = False

    def _append(self, content: bytes) -> None:
        newest, *older = self._paths()
        if not self._looked:
            make_private(self._directory)
            _end_at_a_line(newest)
            self._looked = True
        if newest.exists() and newest.stat().st_size + len(content) > self._most_bytes:
            for path, after in reversed(list(zip([newest, *older], older, strict=False))):
                if path.exists():
                    path.replace(after)
        with newest.open("ab") as file:
            file.write(content if len(content) <= self._most_bytes else content[-self._most_bytes :].partition(b"\n")[2])


def _end_at_a_line(path: Path) -> None:
    """An earlier Modelium may have ended while it wrote one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)

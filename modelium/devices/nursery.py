"""The nursery: processes that have imported what models need, and fork a child for each instance of a model.

A child is below neither its stub nor Triton, so the nursery leaves a file for each: ``children/PID`` in its directory, with
``CREATED_AT STUB_PID STUB_CREATED_AT``. Its own processes are in ``nurseries/PID`` with ``CREATED_AT``, or in ``nursery.pid``,
one ``PID CREATED_AT`` a line. Each may be of an earlier run: who was created at another time is somebody else.

What enters: that directory. What leaves: processes, whether they live or not.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from modelium.devices.processes import Process

_CHILDREN, _OWN, _OWN_LINES = "children", "nurseries", "nursery.pid"


class Nursery:
    """``directory``: None where there is no nursery, and never one."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def children(self) -> dict[Process, Process]:
        """Each child with its stub."""
        if self._directory is None:
            return {}
        found = _by_pid(self._directory / _CHILDREN, 3)
        return {Process(pid, created_at): Process(*stub) for pid, (created_at, *stub) in found.items()}

    def processes(self) -> tuple[Process, ...]:
        """The nursery's own."""
        if self._directory is None:
            return ()
        found = {Process(pid, created_at) for pid, (created_at,) in _by_pid(self._directory / _OWN, 1).items()}
        lines = (_numbers(line) for line in _read(self._directory / _OWN_LINES).splitlines())
        return tuple(sorted(found | {Process(*numbers) for numbers in lines if len(numbers) == 2}))


def _by_pid(directory: Path, count: int) -> dict[int, tuple[int, ...]]:
    """File by file that is named after a process: its numbers, where there are so many."""
    found: dict[int, tuple[int, ...]] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(directory):  # noqa: PTH208 - read at each look
            if name.isdigit() and len(numbers := _numbers(_read(directory / name))) == count:
                found[int(name)] = numbers
    return found


def _read(path: Path) -> str:
    """ "" for what is not there any more."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _numbers(line: str) -> tuple[int, ...]:
    """Nothing for a line that is about something else, or was not written to its end."""
    words = line.split()
    return tuple(map(int, words)) if all(word.isascii() and word.isdigit() for word in words) else ()

"""The nursery: processes that have imported what models need, and fork a child for each instance of a model.

A child is below neither its stub nor Triton, so the nursery leaves a file for each: ``children/PID`` in its directory, with
``CREATED_AT STUB_PID STUB_CREATED_AT``. For each process of its own there is ``nurseries/PID``, with ``CREATED_AT``. Either may
be of an earlier run: who was created at another time is somebody else.

What enters: that directory. What leaves: processes, whether they live or not.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from modelium.devices.processes import Process

_CHILDREN, _OWN = "children", "nurseries"


class Nursery:
    """``directory``: None where there is no nursery, and never one."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def children(self) -> dict[Process, Process]:
        """Each child with its stub."""
        entries = self._entries(_CHILDREN)
        return {Process(pid, numbers[0]): Process(*numbers[1:]) for pid, numbers in entries if len(numbers) == 3}

    def processes(self) -> tuple[Process, ...]:
        """The nursery's own."""
        return tuple(Process(pid, *numbers) for pid, numbers in self._entries(_OWN) if len(numbers) == 1)

    def _entries(self, kind: str) -> Iterator[tuple[int, tuple[int, ...]]]:
        """The numbers in the file of each process."""
        if self._directory is None:
            return
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(self._directory / kind):  # noqa: PTH208 - read at each look
                if name.isascii() and name.isdigit():
                    yield int(name), _numbers(_read(self._directory / kind / name))


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

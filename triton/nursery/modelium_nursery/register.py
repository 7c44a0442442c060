"""Who was born for which stub, for whoever counts memory and processes: a file for each child, as long as it lives.

``children/PID`` holds one line, ``CREATED_AT STUB_PID STUB_CREATED_AT``; times are clock ticks since boot (field 22 of
/proc/PID/stat), so that a number that is used again is not taken for the same process. ``nurseries/PID`` holds
``CREATED_AT`` for each process of the nurseries that is no child.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

CHILDREN = "children"
OWN = "nurseries"


def created_at(pid: int) -> int:
    """Raises ``ProcessLookupError`` when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError as error:
        raise ProcessLookupError(pid) from error
    return int(stat[stat.rindex(")") + 2 :].split()[19])


class Register:
    """The files below a nursery's directory."""

    def __init__(self, directory: Path) -> None:
        self._children = directory / CHILDREN
        self._own = directory / OWN
        for path in (self._children, self._own):
            path.mkdir(mode=0o700, exist_ok=True)

    @property
    def directories(self) -> tuple[Path, Path]:
        """Where the files are."""
        return self._children, self._own

    def enter(self, child: int, stub: int) -> None:
        """A child was born."""
        with contextlib.suppress(ProcessLookupError):  # one of them has ended already
            self._write(self._children / str(child), f"{created_at(child)} {stub} {created_at(stub)}\n")

    def strike(self, child: int) -> None:
        """It has ended."""
        (self._children / str(child)).unlink(missing_ok=True)

    def knows(self, pid: int) -> bool:
        """Is it a living child, or a process of the nursery?"""
        try:
            created = created_at(pid)
        except ProcessLookupError:
            return False
        return any(_first_number(directory / str(pid)) == created for directory in (self._children, self._own))

    def living(self) -> set[int]:
        """The children, right after ``tidy``."""
        return {int(path.name) for path in self._children.iterdir() if path.name.isdigit()}

    def enter_own(self) -> None:
        """This process belongs to the nursery."""
        self._write(self._own / str(os.getpid()), f"{created_at(os.getpid())}\n")

    def strike_own(self, pid: int) -> None:
        """A process of the nursery has ended."""
        (self._own / str(pid)).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Strike what an earlier nursery left: processes that ended unseen."""
        for directory in (self._children, self._own):
            for path in directory.iterdir():
                try:
                    lives = path.name.isdigit() and created_at(int(path.name)) == _first_number(path)
                except ProcessLookupError:
                    lives = False
                if not lives:
                    path.unlink(missing_ok=True)

    def _write(self, path: Path, text: str) -> None:
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_text(text)
        fresh.replace(path)


def _first_number(path: Path) -> int:
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return -1

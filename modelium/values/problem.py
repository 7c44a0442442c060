"""What is wrong and what to do about it: two sentences that are shown apart or as one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """
    >>> print(Problem("the disk is full", "make room"))
    the disk is full: make room
    """

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"

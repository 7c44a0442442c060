"""What was found in the files of a folder the last time: a growing copy is not read again and again.

What enters and leaves: text, kept for each folder by who asks, and handed to the next look at that folder alone. What a file
came to is known by the file's name, size and time, and holds for the index and the configuration that it was read with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields

from modelium.analyzers.folder import File
from modelium.analyzers.stored import Account, Storing

MOST_TEXT = 2**18  # some 500 shards: what is longer is not kept
_NUMBERS = tuple(each.name for each in fields(Account) if each.name != "elements")


class Remembered:
    """The accounts of files that were whole. Text that is none of ours is as good as none."""

    def __init__(self, text: str = "") -> None:
        self._basis = ""
        self._known: Mapping[str, object] = {}
        self._kept: dict[str, object] = {}
        try:
            found = json.loads(text[:MOST_TEXT]) if text else {}
        except (ValueError, RecursionError):
            found = {}
        if isinstance(found, dict) and isinstance(found.get("files"), dict):
            self._basis, self._known = str(found.get("basis")), found["files"]

    def begin(self, index: File | None, storing: Storing) -> None:
        """What is known holds for this index and this configuration only."""
        basis = f"{index.size} {index.mtime_ns} {storing}" if index is not None else f"{storing}"
        if basis != self._basis:
            self._basis, self._known = basis, {}

    def find(self, file: File) -> Account | None:
        """What ``file`` came to, if it is still the same."""
        match self._known.get(file.name):
            case [int(size), int(time), [*numbers], dict(elements)] if (size, time) == (file.size, file.mtime_ns):
                if len(numbers) != len(_NUMBERS) or not all(_is_count(number) for number in (*numbers, *elements.values())):
                    return None
                found = Account(elements=dict(elements))
                for name, number in zip(_NUMBERS, numbers, strict=True):
                    setattr(found, name, number)
                self._kept[file.name] = self._known[file.name]
                return found
        return None

    def keep(self, file: File, account: Account) -> None:
        """What ``file`` came to now."""
        numbers = [getattr(account, name) for name in _NUMBERS]
        self._kept[file.name] = [file.size, file.mtime_ns, numbers, account.elements]

    def text(self) -> str:
        """For the next look; "" where there is nothing to keep."""
        if not self._kept:
            return ""
        written = json.dumps({"basis": self._basis, "files": self._kept}, separators=(",", ":"))
        return written if len(written) <= MOST_TEXT else ""


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**62

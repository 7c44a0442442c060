"""Who asks: a client's key and how urgent its request is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Priority(IntEnum):
    """Of a request that waits; the lower number goes first. It changes nothing for a request that need not wait."""

    HIGH = 0
    NORMAL = 1
    LOW = 2

    @property
    def word(self) -> str:
        """As clients and the file of keys write it."""
        return self.name.lower()


def priority_called(word: str) -> Priority | None:
    """``high``, ``normal`` or ``low``, in whichever case; None for another word."""
    return Priority.__members__.get(word.strip().upper())


@dataclass(frozen=True, slots=True)
class Asker:
    """``key``: the name of its API key, "" where none is needed. Its ``priority`` is never above that of its key."""

    key: str = ""
    priority: Priority = Priority.NORMAL


def asker_of(key: str, wanted: Priority | None, highest: Priority | None = None) -> Asker:
    """Who asks with the key of that name. ``wanted``: the priority that the request asks for; ``highest``: what the key's
    requests have, and the most that they may ask for. None: nothing is said of it."""
    usual = Priority.NORMAL if highest is None else highest
    if wanted is None:
        return Asker(key, usual)
    return Asker(key, wanted if highest is None else max(wanted, highest))

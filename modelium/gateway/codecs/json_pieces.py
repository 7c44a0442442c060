"""Large JSON built in pieces: bytes and where their values end enter, Python values leave.

orjson holds the interpreter from the first byte to the last, a quarter of a second for 60 MB, in which nobody else is served.
So what is large is cut where its own structure has a seam, between the items of a list or an object or between the characters
of a text, and each piece, with brackets or quotes around it again, is orjson's to read. A cut at the wrong place could only
make pieces that are no JSON: what orjson would refuse as a whole is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

PIECE_BYTES = 2**18  # some milliseconds' work
_SPACE = b" \t\r\n"
_STEP_BYTES = 2**12
# A text can be cut behind any of these: never within an escape, or between the halves of a surrogate pair.
_UNITS = re.compile(
    rb"(?:[^\\]++|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|\\[^u])*+",
    re.DOTALL,
)
_FIRST_HALF = re.compile(rb"\\u[dD][89abAB]")
_HALF_BYTES = 6
_LONGEST_UNIT = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """Places of the commas and the colons outside of texts, how deep each lies, and which of them are commas."""

    places: NDArray[np.int64]
    depths: NDArray[np.int32]
    commas: NDArray[np.bool_]

    @classmethod
    def of(cls, parts: Sequence[Seams]) -> Seams:
        """Those of pieces that follow each other."""
        return cls(
            places=np.concatenate([part.places for part in parts]),
            depths=np.concatenate([part.depths for part in parts]),
            commas=np.concatenate([part.commas for part in parts]),
        )

    def between(self, start: int, end: int, depth: int, *, commas: bool) -> NDArray[np.int64]:
        """Places from ``start`` to ``end`` at that depth: of the commas, or of the colons."""
        first, last = np.searchsorted(self.places, (start, end))
        chosen = (self.depths[first:last] == depth) & (self.commas[first:last] == commas)
        found: NDArray[np.int64] = self.places[first:last][chosen]
        return found


def load_in_pieces(data: bytes, seams: Seams, *, piece_bytes: int) -> object:
    """Raises ``orjson.JSONDecodeError``, whose position is one in a piece."""
    return _Cutter(data, seams, max(piece_bytes, 2 * _LONGEST_UNIT)).value(0, len(data), 0)


class _Cutter:
    def __init__(self, data: bytes, seams: Seams, piece_bytes: int) -> None:
        self._data = data
        self._seams = seams
        self._most = piece_bytes

    def value(self, start: int, end: int, depth: int) -> object:
        """The one value between ``start`` and ``end``, which lies ``depth`` deep."""
        start, end = self._trimmed(start, end)
        if end - start <= self._most:
            return orjson.loads(self._data[start:end])
        match self._data[start : start + 1] + self._data[end - 1 : end]:
            case b"[]":
                return self._list(start + 1, end - 1, depth + 1)
            case b"{}":
                return self._object(start + 1, end - 1, depth + 1)
            case b'""':
                return self._text(start + 1, end - 1)
            case both if both[:1] in b'[{"':
                raise orjson.JSONDecodeError("a list, an object or a text has no end", "", 0)
            case _:
                raise orjson.JSONDecodeError("a number or a word is longer than any", "", 0)

    def _trimmed(self, start: int, end: int) -> tuple[int, int]:
        """Without the blanks around it, some of which at a time: a body may be nothing else."""
        start = behind_blanks(self._data, start, end)
        while start < end and (blanks := _blanks_behind(self._data[max(start, end - _STEP_BYTES) : end])):
            end -= blanks
        return start, end

    def _list(self, start: int, end: int, depth: int) -> list[object]:
        made: list[object] = []
        for first, last, small in self._items(start, end, depth):
            if small:
                made += _some(orjson.loads(b"[" + self._data[first:last] + b"]"))
            else:
                made.append(self.value(first, last, depth))
        return made

    def _object(self, start: int, end: int, depth: int) -> dict[str, object]:
        made: dict[str, object] = {}
        for first, last, small in self._items(start, end, depth):
            if small:
                made |= _some(orjson.loads(b"{" + self._data[first:last] + b"}"))
                continue
            colons = self._seams.between(first, last, depth, commas=False)
            colon = int(colons[0]) if len(colons) else first
            named, to = self._trimmed(first, colon)
            names = orjson.loads(b"{" + self._data[named:to] + b":0}")
            made |= dict.fromkeys(names, self.value(colon + 1, last, depth))
        return made

    def _items(self, start: int, end: int, depth: int) -> Iterator[tuple[int, int, bool]]:
        """From where to where: as many items together as are a piece (then True), or one that is more than that."""
        commas = self._seams.between(start, end, depth, commas=True)
        if not len(commas) and behind_blanks(self._data, start, end) == end:
            return
        ends, at = np.append(commas, end), 0
        while at < len(ends):
            at = max(at + 1, int(np.searchsorted(ends, start + self._most, side="right")))
            stop = int(ends[at - 1])
            yield start, stop, stop - start <= self._most
            start = stop + 1

    def _text(self, start: int, end: int) -> str:
        parts: list[str] = []
        while start < end:
            stop = end
            if end - start > self._most:
                stop = start + _whole_units(self._data[start : start + self._most])
                for _ in range(3):  # a character of several bytes
                    stop -= stop > start and self._data[stop] & 0xC0 == 0x80
                if stop == start:
                    raise orjson.JSONDecodeError("a text has half a surrogate pair, or an escape that is none", "", 0)
            parts.append(orjson.loads(b'"' + self._data[start:stop] + b'"'))
            start = stop
        return "".join(parts)


def behind_blanks(data: bytes, at: int, end: int) -> int:
    """The first place from ``at`` on that is no blank, or ``end``: some at a time, so that others have their turn."""
    while at < end and (blanks := _blanks_before(data[at : min(end, at + _STEP_BYTES)])):
        at += blanks
    return at


def _blanks_before(piece: bytes) -> int:
    return len(piece) - len(piece.lstrip(_SPACE))


def _blanks_behind(piece: bytes) -> int:
    return len(piece) - len(piece.rstrip(_SPACE))


def _whole_units(text: bytes) -> int:
    """How much of ``text``, which begins with a whole unit, does not end within one."""
    last = text.rfind(b"\\")
    if last < 0:
        return len(text)
    first = len(text[: last + 1].rstrip(b"\\"))  # here begins an escape; or the second half of a pair does
    if _FIRST_HALF.match(text, max(0, first - _HALF_BYTES)):
        first -= _HALF_BYTES
    units = _UNITS.match(text, max(0, first))
    return units.end() if units else 0


Items = TypeVar("Items", list[object], dict[str, object])


def _some(items: Items) -> Items:
    """Between two commas, or a comma and the end, there is something."""
    if not items:
        raise orjson.JSONDecodeError("there is nothing between two commas, or behind the last one", "", 0)
    return items

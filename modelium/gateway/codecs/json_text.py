"""JSON of strangers: bytes enter, Python values leave, or an error before anything is built from them.

A body of 64 MiB can hold 20 million lists, which take 10 s and 1 GB to build, and nobody else is served while the parser holds
the interpreter. So the bytes are measured first, in one pass over small pieces: how deep, how many, how long a name. Nothing
that passes is slow to build or to walk through, and what is large is built in pieces (``json_pieces``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import orjson
from numpy.typing import NDArray

from modelium.errors import RequestError
from modelium.gateway.codecs.json_pieces import PIECE_BYTES, Seams, behind_blanks, load_in_pieces

MAX_DEPTH = 64
MAX_NAME_BYTES = 1024
MAX_VALUES = 2**21  # names, numbers, texts …: eight pictures as numbers have 1.2 million
MAX_LISTS = 2**18  # lists and objects, which take ten times as long to build

_QUOTE, _OPEN, _CLOSE, _BETWEEN = 1, 2, 3, 4
_KINDS = bytearray(256)
for _characters, _kind in ((b'"', _QUOTE), (b"[{", _OPEN), (b"]}", _CLOSE), (b",:", _BETWEEN)):
    for _character in _characters:
        _KINDS[_character] = _kind
_KIND_OF = bytes(_KINDS)
_COMMA = ord(",")


@dataclass(slots=True)
class Measure:
    """What is known up to ``at``. ``text_from``: where the string began that ``at`` lies in, -1 outside of strings."""

    at: int = 0
    text_from: int = -1
    depth: int = 0
    values: int = 1
    lists: int = 0
    found: list[Seams] = field(default_factory=list)

    @property
    def seams(self) -> Seams:
        """Those of everything that was measured."""
        return Seams.of(self.found)


def load_json(data: bytes) -> object:
    """Raises ``RequestError`` (400) for what is no JSON, or more of it than any request needs."""
    try:
        if len(data) > PIECE_BYTES:
            return load_in_pieces(data, measured(data).seams, piece_bytes=PIECE_BYTES)
        check_size(data)
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        said = str(error) if len(data) <= PIECE_BYTES else error.msg  # a place in a piece means nothing to anybody
        raise RequestError(f"the body is not JSON: {said}") from None


def check_size(data: bytes) -> None:
    """Raises ``RequestError`` for JSON that is too deep, has too many values, or a name that is too long."""
    if len(data) > MAX_NAME_BYTES or data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        measured(data)


def measured(data: bytes) -> Measure:
    """What ``check_size`` raises, it raises too."""
    measure = Measure()
    while measure.at < len(data):
        _go_on(data, measure)
    return measure


def _go_on(data: bytes, measure: Measure) -> None:
    piece = data[measure.at : measure.at + PIECE_BYTES]
    if b"\\" in piece:
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2 and len(piece) > 1:
            piece = piece[:-1]  # what it escapes is in the next piece
        length = len(piece)
        piece = piece.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        assert len(piece) == length
    raw = np.frombuffer(piece, dtype=np.uint8)
    kinds = np.frombuffer(piece.translate(_KIND_OF), dtype=np.uint8)
    places = np.flatnonzero(kinds)
    kinds = kinds[places]
    quotes = kinds == _QUOTE
    inside = ((np.cumsum(quotes, dtype=np.int32) + (measure.text_from >= 0)) & 1).astype(bool)
    kinds[inside] = 0
    opened = kinds == _OPEN
    depths = measure.depth + np.cumsum(opened.astype(np.int8) - (kinds == _CLOSE), dtype=np.int32)
    if depths.size:
        if int(depths.max()) > MAX_DEPTH:
            raise RequestError(f"the body's lists and objects lie more than {MAX_DEPTH} deep in one another")
        measure.depth = int(depths[-1])
    lists = int(np.count_nonzero(opened))
    measure.lists += lists
    measure.values += lists + int(np.count_nonzero(kinds == _BETWEEN))
    if measure.values > MAX_VALUES:
        raise RequestError(f"the body has more than {MAX_VALUES:,} names and values; send several requests")
    if measure.lists > MAX_LISTS:
        raise RequestError(f"the body has more than {MAX_LISTS:,} lists and objects; send several requests")
    seams = kinds == _BETWEEN
    measure.found.append(
        Seams(
            places=measure.at + places[seams],
            depths=depths[seams],
            commas=raw[places[seams]] == _COMMA,
        )
    )
    _check_names(data, measure, measure.at + places[quotes & inside], measure.at + places[quotes & ~inside])
    measure.at += len(piece)


def _check_names(data: bytes, measure: Measure, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
    if measure.text_from >= 0:
        starts = np.concatenate([[measure.text_from], starts])
    measure.text_from = int(starts[-1]) if len(starts) > len(ends) else -1
    for end in ends[ends - starts[: len(ends)] - 1 > MAX_NAME_BYTES]:
        behind = behind_blanks(data, int(end) + 1, len(data))
        if data[behind : behind + 1] == b":":
            raise RequestError(f"the body has a field whose name is longer than {MAX_NAME_BYTES:,} bytes")

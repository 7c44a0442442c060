"""Protobuf's wire format, walked without decoding: lengths are skipped over, so 2 GB of weights cost nothing.

What enters: a file and a range in it. What leaves: fields one by one. A field that says it is longer than its range
raises ``FieldEnds`` with the position where it would have ended: for the outermost range, the size that the file has to
have.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

MAX_NUMBERS = 1_500_000  # varints of one file that are read: 50,000 nodes and 10,000 tensors take a sixth of it
_WINDOW_BYTES = 8192  # small: between tensors that are skipped over, little more than the next key is read


class FieldEnds(Exception):
    """A field runs past its range; ``expected_end`` is where it would end (None when not even that is known)."""

    def __init__(self, expected_end: int | None) -> None:
        super().__init__(expected_end)
        self.expected_end = expected_end


class FileShrank(Exception):
    """The file has become shorter than it was when it was listed: somebody is writing it anew."""


class TooManyFields(Exception):
    """More fields than any model has: to walk them all would take minutes."""


class NotProtobuf(Exception):
    """Bytes that no protobuf writer makes."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: a varint has ``value``; a length-delimited one spans ``start`` to ``end`` of the file."""

    number: int
    value: int
    start: int
    end: int
    delimited: bool


class FileBytes:
    """A file's bytes by position, read in small windows.

    Not mmap: whoever overwrites the file while it is mapped shortens it first, and touching what is gone kills the process
    with SIGBUS. Here it is a ``FileShrank``.
    """

    __slots__ = ("_at", "_file", "_numbers_left", "_window", "size")

    def __init__(self, file_descriptor: int, size: int) -> None:
        self._file, self.size = file_descriptor, size
        self._at, self._window = 0, b""
        self._numbers_left = MAX_NUMBERS

    def spend(self) -> None:
        """One more number was read. Raises ``TooManyFields``."""
        self._numbers_left -= 1
        if self._numbers_left < 0:
            raise TooManyFields

    def byte(self, at: int) -> int:
        """The byte at a place of the file. Raises ``FileShrank`` behind its end."""
        offset = at - self._at
        if not 0 <= offset < len(self._window):
            self._window, self._at, offset = os.pread(self._file, _WINDOW_BYTES, at), at, 0
            if not self._window:
                raise FileShrank
        return self._window[offset]

    def piece(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to ``end``. Raises ``FileShrank`` where there are fewer."""
        offset = start - self._at
        if offset >= 0 and end - self._at <= len(self._window):
            return self._window[offset : end - self._at]
        piece = os.pread(self._file, end - start, start)
        if len(piece) < end - start:
            raise FileShrank
        return piece


def read_varint(source: FileBytes, at: int, end: int) -> tuple[int, int]:
    """A varint and the position behind it."""
    source.spend()
    value = shift = 0
    while at < end:
        byte = source.byte(at)
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise NotProtobuf
    raise FieldEnds(None)


def walk(source: FileBytes, start: int, end: int) -> Iterator[Field]:
    """The fields between ``start`` and ``end``."""
    at = start
    while at < end:
        key, at = read_varint(source, at, end)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise NotProtobuf
        match wire:
            case 0:
                value, after = read_varint(source, at, end)
                yield Field(number, value, at, after, False)
            case 2:
                length, at = read_varint(source, at, end)
                after = at + length
                if after > end:
                    raise FieldEnds(after)
                yield Field(number, 0, at, after, True)
            case 1 | 5:
                after = at + (8 if wire == 1 else 4)
                if after > end:
                    raise FieldEnds(after)
                yield Field(number, 0, at, after, False)
            case _:
                raise NotProtobuf
        at = after


def signed(value: int) -> int:
    """A varint as protobuf's int64."""
    return value - 2**64 if value >= 2**63 else value

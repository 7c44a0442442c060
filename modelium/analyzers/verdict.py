"""How an analysis ends early: ``NotYet`` (a copy under way) and ``Rejected`` (cannot be served).

What enters: what one file shows. What leaves: an exception that ``analyze`` turns into ``Incomplete`` or
``Unsupported``. They never leave this room.
"""

from __future__ import annotations

from modelium.sizes import human_progress
from modelium.values import MissingPart


class NotYet(Exception):
    """Something is missing that may still arrive.

    ``hint_when_stale`` is set where only time can tell a copy under way from a folder that will never be whole: when
    nothing has arrived for ``FRESH_S``, the answer becomes Unsupported with this hint.
    """

    def __init__(self, why: str, *missing: MissingPart, hint_when_stale: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.missing = missing
        self.hint_when_stale = hint_when_stale


class Rejected(Exception):
    """The folder cannot be served as it is, whatever else arrives."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint


def describe_part(part: MissingPart) -> str:
    """What is missing of one file, in one clause.

    >>> describe_part(MissingPart(file="model.safetensors", present_bytes=1_288_490_188, expected_bytes=5_261_334_937))
    'model.safetensors: 1.2 of 4.9 GiB'
    """
    return f"{part.file}: {part.detail or human_progress(part.present_bytes, part.expected_bytes)}"


def not_whole(file: str, present_bytes: int, expected_bytes: int | None = None, detail: str = "") -> NotYet:
    """The verdict that one file is shorter than it has to be."""
    part = MissingPart(file=file, present_bytes=present_bytes, expected_bytes=expected_bytes, detail=detail)
    return NotYet(describe_part(part), part)


def short_number(number: int) -> str:
    """Numbers of thousands of digits are not written out."""
    return f"{number:,}" if abs(number) < 10**24 else f"over 2^{number.bit_length() - 1}"

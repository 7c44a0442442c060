"""Sizes: numbers of bytes enter, the words that people read leave. Powers of 1,024 everywhere, as memory is counted."""

from __future__ import annotations

MIB, GIB = 2**20, 2**30


def human_bytes(size: float) -> str:
    """
    >>> human_bytes(512), human_bytes(92_000_000), human_bytes(1_288_490_188)
    ('512 B', '88 MiB', '1.2 GiB')
    """
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1023.5:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def human_progress(present: int, expected: int | None) -> str:
    """How much of a file is there.

    >>> human_progress(1_288_490_188, 5_261_334_937), human_progress(0, None), human_progress(2**20, None)
    ('1.2 of 4.9 GiB', 'not there yet', '1 MiB so far')
    """
    there = human_bytes(present)
    if expected is None:
        return f"{there} so far" if present else "not there yet"
    number, unit = there.split(" ")
    wanted = human_bytes(expected)
    return f"{number if wanted.endswith(unit) else there} of {wanted}"

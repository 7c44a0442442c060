"""Long work on the event loop, in pieces: what enters is a look at the clock now and then, what leaves is a turn for others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

_PIECE_S = 0.005
_T = TypeVar("_T")


async def in_pieces(items: Iterable[_T], *, piece_s: float = _PIECE_S) -> AsyncIterator[_T]:
    """``items`` one by one; everybody else has a turn whenever those since the last took ``piece_s`` seconds.

    What is iterated over may change meanwhile: give a copy.
    """
    since = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - since > piece_s:
            await asyncio.sleep(0)
            since = time.perf_counter()

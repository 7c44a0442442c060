"""Several generations of one request side by side: their streams enter, (index, piece) leave as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from modelium.gateway.generation import Piece
from modelium.gateway.generation.values import AT_ONCE

Stream = AsyncGenerator[Piece, None]
_AHEAD = 64  # pieces that may wait for a slow client, in all


async def interleave(streams: Sequence[Stream]) -> AsyncGenerator[tuple[int, Piece], None]:
    """The first failure ends all of them, and so does closing this generator."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as stream:
            async for piece in stream:
                yield 0, piece
        return
    slots = asyncio.Semaphore(AT_ONCE)
    queue: asyncio.Queue[tuple[int, Piece | Exception | None]] = asyncio.Queue(_AHEAD)

    async def pump(index: int, stream: Stream) -> None:
        failure: Exception | None = None
        try:
            async with slots, aclosing(stream):
                async for piece in stream:
                    await queue.put((index, piece))
        except Exception as error:
            failure = error
        await queue.put((index, failure))

    tasks = [asyncio.create_task(pump(index, stream)) for index, stream in enumerate(streams)]
    try:
        running = len(tasks)
        while running:
            match await queue.get():
                case (_, None):
                    running -= 1
                case (_, Exception() as error):
                    raise error
                case (index, Piece() as piece):
                    yield index, piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

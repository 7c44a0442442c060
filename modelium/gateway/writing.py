"""Writing to a client that may have stopped reading: a write and the time for it enter, nothing or an error leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from aiohttp import web

GRACE_S = 2.0  # after a deadline, for what is said last


async def write_within(request: web.Request, seconds: float, write: Awaitable[None]) -> None:
    """A client that does not read what it is sent holds its model no longer than this: then the connection is cut.

    Raises ``ConnectionError``.
    """
    try:
        async with asyncio.timeout(seconds):
            await write
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client stopped reading") from None

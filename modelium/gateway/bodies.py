"""Bodies of requests: a request enters, its bytes leave."""

from __future__ import annotations

import asyncio

from aiohttp import web

from modelium.gateway.deadline import Deadline
from modelium.gateway.errors import MAX_BODY_BYTES


async def read_body(request: web.Request, deadline: Deadline) -> bytes:
    """Before anything else is done: a slow upload must not hold a model."""
    limit = request.app[MAX_BODY_BYTES]
    if request.content_length is not None and request.content_length > limit:  # before anything is read; chunks are counted
        raise web.HTTPRequestEntityTooLarge(limit, request.content_length)
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            return await request.read()
    except TimeoutError:
        raise deadline.exceeded(" of the body") from None

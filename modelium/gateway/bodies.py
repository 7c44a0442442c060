"""Bodies of requests: requests enter, their bytes leave, and what is to be made of large ones is made beside the loop.

Three bounds: on one body (as it was sent, and unpacked), on the bytes of all bodies that are under way, and on the time that
large ones take from the others: they are read one after another in a thread, whose work is in small pieces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler

from modelium.errors import TooMuchUnderWay
from modelium.gateway.deadline import Deadline
from modelium.gateway.decompression import decompression_of
from modelium.gateway.errors import MAX_BODY_BYTES

T = TypeVar("T")

LARGE_BYTES = 2**18  # what is made of smaller bodies takes milliseconds, even of one full of empty lists
_FREE_BYTES = 2**16  # of each body: what controls Modelium gets through whatever others send
_RETRY_AFTER_S = 1.0


class Bodies:
    """All bodies that are under way. One for the whole gateway."""

    def __init__(self, max_buffered_bytes: int) -> None:
        self._most = max_buffered_bytes
        self._held = 0
        self._apart = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bodies")

    def take(self, size: int) -> None:
        """Raises ``TooMuchUnderWay`` (503)."""
        if self._held + size > self._most:
            raise TooMuchUnderWay(
                f"the bodies of all requests together would take more than {self._most} bytes now; try again in a moment "
                "(gateway.max_buffered_bytes allows more)",
                _RETRY_AFTER_S,
            )
        self._held += size

    def give_back(self, size: int) -> None:
        self._held -= size

    async def apart(self, work: Callable[[], T]) -> T:
        """``work``, in the thread for large bodies."""
        return await asyncio.get_running_loop().run_in_executor(self._apart, work)

    async def close(self, app: web.Application) -> None:
        """For the application's ``on_cleanup``."""
        self._apart.shutdown(wait=False, cancel_futures=True)


BODIES: web.AppKey[Bodies] = web.AppKey("bodies", Bodies)
_HELD: web.RequestKey[int] = web.RequestKey("held_bytes", int)


@web.middleware
async def give_back_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What a request's body took is free again when the request was answered."""
    try:
        return await handler(request)
    finally:
        if held := request.get(_HELD, 0):
            request.app[BODIES].give_back(held)


async def read_body(request: web.Request, deadline: Deadline) -> bytes:
    """Before anything else is done: a slow upload must not hold a model."""
    limit = request.app[MAX_BODY_BYTES]
    if request.content_length is not None and request.content_length > limit:  # before anything is read; chunks are counted
        raise web.HTTPRequestEntityTooLarge(limit, request.content_length)
    unpack = decompression_of(request.headers.get("Content-Encoding", ""))
    body, sent = bytearray(), 0
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            async for data in request.content.iter_any():
                sent += len(data)
                for piece in unpack.pieces(data) if unpack is not None else (data,):
                    if sent > limit or len(body) + len(piece) > limit:
                        raise web.HTTPRequestEntityTooLarge(limit, max(sent, len(body) + len(piece)))
                    _hold(request, len(body) + len(piece))
                    body += piece
                    if unpack is not None:
                        await asyncio.sleep(0)  # a little may become much: not all of it in one turn
    except TimeoutError:
        raise deadline.exceeded(" of the body") from None
    if unpack is not None and sent:
        unpack.end()
    return bytes(body)


def _hold(request: web.Request, size: int) -> None:
    more = size - _FREE_BYTES - request.get(_HELD, 0)
    if more > 0:
        request.app[BODIES].take(more)
        request[_HELD] = request.get(_HELD, 0) + more


async def work_on(request: web.Request, deadline: Deadline, size: int, work: Callable[[], T]) -> T:
    """What ``work`` makes of a body of ``size`` bytes: here and now, or beside the loop where it is large."""
    if size <= LARGE_BYTES:
        return work()
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            return await request.app[BODIES].apart(work)
    except TimeoutError:
        raise deadline.exceeded(" while the body was read") from None

"""Bodies of requests: requests enter, their bytes leave, and what is to be made of large ones is made beside the loop.

Four bounds:
1. On one body, as it was sent and unpacked.
2. On the bytes of all bodies that are under way. Where one more would be too much, the one that comes slowest goes: whoever
   sends a little now and then holds no room that others ask for.
3. On the time that a body takes to come: a while, and more for each byte that came.
4. On the time that large ones take from the others: they are read one after another in a thread, in small pieces.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from aiohttp import StreamReader, web
from aiohttp.typedefs import Handler

from modelium.errors import TooMuchUnderWay
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.decompression import decompression_of
from modelium.gateway.http.errors import MAX_BODY_BYTES

T = TypeVar("T")

LARGE_BYTES = 2**18  # what is made of smaller bodies takes milliseconds, even of one full of empty lists
FREE_BYTES = 2**16  # of each body: what controls Modelium gets through whatever others send
_RETRY_AFTER_S = 1.0
_PROGRESS_BYTES = 2**16
_PATIENCE_S = 1.0  # a body that brought as much in that time is not slow
_LEAST_BYTES_PER_S = 1024


@dataclass(slots=True, eq=False)
class _Upload:
    """One body that comes: what of ``max_buffered_bytes`` is its, and when it last was some way further."""

    content: StreamReader
    began_at: float = field(default_factory=monotonic)
    held: int = 0
    moved: int = 0  # how much of it there was at ``moved_at``
    moved_at: float = 0.0


class Bodies:
    """All bodies that are under way. One for the whole gateway."""

    def __init__(self, max_buffered_bytes: int, *, stall_s: float) -> None:
        self._most = max_buffered_bytes
        self._stall_s = stall_s
        self._held = 0
        self._coming: dict[_Upload, None] = {}  # the one that was some way further the longest time ago is the first
        self._apart = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bodies")

    def hold(self, upload: _Upload, size: int) -> None:
        """For the ``size`` bytes that there are of it now. Raises ``TooMuchUnderWay`` (503), and what pushed it out."""
        if (ended := upload.content.exception()) is not None:
            raise ended
        more = size - FREE_BYTES - upload.held
        if more <= 0:
            return
        if size - upload.moved >= _PROGRESS_BYTES:
            self._coming.pop(upload, None)
            self._coming[upload] = None
            upload.moved, upload.moved_at = size, monotonic()
        while self._held + more > self._most:
            slowest = next(iter(self._coming), upload)
            if slowest is upload or monotonic() - slowest.moved_at <= _PATIENCE_S:
                raise self._too_much("")
            self.give_back(slowest)
            slowest.content.set_exception(self._too_much(", and this one came slowest"))
        self._held += more
        upload.held += more

    def _too_much(self, which: str) -> TooMuchUnderWay:
        return TooMuchUnderWay(
            f"the bodies of all requests together would take more than {self._most} bytes now{which}; try again in a moment "
            "(gateway.max_buffered_bytes allows more)",
            _RETRY_AFTER_S,
        )

    def check_pace(self, upload: _Upload, sent: int) -> None:
        """Raises ``HTTPRequestTimeout`` (408)."""
        if monotonic() - upload.began_at > self._stall_s + sent / _LEAST_BYTES_PER_S:
            late = web.HTTPRequestTimeout(
                reason=f"the body came slower than {_LEAST_BYTES_PER_S} bytes a second; send it again"
            )
            upload.content.set_exception(late)  # so that the connection ends, and nobody waits for the rest
            raise late

    def whole(self, upload: _Upload) -> None:
        """It came: it keeps its room until it is answered."""
        self._coming.pop(upload, None)

    def give_back(self, upload: _Upload) -> None:
        """The memory of an upload is free again."""
        self._coming.pop(upload, None)
        self._held -= upload.held
        upload.held = 0

    def take(self, size: int) -> bool:
        """Room for a body that comes within a moment, where that is there and nobody has to go for it; ``give`` ends it."""
        if self._held + size > self._most:
            return False
        self._held += size
        return True

    def give(self, size: int) -> None:
        """What was taken is free again."""
        self._held -= size

    async def apart(self, work: Callable[[], T]) -> T:
        """``work``, in the thread for large bodies."""
        return await asyncio.get_running_loop().run_in_executor(self._apart, work)

    async def close(self, _app: web.Application) -> None:
        """For the application's ``on_cleanup``."""
        self._apart.shutdown(wait=False, cancel_futures=True)


BODIES: web.AppKey[Bodies] = web.AppKey("bodies", Bodies)
_UPLOAD: web.RequestKey[_Upload] = web.RequestKey("upload", _Upload)


@web.middleware
async def give_back_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What a request's body took is free again when the request was answered."""
    try:
        return await handler(request)
    finally:
        if (upload := request.get(_UPLOAD)) is not None:
            request.app[BODIES].give_back(upload)


async def read_body(request: web.Request, deadline: Deadline, *, as_sent: bool = False) -> bytes:
    """Before anything else is done: a slow upload must not hold a model. ``as_sent``: packed, if it came so, and counted
    unpacked all the same: whoever unpacks it holds all of it."""
    limit = request.app[MAX_BODY_BYTES]
    if request.content_length is not None and request.content_length > limit:  # before anything is read; chunks are counted
        raise web.HTTPRequestEntityTooLarge(limit, request.content_length)
    unpack = decompression_of(", ".join(request.headers.getall("Content-Encoding", ())))
    announced = request.content_length
    if unpack is None and announced is not None and announced <= FREE_BYTES and request.content.is_eof():
        return request.content.read_nowait()  # a small one that came with its headers, as most do: nothing to wait for or count
    body, size, sent = io.BytesIO(), 0, 0  # gives its bytes away as they are: to copy 60 MB would hold the loop for 60 ms
    bodies, upload = request.app[BODIES], _Upload(request.content)
    request[_UPLOAD] = upload
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            async for data in request.content.iter_any():
                sent += len(data)
                bodies.check_pace(upload, sent)
                for piece in unpack.pieces(data) if unpack is not None else (data,):
                    size += len(piece)
                    if sent > limit or size > limit:
                        raise web.HTTPRequestEntityTooLarge(limit, max(sent, size))
                    if not as_sent:
                        bodies.hold(upload, size)
                        body.write(piece)
                    if unpack is not None:
                        await asyncio.sleep(0)  # a little may become much: not all of it in one turn
                if as_sent:
                    bodies.hold(upload, sent)
                    body.write(data)
    except TimeoutError:
        raise deadline.exceeded(" of the body") from None
    bodies.whole(upload)
    if unpack is not None and sent:
        unpack.end()
    return body.getvalue()


async def work_on(request: web.Request, deadline: Deadline, size: int, work: Callable[[], T]) -> T:
    """What ``work`` makes of a body of ``size`` bytes: here and now, or beside the loop where it is large."""
    if size <= LARGE_BYTES:
        return work()
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            return await request.app[BODIES].apart(work)
    except TimeoutError:
        raise deadline.exceeded(" while the body was read") from None

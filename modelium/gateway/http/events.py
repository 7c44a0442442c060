"""Server-sent events: a handler's events enter, a streamed HTTP answer leaves.

Nothing is sent before the first event, so that an error up to there keeps its HTTP status. A client that waits long (for a
load, for a slot in the engine) sees comments (``: llama is LOADING``), which every parser of events skips: the connection
lives, and proxies do not close it. From the first byte on, an error is an event.

A client that does not read what it is sent holds its model no longer than its deadline: then the connection is cut.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType

from aiohttp import web

from modelium.errors import DeadlineExceeded, ModeliumError
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.answers import GRACE_S, write_within
from modelium.gateway.http.counting import BROKEN_OFF, CLIENT_GONE
from modelium.gateway.http.errors import REQUEST_ID, presentable
from modelium.gateway.http.statuses import status_of

SILENCE_S = 1.0  # before the first comment: most errors come sooner, and keep their status
KEEP_ALIVE_S = 5.0  # between comments

_EVENTS = "text/event-stream; charset=utf-8"
_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would collect events otherwise
}


class EventStream:
    """One streamed answer::

        async with EventStream(request, comment=lambda: "llama is LOADING", error_event=as_event, deadline=d) as events:
            async for piece in pieces:
                await events.send(b"data: …\\n\\n")
        return events.response

    ``comment`` is asked for what to say each time nothing came for a while. ``error_event`` makes the event of an error that
    happens after the first byte; the answer then ends well. Before it, the error goes on to the handler's caller. ``headers``
    may be added to until the first byte is sent. ``quiet``: what is sent instead of a comment, where the answer is no stream of
    events but of another ``content_type``.
    """

    def __init__(
        self,
        request: web.Request,
        *,
        comment: Callable[[], str],
        error_event: Callable[[ModeliumError], bytes],
        deadline: Deadline,
        content_type: str = _EVENTS,
        quiet: Callable[[], bytes] | None = None,
    ) -> None:
        self.headers = {**_HEADERS, "Content-Type": content_type, "X-Request-Id": request[REQUEST_ID]}
        self._quiet = quiet if quiet is not None else lambda: f": {comment()}\n\n".encode()
        self._request = request
        self._error_event = error_event
        self._deadline = deadline
        self._response: web.StreamResponse | None = None
        self._opening = asyncio.Lock()
        self._sent_at = 0.0
        self._keeper: asyncio.Task[None] | None = None

    @property
    def response(self) -> web.StreamResponse:
        """What the handler returns, after the ``async with``."""
        assert self._response is not None, "nothing was sent"
        return self._response

    @property
    def started(self) -> bool:
        """Is the status 200 on its way?"""
        return self._response is not None

    async def send(self, event: bytes) -> None:
        """Send an event, ``data: …`` with its empty line. Waits while the client reads slower than it is sent to; raises
        ``DeadlineExceeded`` or ``ConnectionError`` after the deadline."""
        response = self._response or await self._open()
        self._sent_at = asyncio.get_running_loop().time()
        await write_within(self._request, self._deadline.remaining_s(), response.write(event))

    async def __aenter__(self) -> EventStream:
        self._keeper = asyncio.create_task(self._keep_alive())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        assert self._keeper is not None
        self._keeper.cancel()
        await asyncio.wait([self._keeper])  # it may be in the middle of a write
        if error is None:
            response = self._response or await self._open()
            with contextlib.suppress(ConnectionError):  # it has all that it wanted, and closed before the end was said
                await write_within(self._request, self._last_s(), response.write_eof())
            return False
        if self._response is None or not isinstance(error, Exception):
            return False
        if isinstance(error, ConnectionError):  # nobody is there to be told, and it is nobody's fault
            self._request[BROKEN_OFF] = CLIENT_GONE
            return True
        shown = presentable(error, self._request)
        self._request[BROKEN_OFF] = status_of(shown)
        await write_within(self._request, self._last_s(), self._response.write(self._error_event(shown)))
        await write_within(self._request, self._last_s(), self._response.write_eof())
        return True

    def _last_s(self) -> float:
        return max(GRACE_S, self._deadline.timeout_s - self._deadline.elapsed_s())

    async def _open(self) -> web.StreamResponse:
        async with self._opening:
            if self._response is None:
                response = web.StreamResponse(headers=self.headers)
                await response.prepare(self._request)
                self._response = response
            return self._response

    async def _keep_alive(self) -> None:
        """Comments while nothing else is sent. One task a stream, so that an event costs no more than its write."""
        loop = asyncio.get_running_loop()
        began, pause = loop.time(), SILENCE_S
        while True:
            quiet_since = max(began, self._sent_at)
            left = quiet_since + pause - loop.time()
            if left > 0:
                await asyncio.sleep(left)
                continue
            pause = KEEP_ALIVE_S
            try:
                await self.send(self._quiet())
            except (ConnectionError, DeadlineExceeded):
                return  # the handler is about to be cancelled, or to say so itself

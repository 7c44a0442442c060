"""HTTP/1.1 to one server: a request's head and body enter as bytes, the status, the headers and the body of the answer leave.

Connections are kept and used again, one request at a time on each. Messages are parsed by httptools (Node's llhttp). A client
library makes objects of what is only passed on: that was a third of the gateway's time for a small request.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import cast

import httptools

_MOST_UNREAD = 2**18  # bytes of an answer that wait for whoever takes it; then the server waits
_MOST_OF_HEADERS = 2**16
_KEPT_S = 60.0  # of a connection that nobody uses


class Unreachable(Exception):
    """Nobody listens there."""


class BrokenOff(Exception):
    """The connection ended before the answer did."""


class Answer:
    """One answer. ``headers`` as they were sent; ``content_length``: None where only the end of the body tells."""

    __slots__ = (
        "_connection",
        "_moves",
        "_pieces",
        "content_length",
        "ended",
        "fault",
        "has_begun",
        "headers",
        "status",
        "words",
    )

    def __init__(self) -> None:
        self._connection: _Connection | None = None
        self._pieces: list[bytes] = []
        self._moves: asyncio.Future[None] | None = None  # something came, or nothing more will
        self.status = 0
        self.words = ""  # that came with the status
        self.headers: list[tuple[str, str]] = []
        self.content_length: int | None = None
        self.has_begun = self.ended = False
        self.fault: BrokenOff | None = None

    async def begin(self) -> None:
        """Wait for status and headers. Raises ``BrokenOff``."""
        while not self.has_begun:
            await self._change()

    async def read(self) -> bytes:
        """The body, or what of it was not taken yet. Raises ``BrokenOff``."""
        taken = []
        while not self.ended:
            await self._change()
            taken.append(self.take())
        taken.append(self.take())
        return b"".join(taken)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises ``BrokenOff``."""
        while True:
            if piece := self.take():
                yield piece
            elif self.ended:
                return
            else:
                await self._change()

    def sent_on(self, connection: _Connection) -> None:
        """It comes from there."""
        self._connection = connection

    def take(self) -> bytes:
        """What of the body came since the last call."""
        piece, self._pieces = b"".join(self._pieces), []
        if self._connection is not None:
            self._connection.taken()
        return piece

    async def _change(self) -> None:
        if self.fault is not None:
            raise self.fault
        self._moves = asyncio.get_running_loop().create_future()
        await self._moves

    def came(self, piece: bytes) -> None:
        """More of the body."""
        self._pieces.append(piece)

    def moved(self) -> None:
        """Wake who waits."""
        if self._moves is not None and not self._moves.done():
            self._moves.set_result(None)


class _Connection(asyncio.Protocol):
    """One connection; the methods ``on_…`` are the parser's."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._parser = httptools.HttpResponseParser(self)
        self._wire: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._unread = self._of_headers = 0
        self._is_paused = False
        self.stays = True
        self.idle_since = 0.0

    def ask(self, head: bytes, body: Sequence[bytes | memoryview], answer: Answer) -> None:
        """Send a request. Its answer is the only one under way."""
        assert self._wire is not None
        self._answer = answer
        answer.sent_on(self)
        self._of_headers = 0
        self._wire.writelines((head, *body))

    def taken(self) -> None:
        """What came was taken."""
        self._unread = 0
        if self._is_paused and self._wire is not None:
            self._is_paused = False
            self._wire.resume_reading()

    def abort(self) -> None:
        """End it at once, whatever is under way."""
        self.stays = False
        if self._wire is not None:
            self._wire.abort()

    # -- asyncio's ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of ``asyncio.Protocol``."""
        self._wire = cast("asyncio.Transport", transport)  # uvloop's are no subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        """Of ``asyncio.Protocol``."""
        answer = self._answer
        if answer is None:  # nobody asked
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break_off(f"it sent what is no answer ({type(error).__name__})")
            self.abort()
        answer.moved()

    def connection_lost(self, exc: Exception | None) -> None:
        """Of ``asyncio.Protocol``."""
        self.stays = False
        self._upstream.forget(self)
        self._break_off("it closed the connection" if exc is None else str(exc) or type(exc).__name__)

    def _break_off(self, why: str) -> None:
        answer = self._answer
        if answer is not None and not answer.ended:
            answer.fault = answer.fault or BrokenOff(why)
            answer.moved()

    # -- the parser's ---------------------------------------------------------------------------------------------------

    def on_status(self, words: bytes) -> None:
        """Part of what follows the status."""
        if self._answer is not None:
            self._answer.words += words.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._of_headers += len(name) + len(value) + 4  # with a colon and the end of the line
        if self._answer is None or self._of_headers > _MOST_OF_HEADERS:
            raise ValueError("headers without end")
        self._answer.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """Status and headers are there."""
        if (answer := self._answer) is None:
            return
        answer.status = self._parser.get_status_code()
        self.stays = self._parser.should_keep_alive()
        for name, value in answer.headers:
            if name.lower() == "content-length":
                answer.content_length = int(value)
        answer.has_begun = True

    def on_body(self, piece: bytes) -> None:
        """Part of the body."""
        if self._answer is None:
            return
        self._answer.came(piece)
        self._unread += len(piece)
        if self._unread > _MOST_UNREAD and not self._is_paused and self._wire is not None:
            self._is_paused = True
            self._wire.pause_reading()

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._answer is not None:
            self._answer.ended = True
            self._answer = None


class Upstream:
    """All connections to the server at ``host`` and ``port``."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: list[_Connection] = []  # who was used last, last: it is used next, and the others may go
        self._is_closed = False

    @asynccontextmanager
    async def ask(self, head: bytes, body: bytes) -> AsyncGenerator[Answer]:
        """The answer to a request, when status and headers are there. ``head`` ends with an empty line.

        Leaving the context before the answer has ended breaks it off. Raises ``Unreachable`` and ``BrokenOff``.
        """
        connection = self._idle.pop() if self._idle else await self._connect()
        answer = Answer()
        connection.ask(head, (body,) if body else (), answer)
        try:
            await answer.begin()
            yield answer
        finally:
            self._give_back(connection, answer)

    def ask_now(self, head: bytes, body: Sequence[bytes | memoryview], answer: Answer) -> Callable[[], None] | None:
        """The same on a connection that is there, with a body in pieces: ``answer`` is told what comes.

        Call what this returns when it is over; before the answer has ended, that breaks it off. None: no connection is idle,
        and nothing was sent.
        """
        if not self._idle:
            return None
        connection = self._idle.pop()
        connection.ask(head, body, answer)
        return partial(self._give_back, connection, answer)

    @property
    def idle(self) -> int:
        """How many connections nobody uses now."""
        return len(self._idle)

    def forget(self, connection: _Connection) -> None:
        """It is closed."""
        with suppress(ValueError):
            self._idle.remove(connection)

    def close(self) -> None:
        """End the connections that nobody uses; the others end with their answers."""
        self._is_closed = True
        for connection in tuple(self._idle):
            connection.abort()

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self), self._host, self._port)
        except OSError as error:
            raise Unreachable(os.strerror(error.errno) if error.errno else str(error)) from error
        return connection

    def _give_back(self, connection: _Connection, answer: Answer) -> None:
        if answer.ended and connection.stays and not self._is_closed:
            self._keep(connection)
        else:
            connection.abort()

    def _keep(self, connection: _Connection) -> None:
        now = asyncio.get_running_loop().time()
        connection.idle_since = now
        self._idle.append(connection)
        if now - self._idle[0].idle_since > _KEPT_S:
            self._idle.pop(0).abort()

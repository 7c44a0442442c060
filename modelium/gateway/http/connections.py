"""Connections of clients, bounded: sockets enter, as many as there may be are served, and none is held for nothing.

1. No more than ``max_connections`` requests are answered at a time; one more is refused with Retry-After. Connections may be
   a few more (``RESERVE``): there the probes are answered whatever else goes on.
2. When all are taken, one goes for whoever comes next: the connection that has asked nothing for the longest time (it sent
   half a header, or nothing), else the slowest: that whose body, or the taking of its answer, was ``_PROGRESS_BYTES`` further
   the longest time ago. Who is waiting for an answer of ours stays.
3. Time runs for headers, for the next bytes of a body, for a client to take what it is sent, and between requests.

It looks into aiohttp's ``RequestHandler`` in two places (``_handle_request``, ``_force_close``); constraints.txt pins it.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from dataclasses import dataclass, field
from typing import Any, cast

from aiohttp import web

from modelium.config import GatewaySettings
from modelium.errors import QueueFull

log = logging.getLogger(__name__)

RESERVE = 64  # connections, or as many as there may be where that is less
_KEPT_DESCRIPTORS = 256  # for files, Triton, and what else is open
_MOST_DESCRIPTORS = 65536  # more is never used, and old programs go through all that they may have
_PROGRESS_BYTES = 64 * 2**10
_PATIENCE_S = 1.0  # who was as much further in that time is not slow
_GRACE_S = 1.0  # to answer one that goes
_LOOKS = 4  # in the time of the shortest limit
_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many requests at a time, and how long a client may take for its head, between bytes, and between requests."""

    requests: int
    header_s: float
    stall_s: float
    idle_s: float

    @classmethod
    def of(cls, gateway: GatewaySettings) -> Limits:
        """As ``gateway:`` says, and no more than this process may have open files."""
        room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _KEPT_DESCRIPTORS - RESERVE
        requests = max(1, min(gateway.max_connections, room))
        if requests < gateway.max_connections:
            log.warning("this process may have %d connections, fewer than gateway.max_connections: see `ulimit -n`", requests)
        return cls(
            requests=requests,
            header_s=gateway.header_timeout_seconds,
            stall_s=gateway.stall_timeout_seconds,
            idle_s=gateway.idle_timeout_seconds,
        )

    @property
    def connections(self) -> int:
        """Some more than requests: those that are told to come back later."""
        return self.requests + min(RESERVE, self.requests)


LIMITS: web.AppKey[Limits] = web.AppKey("limits", Limits)


def raise_descriptor_limit() -> None:
    """To what the system lets this process have; what it starts inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@dataclass(slots=True, eq=False)
class Connections:
    """All of one server. ``idle`` is in the order in which they became so; ``slow`` were so a moment ago, the slowest last."""

    limits: Limits
    open: dict[Connection, None] = field(default_factory=dict)
    idle: dict[Connection, None] = field(default_factory=dict)
    slow: list[Connection] = field(default_factory=list)
    _looking: asyncio.TimerHandle | None = None

    def admit(self, connection: Connection) -> bool:
        """Rule 2. False where everybody is being answered."""
        if len(self.open) >= self.limits.connections:
            oldest = next(iter(self.idle), None)
            if oldest is not None:
                oldest.end()
            elif not self._let_one_go():
                return False
        self.open[connection] = self.idle[connection] = None
        if self._looking is None:
            self._look_later()
        return True

    def leave(self, connection: Connection) -> None:
        """It is closed."""
        self.open.pop(connection, None)
        self.idle.pop(connection, None)

    def make_room(self) -> bool:
        """Rules 1 and 2, for a request that came: whether it may be answered with the others."""
        while len(self.open) - len(self.idle) > self.limits.requests:
            if not self._let_one_go():
                return False
        return True

    def _let_one_go(self) -> bool:
        while self.slow:
            if self.slow.pop().give_way():
                return True
        return False

    def _look(self) -> None:
        self._looking = None
        for connection in tuple(self.open):
            connection.look(self.limits)
        self.slow = sorted((each for each in self.open if each.is_slow()), key=lambda each: each.further_at, reverse=True)
        if self.open:
            self._look_later()

    def _look_later(self) -> None:
        limits = self.limits
        delay_s = min(1.0, min(limits.header_s, limits.stall_s, limits.idle_s) / _LOOKS)
        self._looking = asyncio.get_running_loop().call_later(delay_s, self._look)


class Connection(web.RequestHandler):
    """One connection, and since when it does what it does."""

    __slots__ = ("_all", "_asked", "_began_at", "_buffered", "_came", "_idle_at", "_moved_at", "_wire", "further_at")

    def __init__(self, manager: web.Server, *, connections: Connections, **options: Any) -> None:
        super().__init__(manager, **options)
        self._all = connections
        self._asked: web.BaseRequest | None = None  # what is being answered
        self._began_at: float | None = None  # of the headers of the next request
        self._idle_at = self._moved_at = self._loop.time()  # _moved_at: when the last byte came
        self.further_at = self._moved_at  # by _PROGRESS_BYTES of what it sends, or is sent
        self._came = self._buffered = 0
        self._wire: asyncio.Transport | None = None

    def may_be_answered(self) -> bool:
        """Rules 1 and 2."""
        return self._all.make_room()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's; closed at once where there are too many."""
        # uvloop's transports are no subclass of asyncio's, so no isinstance() here.
        self._wire = wire = cast("asyncio.Transport", transport)
        if not self._all.admit(self):
            self._force_close = True
            wire.write(_FULL)
            wire.close()
            return
        self._began_at = self._loop.time()  # the first headers are due at once
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """asyncio's."""
        self._all.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """asyncio's; notes that the client moves on."""
        self.note(data)
        super().data_received(data)

    def note(self, data: bytes) -> None:
        """The client moves on."""
        self._moved_at = self._loop.time()
        if self._asked is None and self._began_at is None and data:
            self._began_at = self._moved_at
        if self._is_sending():
            self._came += len(data)
            if self._came >= _PROGRESS_BYTES:
                self._came, self.further_at = 0, self._moved_at

    def begins(self) -> None:
        """A request is being answered from now on."""
        self._began_at = None
        self._moved_at = self.further_at = self._loop.time()
        self._came = self._buffered = 0
        self._all.idle.pop(self, None)

    def ends(self) -> None:
        """It was answered."""
        self._idle_at = self._loop.time()
        if self in self._all.open:
            self._all.idle[self] = None

    async def _handle_request(self, request: Any, start_time: Any, request_handler: Any) -> Any:
        self._asked = request
        self.begins()
        try:
            answered = await super()._handle_request(request, start_time, request_handler)
            if request.content.exception() is not None:  # aiohttp would read on, and log what it runs into
                self.force_close()
            return answered
        finally:
            self._asked = None
            self.ends()

    def look(self, limits: Limits) -> None:
        """Rule 3."""
        now = self._loop.time()
        if self._asked is None:
            if self._began_at is not None and now - self._began_at > limits.header_s:
                self.end(_LATE)
            elif now - self._idle_at > limits.idle_s:
                self.end()
            return
        if self.takes_nothing(now):
            if now - self.further_at > limits.stall_s:
                self.abort()
        elif self._is_sending() and not self._reading_paused and now - self._moved_at > limits.stall_s:
            self._moved_at = now  # it has that long again to take the answer
            self._asked.content.set_exception(
                web.HTTPRequestTimeout(reason=f"nothing of the body came for {limits.stall_s:g} s; send it again, at one go")
            )

    def is_slow(self) -> bool:
        """Rule 2: it keeps us waiting, not we it."""
        now = self._loop.time()
        return self.keeps_us_waiting(now) and now - self.further_at > _PATIENCE_S

    def keeps_us_waiting(self, now: float) -> bool:
        """With its body, or with taking its answer."""
        waits = self.takes_nothing(now) or (self._is_sending() and not self._reading_paused)
        return self._asked is not None and waits

    def give_way(self) -> bool:
        """For somebody who waits for its place, if it is slow (still)."""
        if self not in self._all.open or not self.is_slow():
            return False
        self._all.leave(self)
        if (asked := self._asked) is None or self.takes_nothing(self._loop.time()):
            self.abort()
            return True
        asked.content.set_exception(
            QueueFull(
                "as many requests are being answered as gateway.max_connections allows, and the body of this one came slowest; "
                "try again",
                retry_after_s=1,
            )
        )
        self._loop.call_later(_GRACE_S, self._abort_if_asked, asked)  # not everybody who answers reads bodies
        return True

    def _abort_if_asked(self, asked: web.BaseRequest) -> None:
        if self._asked is asked:
            self.abort()

    def _is_sending(self) -> bool:
        """Whether more of its body is to come."""
        return self._asked is not None and not self._asked.content.is_eof()

    def takes_nothing(self, now: float) -> bool:
        """Whether the client is behind with what it is sent; every 64 KiB that it takes give it time."""
        if not self.writing_paused or self._wire is None:
            self._buffered = 0
            return False
        left = self._wire.get_write_buffer_size()
        if self._buffered == 0 or left <= self._buffered - _PROGRESS_BYTES:
            self._buffered, self.further_at = left, now
        return True

    def end(self, last_words: bytes = b"") -> None:
        """Of a connection on which nothing is being answered."""
        self._all.leave(self)
        wire = self._wire
        if wire is None or wire.is_closing():
            return
        if wire.get_write_buffer_size():  # an answer that nobody takes: closing would wait for it
            self.abort()
            return
        if last_words:
            wire.write(last_words)
        self.force_close()

    def abort(self) -> None:
        """Close it without sending what is left."""
        if self._wire is not None:
            self._wire.abort()

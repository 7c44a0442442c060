"""The fast path: small requests that need nothing to be waited for are answered without aiohttp's server.

What enters: the bytes of a connection. What leaves: a ``Sent`` for each request that a ``FastPath`` takes. aiohttp gets the
bytes of all others, untouched. Its server is half of the time that such a request costs.

1. Only a plain request is taken, and only when all of it came (``sent``).
2. It is taken while aiohttp has nothing to do on its connection, and has got nothing but whole requests before.
3. Its body comes within a moment (``_MOMENT_S``), and there is room for it (``Bodies``): aiohttp has rules for slow ones.
4. Where it cannot be answered on the fast path after all, aiohttp gets its bytes, and with them what is to be said of it.

The bounds on connections hold here too (``connections``). Of aiohttp's ``RequestHandler``, this looks at ``_messages``,
``_waiter`` and ``_close``; constraints.txt pins it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Protocol

from aiohttp import web

from modelium.gateway.http.bodies import FREE_BYTES, Bodies
from modelium.gateway.http.connections import Connection, Connections, Limits
from modelium.gateway.http.sent import UNKNOWN, Sent

_MOMENT_S = 1.0
_LOOKED_AT = 32  # bytes of a request in which the path begins that a fast path may be for


class Flight(Protocol):
    """A request on the fast path that is being answered."""

    def cancel(self) -> None:
        """Its client is gone."""

    def go_on(self) -> None:
        """Its client, who was behind with what it is sent, takes more."""


class FastPath(Protocol):
    """Who answers on the fast path."""

    def wants(self, sent: Sent) -> bool:
        """Of a plain request whose head came: is it one that it may take?"""

    def begin(self, sent: Sent, connection: FastConnection) -> Flight | None:
        """Take it, now that it is whole; None: not after all. Ends with ``connection.answered()`` or ``hand_over()``."""


FAST_PATH: web.AppKey[FastPath] = web.AppKey("fast_path")


class FastConnection(Connection):
    """A connection some of whose requests go the fast way."""

    __slots__ = ("_bodies", "_coming", "_coming_since", "_fast_path", "_fault", "_flight", "_held", "_later", "_over", "_owed")

    def __init__(
        self,
        manager: web.Server,
        *,
        connections: Connections,
        fast_path: FastPath | None,
        bodies: Bodies | None,
        **options: Any,
    ) -> None:
        super().__init__(manager, connections=connections, **options)
        self._fast_path = fast_path
        self._bodies = bodies
        self._held = 0  # bytes of the room for bodies
        self._coming_since = 0.0
        self._coming: Sent | None = None  # whose body is not whole yet
        self._flight: Flight | None = None
        self._fault: Exception | None = None
        self._later: list[bytes] = []  # what came while a request was answered
        self._over: asyncio.Future[None] | None = None  # somebody waits for the end of the flight
        self._owed = 0  # bytes of the last request that aiohttp got a part of

    @property
    def wire(self) -> asyncio.Transport | None:
        """Where the answer goes."""
        return self._wire

    def answered(self) -> None:
        """The flight is over; what came meanwhile is next."""
        self._land()
        if self._close:
            self.force_close()
        elif self._later:
            later, self._later = b"".join(self._later), []
            self._resume_transport_reading()
            self.data_received(later)

    def hand_over(self, sent: Sent, fault: Exception | None = None) -> None:
        """aiohttp answers it: with ``fault``, if there is one, which the handler asks for (``taken_fault``)."""
        self._land()
        if self._close:  # aiohttp takes nothing any more
            self.force_close()
            return
        self._fault = fault
        self._pass_on(sent)
        if self._later:
            later, self._later = b"".join(self._later), []
            self._resume_transport_reading()
            self._owed = UNKNOWN
            super().data_received(later)

    def taken_fault(self) -> Exception | None:
        """What is to be said of the request that aiohttp answers now."""
        fault, self._fault = self._fault, None
        return fault

    # -- asyncio's ---------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """asyncio's, and aiohttp's own word that it may go on (no bytes)."""
        if self._fast_path is None or not data or self._close or self._force_close:
            super().data_received(data)
        elif self._flight is not None:
            self._later.append(data)
            self._pause_transport_reading()
        elif self._coming is not None:
            self.note(data)
            self._coming.feed(data)
            self._go_on(self._coming, self._fast_path)
        elif self._owed:
            self._owed = self._owed - len(data) if len(data) <= self._owed else UNKNOWN
            super().data_received(data)
        elif b" /v2/" not in data[:_LOOKED_AT]:
            self._owed = UNKNOWN
            super().data_received(data)
        else:
            sent = Sent()
            sent.feed(data)
            if sent.is_plain and self._is_at_rest() and self._fast_path.wants(sent) and self.may_be_answered():
                self.note(data)
                self.begins()
                self._coming, self._coming_since = sent, self._moved_at
                self._go_on(sent, self._fast_path)
            else:
                self._pass_on(sent)

    def resume_writing(self) -> None:
        """asyncio's."""
        super().resume_writing()
        if self._flight is not None:
            self._flight.go_on()

    def connection_lost(self, exc: BaseException | None) -> None:
        """asyncio's."""
        flight, self._flight, self._coming = self._flight, None, None
        self._give_back_room()
        super().connection_lost(exc)
        if flight is not None:
            flight.cancel()
            self._tell_over()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """aiohttp's: what is being answered may end."""
        if self._flight is not None:
            self._over = self._loop.create_future()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._over
        await super().shutdown(timeout)

    # -- what bounds connections -------------------------------------------------------------------------------------

    def look(self, limits: Limits) -> None:
        """Also at a flight, whose client is to take its answer, and at a body that does not come within a moment."""
        if self._coming is not None:
            if self._loop.time() - self._coming_since > _MOMENT_S:
                self._pass_on(self._coming)
        elif self._flight is None:
            super().look(limits)
        elif self.takes_nothing(now := self._loop.time()) and now - self.further_at > limits.stall_s:
            self.abort()

    def keeps_us_waiting(self, now: float) -> bool:
        """Also a client that does not take the answer of a flight."""
        return self.takes_nothing(now) if self._flight is not None else super().keeps_us_waiting(now)

    # ----------------------------------------------------------------------------------------------------------------

    def _go_on(self, sent: Sent, fast_path: FastPath) -> None:
        """Wait for the rest of it, or begin."""
        goes = sent.is_plain and self._has_room(sent.came)
        if goes and not sent.is_whole:
            return
        self._flight = fast_path.begin(sent, self) if goes else None
        if self._flight is None:
            self._pass_on(sent)
        else:
            self._coming = None

    def _has_room(self, came: int) -> bool:
        """Rule 3, of a body of which so many bytes came."""
        more = came - FREE_BYTES - self._held
        if more <= 0:
            return True
        if self._bodies is None or not self._bodies.take(more):
            return False
        self._held += more
        return True

    def _give_back_room(self) -> None:
        if self._held and self._bodies is not None:
            self._bodies.give(self._held)
            self._held = 0

    def _land(self) -> None:
        self._flight = None
        self._give_back_room()
        self.ends()
        self._tell_over()

    def _tell_over(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _pass_on(self, sent: Sent) -> None:
        if self._coming is not None:
            self._coming = None
            self._give_back_room()
            self.ends()
        self._owed = sent.owed
        for data in sent.raw:
            super().data_received(data)

    def _is_at_rest(self) -> bool:
        """Rule 2."""
        return not self._messages and self._waiter is not None and not self._waiter.done()

    def _process_keepalive(self) -> None:
        if self._flight is None:
            super()._process_keepalive()


def taken_fault(request: web.Request) -> Exception | None:
    """What happened to ``request`` on the fast path, if it came that way."""
    return request.protocol.taken_fault() if isinstance(request.protocol, FastConnection) else None

"""The way to one HTTP server, against servers that send any bytes: pieces, ends, more than anybody takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from modelium.gateway.kserve.upstream import BrokenOff, Unreachable, Upstream

_HEAD = b"POST /infer HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n"
_FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """Reads a head and two bytes, then does what ``handler`` does; counts connections."""

    handler: Handler
    connections: int = 0
    seen: list[bytes] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.seen.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(2))
                await self.handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.over.set()
        finally:
            writer.close()


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[Upstream, Server]]:
    served = Server(handler)
    listening = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    upstream = Upstream("127.0.0.1", listening.sockets[0].getsockname()[1])
    try:
        yield upstream, served
    finally:
        upstream.close()
        listening.close()


def says(*pieces: bytes) -> Handler:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    return answer


async def asked(upstream: Upstream) -> tuple[int, list[tuple[str, str]], bytes]:
    async with upstream.ask(_HEAD, b"hi") as answer:
        return answer.status, answer.headers, await answer.read()


async def test_a_connection_is_used_again() -> None:
    async with serving(says(_FINE)) as (upstream, server):
        for _ in range(3):
            assert await asked(upstream) == (200, [("Content-Length", "2")], b"ok")
        assert server.connections == 1 and server.seen == [_HEAD + b"hi"] * 3


async def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    async with serving(says(_FINE)) as (upstream, server):
        assert [each[2] for each in await asyncio.gather(*(asked(upstream) for _ in range(5)))] == [b"ok"] * 5
        assert server.connections == 5


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_answer_comes_in_any_pieces(size: int) -> None:
    whole = b"HTTP/1.1 503 Not Now\r\nX-A: 1\r\nX-A: 2\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    async with serving(says(*(whole[at : at + size] for at in range(0, len(whole), size)))) as (upstream, server):
        for _ in range(2):
            async with upstream.ask(_HEAD, b"hi") as answer:
                assert (answer.status, answer.words, answer.content_length) == (503, "Not Now", None)
                assert answer.headers == [("X-A", "1"), ("X-A", "2"), ("Transfer-Encoding", "chunked")]
                assert b"".join([piece async for piece in answer.pieces()]) == b"abcde"
        assert server.connections == 1


async def test_a_server_that_closes_after_its_answer_is_asked_on_a_new_connection() -> None:
    async with serving(says(_FINE.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))) as (upstream, server):
        for _ in range(2):
            assert (await asked(upstream))[2] == b"ok"
        assert server.connections == 2


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"])
async def test_an_answer_that_breaks_off_is_none(sent: bytes) -> None:
    async def breaks_off(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        writer.close()
        await writer.wait_closed()

    async with serving(breaks_off) as (upstream, _):
        with pytest.raises(BrokenOff, match="closed"):
            await asked(upstream)


@pytest.mark.parametrize(
    "sent",
    [
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    ],
)
async def test_what_is_no_answer_ends_the_connection(sent: bytes) -> None:
    async with serving(says(sent)) as (upstream, server):
        with pytest.raises(BrokenOff, match="no answer"):
            await asked(upstream)
        await server.over.wait()


async def test_who_leaves_early_ends_the_connection() -> None:
    async def begins(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_FINE[:-1])

    async with serving(begins) as (upstream, server):
        async with upstream.ask(_HEAD, b"hi") as answer:
            assert answer.status == 200
        await server.over.wait()


async def test_a_server_waits_for_whoever_takes_its_answer() -> None:
    size, sent = 64 * 2**20, 0

    async def pours(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(64):
            writer.write(bytes(2**20))
            await writer.drain()
            sent += 2**20

    async with serving(pours) as (upstream, _), upstream.ask(_HEAD, b"hi") as answer:
        taken = 0
        async for piece in answer.pieces():
            taken += len(piece)
            assert sent - taken < 16 * 2**20  # what the system's buffers hold
        assert taken == size


async def test_nobody_listens() -> None:
    async with serving(says(_FINE)) as (upstream, _):
        pass
    with pytest.raises(Unreachable, match="refused"):
        await asked(upstream)


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used() -> None:
    async def answers_and_closes(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_FINE)
        writer.close()
        await writer.wait_closed()
        closed.set()

    closed = asyncio.Event()
    async with serving(answers_and_closes) as (upstream, server):
        for _ in range(2):
            assert (await asked(upstream))[2] == b"ok"
            await closed.wait()
            closed.clear()
            while upstream.idle:  # noqa: ASYNC110 — the end is on its way
                await asyncio.sleep(0.001)
        assert server.connections == 2

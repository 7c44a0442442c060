"""The fast path beside aiohttp's: the same requests, cut and mixed as they may come, get the same answers either way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from modelium.gateway.http.bodies import BODIES
from modelium.gateway.http.sent import MOST_BYTES, Sent
from modelium.gateway.kserve.passing import LARGE_BYTES
from modelium.metrics.families import REQUESTS
from modelium.values import State, Task

from .kserve_upstream import FINE, GONE, INFER, Handler, breaks_off, breaks_off_amid, error, gateway, hangs, says
from .stand_in import Served, profile_of, status_of

ASIDE = "X-Priority: normal\r\n"  # asks for what it would get, but aiohttp is to see to it
_OF_ONE_ANSWER = {"date", "x-request-id"}

Said = tuple[int, dict[str, str], bytes]


class Client:
    """One connection, over which bytes are sent as a test wants them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def ask(self, sent: bytes) -> Said:
        self.writer.write(sent)
        return await self.answer()

    async def answer(self) -> Said:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = [line.split(": ", 1) for line in head[1:] if line]
        headers = {name.lower(): value for name, value in fields}
        assert len(headers) == len(fields), "a header came twice"
        body = await self._reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), {name: headers[name] for name in headers if name not in _OF_ONE_ANSWER}, body

    async def rest(self) -> bytes:
        return await self._reader.read()


@asynccontextmanager
async def client_of(running: Served) -> AsyncIterator[Client]:
    host, _, port = running.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


def post(body: bytes = b"{}", more: str = "", path: str = INFER) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def warm_up(client: Client) -> None:
    """The first request connects to Triton, which takes a while: aiohttp's."""
    assert (await client.ask(post()))[0] == 200


def streamed(size: int) -> Handler:
    return says(200, bytes(range(256)) * (size // 256), **{"Content-Type": "application/octet-stream"})


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read(), content_type="application/octet-stream")


# -- the same answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        FINE,
        streamed(LARGE_BYTES),
        streamed(2 * LARGE_BYTES),
        streamed(64 * LARGE_BYTES),
        says(200, b""),
        says(400, error("input byte size mismatch")),
        says(404, error("Request for unknown model: 'm' version 9 is not found")),
        says(500, error("Stub process 'm_0_0' is not healthy.")),
        says(200, b"x", **{"X-Odd": " a  b ", "Content-Encoding": "gzip"}),
    ],
    ids=["small", "to the limit", "streamed", "far beyond", "empty", "400", "404", "a dead process", "odd headers"],
)
async def test_it_answers_as_aiohttps_way_does(answer: Handler) -> None:
    async with gateway(FINE, answer) as (running, upstream), client_of(running) as client:
        await warm_up(client)
        before = running.by_aiohttp
        fast = await client.ask(post(more="X-Mine: yes\r\n"))
        assert running.by_aiohttp == before, "it took the fast path"
        slow = await client.ask(post(more="X-Mine: yes\r\n" + ASIDE))
        assert running.by_aiohttp == before + 1
        assert fast == slow
        assert upstream.seen[1] == upstream.seen[2], "Triton was asked the same"
        assert running.controller.held == 0
        assert sum(count for _, count in running.recorder.counted(REQUESTS)) == 3


async def test_what_was_certainly_not_executed_is_sent_again() -> None:
    async with gateway(FINE, GONE, FINE) as (running, upstream), client_of(running) as client:
        await warm_up(client)
        status, headers, _ = await client.ask(post())
        assert (status, headers["inference-header-content-length"]) == (200, "7")
        assert (len(upstream.seen), len(running.controller.gone), running.controller.held) == (3, 1, 0)


async def test_what_may_have_been_executed_is_not() -> None:
    async with gateway(FINE, breaks_off) as (running, upstream), client_of(running) as client:
        await warm_up(client)
        status, _, body = await client.ask(post())
        assert (status, "not sent again" in json.loads(body)["error"]) == (503, True)
        assert (len(upstream.seen), len(running.controller.gone), running.controller.held) == (2, 1, 0)
        assert (await client.ask(post()))[0] == 503, "and the connection goes on"


async def test_half_an_answer_is_no_whole_one() -> None:
    async with gateway(FINE, breaks_off_amid) as (running, _), client_of(running) as client:
        await warm_up(client)
        client.writer.write(post())
        assert len(await client.rest()) < 1_000_000
        assert (running.controller.held, len(running.controller.gone)) == (0, 1)


async def test_a_deadline_holds() -> None:
    async with gateway(FINE, hangs, request_timeout_seconds=2) as (running, upstream), client_of(running) as client:
        await warm_up(client)
        status, _, body = await client.ask(post())
        assert (status, json.loads(body)["type"]) == (504, "deadline_exceeded")
        assert running.controller.held == 0
        await upstream.gone.wait()


async def test_a_client_that_hangs_up_ends_the_request() -> None:
    began = asyncio.Event()

    async def hangs(request: web.Request) -> web.StreamResponse:
        began.set()
        await asyncio.Event().wait()
        return web.Response()

    async with gateway(FINE, hangs) as (running, upstream), client_of(running) as client:
        await warm_up(client)
        running.controller.released.clear()
        client.writer.write(post())
        await began.wait()
        client.writer.transport.abort()
        await running.controller.released.wait()
        await upstream.gone.wait()
        assert running.controller.held == 0
        assert (("m", "499"), 1) in running.recorder.counted(REQUESTS)


async def test_a_client_that_reads_slowly_holds_no_answer_in_memory_and_gets_all_of_it() -> None:
    size = 2**25
    sent = asyncio.Event()

    async def much(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(size)})
        await response.prepare(request)
        for _ in range(size // 2**16):
            await response.write(b"x" * 2**16)
        sent.set()
        return response

    async with gateway(FINE, much) as (running, _), client_of(running) as client:
        await warm_up(client)
        client.writer.write(post())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sent.wait(), 0.3)  # nobody reads, so Triton has to wait
        status, _, body = await client.answer()
        assert (status, len(body)) == (200, size)


# -- which requests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        "Origin: https://evil.example\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Mode: cors\r\n",
        "X-Request-Timeout: 3\r\n",
        "X-Priority: nonsense\r\n",
        "Expect: 100-continue\r\n",
        "Connection: close\r\n",
        "Host: other.example\r\n",
    ],
)
async def test_what_says_more_is_aiohttps(more: str) -> None:
    async with gateway(FINE) as (running, _), client_of(running) as client:
        await warm_up(client)
        before = running.by_aiohttp
        client.writer.write(post(more=more))
        await client.writer.drain()
        assert await client._reader.readline()
        assert running.by_aiohttp == before + 1


async def test_a_host_that_is_not_ours_is_refused() -> None:
    async with gateway(FINE) as (running, upstream), client_of(running) as client:
        await warm_up(client)
        status, _, body = await client.ask(post().replace(b"localhost", b"evil.example"))
        assert (status, json.loads(body)["type"], len(upstream.seen)) == (421, "unknown_host", 1)


async def test_keys_hold(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("ana: 0123456789abcdef\n")
    keys.chmod(0o600)
    async with gateway(FINE, api_keys_file=keys) as (running, upstream), client_of(running) as client:
        good = "Authorization: Bearer 0123456789abcdef\r\n"
        assert (await client.ask(post(more=good)))[0] == 200
        before = running.by_aiohttp
        assert (await client.ask(post(more=good)))[0] == 200
        assert (await client.ask(post(more="X-API-Key: 0123456789abcdef\r\n")))[0] == 200
        assert running.by_aiohttp == before
        for bad in ("", "Authorization: Bearer 0123456789abcdeX\r\n", "Authorization: Basic 0123456789abcdef\r\n"):
            assert (await client.ask(post(more=bad)))[0] == 401
        assert len(upstream.seen) == 3
        assert all("authorization" not in {name.lower() for name in seen[2]} for seen in upstream.seen)


async def test_the_limit_on_bodies_holds() -> None:
    async with gateway(FINE) as (running, upstream), client_of(running) as client:
        await warm_up(client)
        before = running.by_aiohttp
        assert (await client.ask(post(b"x" * 100_000)))[0] == 200
        assert running.by_aiohttp == before
        status, _, body = await client.ask(post(b"x" * 100_001))
        assert (status, json.loads(body)["type"], len(upstream.seen)) == (413, "body_too_large", 2)


async def test_a_body_for_which_there_is_no_room_is_aiohttps() -> None:
    async with gateway(FINE, max_buffered_bytes=100_000) as (running, _), client_of(running) as client:
        await warm_up(client)
        bodies = running.runner.app[BODIES]
        before = running.by_aiohttp
        assert (await client.ask(post(b"x" * 90_000)))[0] == 200
        assert running.by_aiohttp == before
        assert bodies.take(99_000)  # by others
        status, _, body = await client.ask(post(b"x" * 90_000))
        assert (status, json.loads(body)["type"], running.by_aiohttp) == (503, "busy", before + 1)
        bodies.give(99_000)
        assert bodies.take(100_000), "nothing is held any more"


async def test_a_body_that_takes_its_time_is_aiohttps() -> None:
    async with gateway(echo) as (running, _), client_of(running) as client:
        await warm_up(client)
        before, sent = running.by_aiohttp, post(b"x" * 90_000)
        client.writer.write(sent[:50_000])
        while running.by_aiohttp == before:  # noqa: ASYNC110 — it looks once in a while
            await asyncio.sleep(0.05)
        client.writer.write(sent[50_000:])
        status, _, body = await client.answer()
        assert (status, body) == (200, b"x" * 90_000)
        assert (await client.ask(post(b"again")))[2] == b"again"
        assert running.by_aiohttp == before + 1, "and the connection's next request is fast again"


async def test_a_model_that_is_away_is_waited_for() -> None:
    async with gateway(FINE) as (running, _), client_of(running) as client:
        await warm_up(client)
        running.controller.models["m"] = status_of(profile_of(Task.TEXT_CLASSIFICATION), state=State.UNLOADED)
        before = running.by_aiohttp
        assert (await client.ask(post()))[0] == 200
        assert running.by_aiohttp == before + 1


async def test_answers_under_way_are_finished_when_the_server_stops() -> None:
    began, may_answer = asyncio.Event(), asyncio.Event()

    async def waits(request: web.Request) -> web.Response:
        began.set()
        await may_answer.wait()
        return web.Response(body=b"done")

    async with gateway(FINE, waits) as (running, _), client_of(running) as client:
        await warm_up(client)
        client.writer.write(post())
        await began.wait()
        stopping = asyncio.create_task(running.runner.cleanup())
        await asyncio.sleep(0)
        may_answer.set()
        assert (await client.answer())[2] == b"done"
        assert await client.rest() == b""
        await stopping


# -- however they come -----------------------------------------------------------------------------------------------

KINDS: dict[str, Callable[[bytes], bytes]] = {
    "small": lambda body: post(body),
    "another": lambda body: post(body, more="X-Mine: yes\r\n"),
    "aside": lambda body: post(body, more=ASIDE),
    "large": lambda body: post(body + b"x" * 100_000),
    "too large": lambda body: post(body + b"x" * MOST_BYTES),
    "chunked": lambda body: (
        f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode()
        + body
        + b"\r\n0\r\n\r\n"
    ),
    "elsewhere": lambda body: b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "far from here": lambda body: b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_requests_get_their_own_answers_in_order_however_their_bytes_come(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))
    bodies = [f"request {number}".encode() for number in range(len(kinds))]
    sent = b"".join(KINDS[kind](body) for kind, body in zip(kinds, bodies, strict=True))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
    pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    pauses = data.draw(st.lists(st.integers(0, 12), min_size=len(pieces), max_size=len(pieces)))

    async def exchange() -> None:
        async with gateway(echo, max_body_bytes=2 * MOST_BYTES) as (running, upstream), client_of(running) as client:
            await warm_up(client)
            for piece, pause in zip(pieces, pauses, strict=True):
                client.writer.write(piece)
                for _ in range(pause):
                    await asyncio.sleep(0)
            for kind, body in zip(kinds, bodies, strict=True):
                status, _, said = await client.answer()
                assert status == 200
                if kind in ("small", "another", "aside", "chunked"):
                    assert said == body
                elif "large" in kind:
                    assert said.startswith(body)
                    assert len(said) == len(body) + (MOST_BYTES if kind == "too large" else 100_000)
            assert running.controller.held == 0
            assert len(upstream.seen) == 1 + sum(kind not in ("elsewhere", "far from here") for kind in kinds)

    asyncio.run(exchange())


@given(sent=st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: post(b"12345") + tail), cut=st.integers(0, 260))
def test_a_request_is_plain_and_whole_or_it_is_not(sent: bytes, cut: int) -> None:
    read = Sent()
    for piece in (sent[:cut], sent[cut:]):
        read.feed(piece)
        if not read.is_plain:
            break
    assert b"".join(read.raw) in (sent, sent[:cut])
    if read.is_plain and read.is_whole:
        assert read.owed == 0
        assert sent.endswith(b"".join(read.body))


@pytest.mark.parametrize(
    "sent",
    [
        post() + b"P",  # the next one begins
        post() + post(),
        post(more="Content-Length: 3\r\n"),
        post(more="Transfer-Encoding: chunked\r\n"),
        post(more="Content-Length: 2\r\n"),
        post().replace(b"HTTP/1.1", b"HTTP/1.0"),
        post().replace(b"Content-Length: 2", b"Content-Length: +2"),
        post(more="X-Long: " + "x" * 20_000 + "\r\n"),
    ],
)
def test_what_is_odd_is_not_plain(sent: bytes) -> None:
    read = Sent()
    read.feed(sent)
    assert not (read.is_plain and read.is_whole)

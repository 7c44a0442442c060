"""Connections that do nothing, or too slowly, or are too many: real sockets against a gateway with small limits."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop

from modelium.gateway.http.connections import raise_descriptor_limit
from modelium.values import ModelStatus, Task

from .stand_in import Served, numbers, profile_of, repeated, response, served

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_OPENED: list[asyncio.StreamWriter] = []  # by this test; closed at its end
LONG_S = 300.0
QUIET = {"header_timeout_seconds": LONG_S, "stall_timeout_seconds": LONG_S, "idle_timeout_seconds": LONG_S}
ANSWER = repeated({"EMBEDDING": numbers([1, 2, 3])})
ASK = b'POST /predict/m HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n\r\n{"inputs": "a"}'
LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def limited(**limits: Any) -> AsyncIterator[Served]:
    async with served(**{**QUIET, "request_timeout_seconds": LONG_S, **limits}) as running:
        running.serve(profile_of(Task.FEATURE_EXTRACTION), ANSWER)
        try:
            yield running
        finally:
            while _OPENED:
                writer = _OPENED.pop()
                writer.transport.abort()
                with suppress(ConnectionError):
                    await writer.wait_closed()


async def connect(gateway: Served, sent: bytes = b"") -> Stream:
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    _OPENED.append(writer)
    writer.write(sent)
    return reader, writer


async def status(stream: Stream) -> int:
    """Of the next answer, whose body is read too; 0 where the connection is gone."""
    try:
        head = await stream[0].readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0
    length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
    await stream[0].readexactly(int(length.split(b":")[1]))
    return int(head.split()[1])


@pytest.mark.parametrize("sent", [b"", b"POST /predict/m HTTP/1.1\r\nHost: localhost\r\n"])
async def test_headers_are_not_waited_for_for_ever(sent: bytes) -> None:
    async with limited(header_timeout_seconds=0.2) as gateway:
        stream = await connect(gateway, sent)
        assert await status(stream) == 408
        assert await stream[0].read() == b""


async def test_nor_are_those_of_a_second_request() -> None:
    async with limited(header_timeout_seconds=0.2) as gateway:
        stream = await connect(gateway, ASK)
        assert await status(stream) == 200
        stream[1].write(b"GET / HT")
        assert await status(stream) == 408


async def test_headers_that_trickle_are_no_better() -> None:
    async with limited(header_timeout_seconds=0.2) as gateway:
        stream = await connect(gateway, b"GET / HTTP/1.1\r\nX: ")
        answer = asyncio.create_task(status(stream))
        while not answer.done():
            stream[1].write(b"x")
            await asyncio.wait([answer], timeout=0.02)
        assert answer.result() in (0, 408)  # 0: what was written last met a closed door


async def test_a_body_that_does_not_come_is_a_fault_of_the_clients(caplog: pytest.LogCaptureFixture) -> None:
    async with limited(stall_timeout_seconds=0.2) as gateway:
        reader, _ = await connect(gateway, ASK[:-5])
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.split()[1] == b"408"
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        assert "nothing of the body came for 0.2 s" in json.loads(await reader.readexactly(length))["error"]
        assert not gateway.triton.seen
        assert await reader.read() == b""
    assert not caplog.records, "a traceback for what a stranger left out"


async def test_nor_is_a_body_that_trickles_waited_for_for_ever() -> None:
    async with limited(stall_timeout_seconds=1) as gateway:
        stream = await connect(gateway, ASK.replace(b"Length: 15", b"Length: 99999"))
        answer = asyncio.create_task(status(stream))
        while not answer.done():
            stream[1].write(b" ")
            await asyncio.wait([answer], timeout=0.02)
        assert answer.result() in (0, 408)  # 0: what was written last met a closed door
        assert not gateway.triton.seen


@pytest.mark.parametrize("sent", [b"\xff\xfe", b"200-ok", b"x" * 3000])
async def test_an_expectation_that_nobody_knows_is_none(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with limited() as gateway:
        stream = await connect(gateway, ASK.replace(b"Host", b"Expect: " + sent + b"\r\nHost"))
        assert await status(stream) == 200
    assert not caplog.records


async def test_who_waits_for_leave_to_send_its_body_gets_it() -> None:
    async with limited() as gateway:
        stream = await connect(gateway, ASK[:-15].replace(b"Host", b"Expect: 100-continue\r\nHost"))
        assert await status(stream) == 100
        stream[1].write(ASK[-15:])
        assert await status(stream) == 200


async def test_a_connection_between_requests_goes_after_a_while() -> None:
    async with limited(idle_timeout_seconds=0.2) as gateway:
        stream = await connect(gateway, ASK)
        assert await status(stream) == 200
        assert await stream[0].read() == b""


async def test_a_client_that_does_not_read_its_stream_is_left() -> None:
    async with limited(stall_timeout_seconds=0.2) as gateway:
        gateway.serve_vllm(profile_of(Task.TEXT_GENERATION, "t"), lambda _: (response("x" * 2**16) for _ in range(10_000)))
        body = b'{"inputs": "a", "stream": true}'
        head = b"POST /predict/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        await connect(gateway, head + body)
        await gateway.triton.cancelled.wait()
        await until(lambda: gateway.controller.held == 0)


async def test_a_request_too_many_is_refused_and_the_probes_are_not() -> None:
    async with limited(max_connections=2) as gateway:
        gateway.triton.hang = True
        for _ in range(2):
            await connect(gateway, ASK)
        await until(lambda: len(gateway.triton.seen) == 2)
        reader, _ = await connect(gateway, ASK)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.split()[1] == b"503"
        assert b"Retry-After: 1" in head
        assert await status(await connect(gateway, LIVE)) == 200
        assert len(gateway.triton.seen) == 2


async def test_connections_that_ask_nothing_push_nobody_out() -> None:
    async with limited(max_connections=4) as gateway:
        gateway.triton.hang = True
        await connect(gateway, ASK)
        await gateway.triton.started.wait()
        gateway.triton.hang = False
        idle = [await connect(gateway, b"GET / HTTP/1.1\r\n") for _ in range(50)]
        for _ in range(10):
            for sent in (ASK, LIVE):
                stream = await connect(gateway, sent)
                assert await status(stream) == 200
        assert await status(idle[0]) == 0, "the oldest of them had to go"
        assert gateway.controller.held == 1, "what is being answered stays"


SLOW = b"POST /predict/m HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n"


@asynccontextmanager
async def trickling(gateway: Served, sent: list[bytes]) -> AsyncIterator[list[asyncio.Task[bytes]]]:
    """Requests whose bodies come a byte now and then, and each one's answer."""
    streams = [await connect(gateway, each) for each in sent]

    async def trickle() -> None:
        while True:
            for _, writer in streams:
                writer.write(b" ")
            await asyncio.sleep(0.02)

    trickler = asyncio.create_task(trickle())
    answers = [asyncio.create_task(reader.read()) for reader, _ in streams]
    try:
        yield answers
    finally:
        for task in (trickler, *answers):
            task.cancel()
        await asyncio.gather(trickler, *answers, return_exceptions=True)


async def answered(gateway: Served, asked: bytes = ASK) -> None:
    """A client that tries again, as a 503 with Retry-After bids it to."""
    while (got := await status(await connect(gateway, asked))) != 200:
        assert got in (0, 503)
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0.02))])


async def test_bodies_that_trickle_give_way_to_whoever_comes() -> None:
    async with limited(max_connections=2) as gateway:
        told: list[bytes] = []
        while not told:  # a client that still writes may be reset before it has read why
            async with trickling(gateway, [SLOW] * 6) as answers:
                await answered(gateway)
                assert await status(await connect(gateway, LIVE)) == 200
                while sum(not each.done() for each in answers) > 1:  # the last one is in nobody's way
                    await answered(gateway)
                told = [each for each in ended(answers) if b"came slowest" in each]
        assert all(b"Retry-After: 1" in each for each in told)


def ended(answers: list[asyncio.Task[bytes]]) -> list[bytes]:
    return [each.result() for each in answers if each.done() and not each.exception()]


async def test_so_do_bodies_that_nobody_reads() -> None:
    async with limited(max_connections=2) as gateway:
        loading = asyncio.Event()

        async def load(name: str, *, timeout_s: float) -> ModelStatus:
            loading.set()
            return await asyncio.Future()

        gateway.controller.load = load  # type: ignore[method-assign]
        async with trickling(gateway, [SLOW.replace(b"/predict/m", b"/models/m/load")] * 2):
            await loading.wait()
            await answered(gateway)


async def test_so_does_a_client_that_takes_nothing_of_its_answer() -> None:
    async with limited(max_connections=1) as gateway:
        gateway.serve_vllm(profile_of(Task.TEXT_GENERATION, "t"), lambda _: (response("x" * 2**16) for _ in range(10_000)))
        body = b'{"inputs": "a", "stream": true}'
        head = b"POST /predict/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        await connect(gateway, head + body)
        await gateway.triton.started.wait()
        await answered(gateway)
        await gateway.triton.cancelled.wait()


async def test_who_waits_for_us_does_not_give_way() -> None:
    async with limited(max_connections=2) as gateway, trickling(gateway, [SLOW]):
        gateway.triton.hang = True
        waiting = await connect(gateway, ASK)
        await gateway.triton.started.wait()
        gateway.triton.hang = False
        for _ in range(3):
            await answered(gateway)
        assert gateway.controller.held == 1
        assert not waiting[0].at_eof()


def test_uvloops_transports_are_bounded_as_well() -> None:
    """Modelium runs on uvloop, whose transports are no subclass of asyncio's: each rule once."""

    async def each_rule_once() -> None:
        async with limited(max_connections=2, header_timeout_seconds=0.2, stall_timeout_seconds=0.2) as gateway:
            late = await connect(gateway, b"GET / HTTP/1.1\r\n")
            assert await status(late) == 408
            assert await status(await connect(gateway, ASK)) == 200
            stalled = await connect(gateway, ASK[:-5])
            assert await status(stalled) == 408
        async with limited(max_connections=2) as gateway:
            gateway.triton.hang = True
            for _ in range(2):
                await connect(gateway, ASK)
            await until(lambda: len(gateway.triton.seen) == 2)
            assert await status(await connect(gateway, ASK)) == 503
            idle = [await connect(gateway) for _ in range(8)]
            assert await status(await connect(gateway, LIVE)) == 200
            assert await status(idle[0]) == 0, "the oldest of them had to go"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(each_rule_once())


async def test_the_descriptor_limit_is_raised() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        raise_descriptor_limit()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft >= min(hard if hard != resource.RLIM_INFINITY else 65536, 65536)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0.005))])

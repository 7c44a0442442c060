"""A request to an application of the user's and its answer, from a real server on loopback: what is asked, what is refused,
what comes back."""

from __future__ import annotations

import asyncio
import importlib
import sys
import urllib.error
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from modelium.resources import templates_directory, triton_directory
from modelium.signatures import SERVE_APP

ROUTE = "/greeter@4f0c-7"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(scope="module")
def module() -> Iterator[Any]:
    places = [str(templates_directory() / "ray" / "1"), str(triton_directory() / "backends" / "vllm")]
    sys.path[:0] = places
    yield lambda name: importlib.import_module(f"modelium_ray.{name}")
    for place in places:
        sys.path.remove(place)


def incoming(**tensors: Any) -> Any:
    """A request of Triton's; texts and bytes are the tensors of one element that they come in."""

    def array(name: str) -> np.ndarray | None:
        value = tensors.get(name)
        if isinstance(value, str | bytes):
            value = np.array([[value.encode() if isinstance(value, str) else value]], dtype=np.object_)
        return value

    return SimpleNamespace(array=array, parameters=lambda: "{}")


# -- a request to an application ---------------------------------------------------------------------------------------


def test_a_request_is_a_post_of_json_to_the_application_unless_it_says_otherwise(module: Any) -> None:
    forwarder = module("forwarding").HttpForwarder(None)
    ask = forwarder.read(incoming(REQUEST=b"{}"))
    assert (ask.method, ask.path, ask.content_type, ask.body) == ("POST", "/", "application/json", b"{}")
    ask = forwarder.read(incoming(REQUEST=b"\x00\xff", METHOD="put", PATH="a/b?q=1&q=2", CONTENT_TYPE="x/y"))
    assert (ask.method, ask.path, ask.content_type, ask.body) == ("PUT", "/a/b?q=1&q=2", "x/y", b"\x00\xff")
    nothing = np.empty((1, 0), dtype=np.object_)
    assert forwarder.read(incoming(REQUEST=nothing, METHOD=nothing)) == forwarder.read(incoming())


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET /x", "/"), ("", "/"), ("G\r\nET", "/"), ("GÉT", "/"), ("GET", "/a b"), ("GET", "/\r\nHost: elsewhere"), ("1", "/")],
)
def test_what_makes_no_request_is_refused_with_both(module: Any, method: str, path: str) -> None:
    forwarding = module("forwarding")
    with pytest.raises(forwarding.NotForwarded) as caught:
        forwarding.HttpForwarder(None).read(incoming(METHOD=method, PATH=path))
    assert str(caught.value) == f"METHOD {method.upper()!r} and PATH {path!r} make no request (a path is percent-encoded)"


@given(st.binary(max_size=12), st.binary(max_size=12), st.binary(max_size=12))
def test_any_bytes_make_a_request_or_are_refused(module: Any, method: bytes, path: bytes, body: bytes) -> None:
    forwarding = module("forwarding")
    try:
        ask = forwarding.HttpForwarder(None).read(incoming(METHOD=method, PATH=path, REQUEST=body))
    except forwarding.NotForwarded:
        return
    assert ask.method.isascii() and ask.method.isalpha() and ask.method == ask.method.upper()
    assert ask.path.startswith("/") and not ask.path.startswith("//") and not set(ask.path) & set("\r\n ")
    assert ask.body == body


# -- over HTTP ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def proxy(module: Any, handler: Handler) -> AsyncIterator[Any]:
    """Serve's proxy: one application behind ``ROUTE``, and whatever else it has. Yields a client of it."""
    app = web.Application()
    app.router.add_get("/-/routes", routes)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = module("http").Client(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


async def routes(request: web.Request) -> web.Response:
    return web.json_response({ROUTE: "greeter"})


def asking(module: Any, path: str = "/", method: str = "GET", body: bytes = b"") -> Any:
    return module("http").HttpAsk(method=method, path=path, content_type="text/plain", body=body)


async def pieces_of(client: Any, ask: Any) -> list[tuple[int, bytes, bool]]:
    return [(piece.status, piece.body, piece.whole) async for piece in client.ask(ROUTE, ask)]


async def test_an_application_hears_what_was_asked_and_is_heard(module: Any) -> None:
    async def echo(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity", "nobody would know how to read it"
        said = f"{request.method} {request.raw_path} {request.headers['Content-Type']} ".encode() + await request.read()
        return web.Response(status=418, body=said, content_type="tea/pot")

    async with proxy(module, echo) as client:
        assert await client.knows(ROUTE) and not await client.knows("/other")
        (piece,) = [each async for each in client.ask(ROUTE, asking(module, "/%C3%A9?q=1", "PUT", b"\x00"))]
        assert (piece.status, piece.content_type, piece.whole) == (418, "tea/pot", True)
        assert piece.body == f"PUT {ROUTE}/%C3%A9?q=1 text/plain ".encode() + b"\x00"


async def test_what_streams_comes_as_it_is_said(module: Any) -> None:
    heard = asyncio.Event()

    async def words(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"one ")
        await heard.wait()
        await response.write(b"two ")
        return response

    async with proxy(module, words) as client:
        said = []
        async for piece in client.ask(ROUTE, asking(module)):
            said.append((piece.body, piece.content_type, piece.whole))
            heard.set()
        assert said == [(b"one ", "text/event-stream", False), (b"two ", "text/event-stream", False)]


async def test_a_failure_comes_whole_and_an_answer_that_breaks_off_is_said(module: Any) -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=int(request.raw_path.rpartition("/")[2]))
        await response.prepare(request)
        await response.write(b"Internal ")
        if response.status == 200:
            assert request.transport is not None
            request.transport.close()
        else:
            await response.write(b"Server Error")
        return response

    async with proxy(module, fail) as client:
        assert await pieces_of(client, asking(module, "/500")) == [(500, b"Internal Server Error", True)]
        with pytest.raises(RuntimeError, match="the application's answer broke off: "):
            await pieces_of(client, asking(module, "/200"))


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_is_an_answer(module: Any, status: int) -> None:
    async def say_nothing(request: web.Request) -> web.Response:
        return web.Response(status=status)

    async with proxy(module, say_nothing) as client:
        assert await pieces_of(client, asking(module, method="DELETE")) == [(status, b"", True)]


async def test_where_an_application_points_to_is_the_clients_affair(module: Any) -> None:
    paths: list[str] = []

    async def point(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"}) if request.path == ROUTE + "/" else web.Response()

    async with proxy(module, point) as client:
        assert (await pieces_of(client, asking(module, method="POST")))[0][0] == 307
    assert paths == [ROUTE + "/"]


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("../there", "/there"),
        (f"{ROUTE}/there?q=%2F", "/there?q=%2F"),
        (ROUTE, "/"),
        ("/items/3", "/items/3"),  # as an application writes it that believes itself to be at the root
        ("https://other.example/x", "https://other.example/x"),
    ],
)
async def test_a_place_inside_the_application_is_told_as_its_own(module: Any, location: str, told: str) -> None:
    async def point(request: web.Request) -> web.Response:
        return web.Response(status=303, headers={"Location": location})

    async with proxy(module, point) as client:
        (piece,) = [each async for each in client.ask(ROUTE, asking(module, "/a/b"))]
    assert (piece.status, piece.location) == (303, told)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_request_that_breaks_off_is_not_sent_again(module: Any, method: str) -> None:
    """Over a connection that has carried another request, which is where aiohttp does so."""
    paths: list[str] = []

    async def fall_silent(request: web.Request) -> web.Response:
        paths.append(request.path)
        if request.path.endswith("/silence"):
            assert request.transport is not None
            request.transport.close()
        return web.Response(text="hello")

    async with proxy(module, fall_silent) as client:
        assert await pieces_of(client, asking(module)) == [(200, b"hello", True)]
        with pytest.raises(RuntimeError, match="broke off"):
            await pieces_of(client, asking(module, "/silence", method))
    assert paths == [ROUTE + "/", ROUTE + "/silence"]


@pytest.mark.parametrize("path", ["/../other@4f0c-8/", "/a/../../other@4f0c-8/", "/%2e%2e/other@4f0c-8/"])
async def test_a_path_stays_in_its_application(module: Any, path: str) -> None:
    forwarding, reached = module("forwarding"), []

    async def note(request: web.Request) -> web.Response:
        reached.append(request.raw_path)
        return web.Response(text="of another application")

    async with proxy(module, note) as client:
        try:
            ask = forwarding.HttpForwarder(None).read(incoming(METHOD="GET", PATH=path))
        except forwarding.NotForwarded:
            return
        await pieces_of(client, ask)
    assert all(each.startswith(ROUTE + "/") for each in reached)


async def test_an_answer_has_the_tensors_of_an_application(module: Any) -> None:
    connection = SimpleNamespace(here=True, http_host="127.0.0.1", http_port=0)
    deployment = SimpleNamespace(route=ROUTE, connection=connection, lost_replica_since=lambda moment: True)

    async def answer(request: web.Request) -> web.Response:
        broken = request.path.endswith("broken")
        return web.Response(status=500, text="Internal Server Error") if broken else web.Response(text="hello")

    async with proxy(module, answer) as client:
        connection.http_port = int(client._base.rpartition(":")[2])
        forwarder = module("forwarding").HttpForwarder(deployment)
        await forwarder.open()
        (reply,) = [each async for each in forwarder.answer(asking(module))]
        assert reply.last and set(reply.arrays) == {tensor.name for tensor in SERVE_APP.outputs}
        assert (reply.arrays["RESPONSE"].item(0), reply.arrays["STATUS"].item(0)) == (b"hello", 200)
        assert reply.arrays["CONTENT_TYPE"].item(0).startswith(b"text/plain") and reply.arrays["STATUS"].dtype == np.int32
        (reply,) = [each async for each in forwarder.answer(asking(module, "/broken"))]
        assert reply.arrays["STATUS"].item(0) == 502 and b'"type":"replica_died"' in reply.arrays["RESPONSE"].item(0)
        await forwarder.close()


@pytest.mark.parametrize(
    ("error", "is_busy"),
    [
        (TimeoutError("timed out"), True),
        (urllib.error.URLError(TimeoutError("timed out")), True),
        (urllib.error.URLError(ConnectionRefusedError("refused")), False),
        (ConnectionResetError("reset"), False),
    ],
)
def test_a_dashboard_that_is_slow_is_asked_again(module: Any, error: OSError, is_busy: bool) -> None:
    assert module("forwarding").is_busy(error) is is_busy

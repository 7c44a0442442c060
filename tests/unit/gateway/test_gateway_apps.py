"""Applications of Ray Serve at ``/predict/NAME`` and ``/apps/NAME/…``: what reaches them, what of their answers comes back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from yarl import URL

from modelium.metrics.families import COLD_STARTS, REQUESTS
from modelium.signatures import signature
from tests.patience import PATIENCE_S

from .ray_models import GREETER, asked, piece, post, read, serve_app
from .stand_in import Served

REPLICA_DIED = b'{"error":"a replica of the application died while it answered","type":"replica_died"}'
JSON = "application/json"


# -- what reaches it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_method_path_query_type_and_body_reach_the_application(gateway: Served, method: str) -> None:
    url = serve_app(gateway, piece(b"ok"))
    headers = {"Content-Type": "x/y; charset=z"}
    async with gateway.http.request(method, f"{url}/any/path?q=1&q=2&e=", data=b"\x00\xff", headers=headers) as response:
        assert response.status == 200
    assert asked(gateway) == {
        "REQUEST": b"\x00\xff",
        "METHOD": method.encode(),
        "PATH": b"/any/path?q=1&q=2&e=",
        "CONTENT_TYPE": b"x/y; charset=z",
    }
    assert set(asked(gateway)) == {tensor.name for tensor in signature(GREETER).inputs}


@pytest.mark.parametrize("path", ["", "/"])
async def test_without_a_path_it_is_asked_at_its_root_and_without_a_body_for_json(gateway: Served, path: str) -> None:
    url = serve_app(gateway, piece(b"ok"))
    async with gateway.http.get(url + path) as response:
        assert response.status == 200
    assert asked(gateway) == {"REQUEST": b"", "METHOD": b"GET", "PATH": b"/", "CONTENT_TYPE": JSON.encode()}


async def test_predict_asks_it_at_its_root_with_whatever_was_sent(gateway: Served) -> None:
    serve_app(gateway, piece(b'{"hello":"world"}', content_type=JSON))
    url = f"{gateway.url}/predict/greeter"
    assert await post(gateway, url, {"name": "world"}) == (200, {"hello": "world"})
    assert (asked(gateway)["METHOD"], asked(gateway)["PATH"]) == (b"POST", b"/")
    assert json.loads(asked(gateway)["REQUEST"]) == {"name": "world"}
    async with gateway.http.post(url, data=b"\x89PNG no JSON", headers={"Content-Type": "image/png"}) as response:
        assert response.status == 200
    assert (asked(gateway)["REQUEST"], asked(gateway)["CONTENT_TYPE"]) == (b"\x89PNG no JSON", b"image/png")


async def test_predict_forwards_to_a_model_that_only_its_load_shows_to_be_an_application(gateway: Served) -> None:
    serve_app(gateway, piece(b"hello"))
    known = gateway.controller.models["greeter"]
    gateway.controller.models["greeter"] = replace(known, profile=None)
    lease = gateway.controller.lease

    async def look_and_lease(name: str, **kept: Any) -> Any:
        gateway.controller.models["greeter"] = known
        return await lease(name, **kept)

    gateway.controller.lease = look_and_lease  # type: ignore[method-assign]  # the load is when a model is looked into
    async with gateway.http.post(f"{gateway.url}/predict/greeter", data=b"no JSON") as response:
        assert await read(response) == (200, "text/plain", b"hello")
    assert len(gateway.triton.seen) == 1
    assert gateway.controller.held == 0


async def test_a_label_is_a_name_here_too(gateway: Served) -> None:
    gateway.serve(replace(GREETER, name="org--greeter"))
    gateway.triton.streamer = lambda inputs: [piece(b"ok")]
    async with gateway.http.get(URL(f"{gateway.url}/apps/org%2Fgreeter/x", encoded=True)) as response:
        assert response.status == 200
    assert asked(gateway)["PATH"] == b"/x"


# -- what comes back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (200, "application/json", b'{"hello":"world"}'),
        (201, "application/octet-stream", bytes(range(256))),
        (404, "text/html; charset=utf-8", "<h1>nichts für dich</h1>".encode()),
        (418, "text/plain", b""),
        (500, "text/plain", b"Internal Server Error"),
        (502, "application/json", REPLICA_DIED),
        (503, "application/json", b'{"detail":"busy"}'),
    ],
)
async def test_status_type_and_body_come_back_as_they_are(gateway: Served, status: int, content_type: str, body: bytes) -> None:
    url = serve_app(gateway, piece(body, status=status, content_type=content_type))
    for method, path in (("GET", url), ("POST", f"{gateway.url}/predict/greeter")):
        async with gateway.http.request(method, path) as response:
            assert await read(response) == (status, content_type, body)
            assert response.headers["X-Modelium-Waited-Ms"] == "0"
    assert gateway.recorder.counted(REQUESTS) == [(("greeter", str(status)), 2)]
    assert gateway.controller.held == 0


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("DELETE", 204)])
async def test_an_answer_that_has_no_body_is_one(gateway: Served, method: str, status: int) -> None:
    url = serve_app(gateway, piece(b"", status=status))
    for _ in range(2):  # on one connection: the second is not taken for the first one's body
        async with gateway.http.request(method, url) as response:
            assert (response.status, await response.read()) == (status, b"")


async def test_a_replica_that_died_is_told_once_and_asked_once(gateway: Served) -> None:
    serve_app(gateway, piece(REPLICA_DIED, status=502, content_type=JSON))
    status, answer = await post(gateway, f"{gateway.url}/predict/greeter", {"name": "x"})
    assert (status, answer["type"]) == (502, "replica_died")
    assert len(gateway.triton.seen) == 1
    assert gateway.controller.gone == [], "Ray starts another replica: the model itself is well"


async def test_a_stream_is_passed_on_as_it_is_spoken(gateway: Served) -> None:
    go = asyncio.Event()
    url = serve_app(gateway, piece(b"one "), go, piece(b"two "), piece(b"three", status=500))
    async with asyncio.timeout(PATIENCE_S), gateway.http.get(url) as response:
        assert (response.status, await response.content.readany()) == (200, b"one ")
        go.set()
        assert await response.content.read() == b"two three"


async def test_a_client_that_leaves_a_stream_ends_it_and_frees_the_lease(gateway: Served) -> None:
    url = serve_app(gateway, piece(b"one "), asyncio.Event())
    async with asyncio.timeout(PATIENCE_S):
        response = await gateway.http.get(url)
        assert await response.content.readany() == b"one "
        response.close()
        await gateway.triton.cancelled.wait()
        await gateway.controller.released.wait()
    assert gateway.controller.held == 0


async def test_a_load_that_the_request_waited_for_is_told_and_counted(gateway: Served) -> None:
    url = serve_app(gateway, piece(b"ok"))
    gateway.controller.cold_s = 1.5
    async with gateway.http.get(url) as response:
        assert (response.headers["X-Modelium-Cold"], response.headers["X-Modelium-Waited-Ms"]) == ("1", "1500")
    assert gateway.recorder.counted(COLD_STARTS) == [(("greeter",), 1)]


@pytest.mark.parametrize(("location", "passed_on"), [("/items/?q=1", "/apps/greeter/items/?q=1"), ("http://a/b", "http://a/b")])
async def test_a_redirect_is_the_clients_to_follow(gateway: Served, location: str, passed_on: str) -> None:
    url = serve_app(gateway, piece(b"", status=307, location=location))
    async with gateway.http.post(f"{url}/items", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (307, passed_on)

"""What goes wrong with applications of Ray Serve: what the client is told, and that nothing is asked twice."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from yarl import URL

from modelium.errors import DeadlineExceeded, InferenceFailed, ModelGone, NotServable, TritonUnavailable
from modelium.metrics.families import REQUESTS
from modelium.values import State
from tests.patience import PATIENCE_S

from .ray_models import IRIS, asked, piece, post, serve_app
from .stand_in import Served, Step, Tensors


@pytest.mark.parametrize("fault", [ModelGone("its stub died"), TritonUnavailable("connection refused")])
@pytest.mark.parametrize("door", ["/apps/greeter/x", "/predict/greeter"])
async def test_what_may_have_been_acted_on_is_not_sent_again(gateway: Served, fault: Exception, door: str) -> None:
    serve_app(gateway, piece(b"never"))
    gateway.triton.faults = [fault]
    status, answer = await post(gateway, gateway.url + door, {"pay": 5})
    assert (status, answer["type"]) == (503, "model_gone")
    assert answer["error"] == f"{fault}; it may have acted on the request, which is why it was not sent again"
    assert (len(gateway.triton.seen), gateway.controller.gone, gateway.controller.held) == (1, [str(fault)], 0)


async def test_an_application_that_answers_nothing_is_gone(gateway: Served) -> None:
    url = serve_app(gateway)
    status, answer = await post(gateway, url, {})
    assert (status, answer["type"]) == (503, "model_gone")
    assert "'greeter' answered nothing" in answer["error"]


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (InferenceFailed("METHOD 'G-T' and PATH '/' make no request"), 422, "inference_failed"),
        (DeadlineExceeded("'greeter' did not answer in time"), 504, "deadline_exceeded"),
    ],
)
async def test_an_error_before_the_first_byte_has_its_status(gateway: Served, fault: Exception, status: int, kind: str) -> None:
    url = serve_app(gateway, fault)
    assert await post(gateway, url, {}) == (status, {"error": str(fault), "type": kind})
    assert (gateway.controller.gone, gateway.controller.held) == ([], 0)


@pytest.mark.parametrize("fault", [InferenceFailed("the answer broke off"), DeadlineExceeded("too late"), ModelGone("died")])
async def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(gateway: Served, fault: Exception) -> None:
    url = serve_app(gateway, piece(b"half"), fault)
    async with gateway.http.get(url) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    async with asyncio.timeout(PATIENCE_S):
        await gateway.controller.released.wait()
    ((counted, _),) = gateway.recorder.counted(REQUESTS)
    assert counted[0] == "greeter" and int(counted[-1]) >= 400, "what began well did not end so"


async def test_an_answer_whose_model_dies_silently_breaks_off(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelium.gateway.asking.watching.LOOK_EVERY_S", 0.01)
    url = serve_app(gateway, piece(b"half"), asyncio.Event())
    async with asyncio.timeout(PATIENCE_S), gateway.http.get(url) as response:
        assert await response.content.readany() == b"half"
        gateway.controller.models["greeter"] = replace(gateway.controller.models["greeter"], state=State.FAILED)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()


async def test_an_application_whose_folder_is_taken_away_answers_to_the_end(
    gateway: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelium.gateway.asking.watching.LOOK_EVERY_S", 0.01)
    go = asyncio.Event()
    looks = 0
    status = gateway.controller.status

    def look(name: str) -> Any:
        nonlocal looks
        looks += 1
        if looks == 3:
            go.set()
        return status(name)

    url = serve_app(gateway, piece(b"one "), go, piece(b"two"))
    async with asyncio.timeout(PATIENCE_S), gateway.http.get(url) as response:
        assert await response.content.readany() == b"one "
        gateway.controller.status = look  # type: ignore[method-assign]
        del gateway.controller.models["greeter"]
        assert await response.content.read() == b"two"


async def test_an_unknown_application_is_named_with_the_nearest(gateway: Served) -> None:
    serve_app(gateway, piece(b"never"))
    status, answer = await post(gateway, f"{gateway.url}/apps/greet/x", {})
    assert (status, answer["type"]) == (404, "unknown_model")
    assert "greeter" in answer["error"]
    assert gateway.recorder.counted(REQUESTS) == [(("", "404"), 1)]


@pytest.mark.parametrize("path", ["", "/", "/any?q=1"])
async def test_what_is_no_application_points_to_predict(gateway: Served, path: str) -> None:
    gateway.serve(IRIS)
    status, answer = await post(gateway, f"{gateway.url}/apps/iris{path}", {})
    assert (status, answer["type"]) == (422, "invalid_body")
    assert answer["error"] == "'iris' is no application, it does tabular-classification: ask POST /predict/iris"
    assert gateway.triton.seen == []


async def test_an_application_that_cannot_be_served_says_why(gateway: Served) -> None:
    url = serve_app(gateway, piece(b"never"))
    reason = "it runs its code, which has to be allowed: models: {greeter: {allow_custom_code: true}}"
    gateway.controller.refuse = NotServable(reason)
    assert await post(gateway, url, {}) == (503, {"error": reason, "type": "not_servable"})


async def test_too_large_a_body_is_refused_before_anything_is_asked(gateway: Served) -> None:
    url = serve_app(gateway, piece(b"never"))

    async def chunked() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10_000

    for body in (b"x" * 200_000, chunked()):
        async with gateway.http.put(f"{url}/file", data=body) as response:
            assert (response.status, (await response.json())["type"]) == (413, "body_too_large")
    assert gateway.triton.seen == []


async def test_a_bad_deadline_is_named(gateway: Served) -> None:
    url = serve_app(gateway, piece(b"never"))
    status, answer = await post(gateway, url, {}, headers={"X-Request-Timeout": "soon"})
    assert (status, answer["type"]) == (422, "invalid_body")
    assert "X-Request-Timeout" in answer["error"]


async def test_an_application_has_a_route_of_openais_no_more_than_others(gateway: Served) -> None:
    serve_app(gateway, piece(b"never"))
    body = {"model": "greeter", "messages": [{"role": "user", "content": "x"}]}
    status, answer = await post(gateway, f"{gateway.url}/v1/chat/completions", body)
    assert (status, answer["error"]["code"]) == (400, "unsupported_model")
    assert gateway.triton.seen == []


# -- known faults: each goes with its mark when it is mended --------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/a%20b", "/a?q=hello%20world", "/caf%C3%A9", "/50%25", "/a%3Fb", "/a%2Fb"],
)
async def test_an_escaped_path_reaches_the_application_as_it_was_escaped(gateway: Served, path: str) -> None:
    url = serve_app(gateway, piece(b"ok"))
    async with gateway.http.get(URL(url + path, encoded=True)) as response:
        assert response.status == 200
    assert asked(gateway)["PATH"] == path.encode()


@pytest.mark.parametrize("path", ["/../other/x", "/%2e%2e/other/x", "/a/../../-/routes"])
async def test_a_path_does_not_lead_out_of_the_application(gateway: Served, path: str) -> None:
    url = serve_app(gateway, piece(b"ok"))
    async with gateway.http.get(URL(url + path, encoded=True)):
        pass
    assert all(b".." not in inputs["PATH"].item() for inputs in gateway.triton.seen)


async def test_what_is_no_application_is_not_loaded_to_say_so(gateway: Served) -> None:
    gateway.serve(IRIS)
    gateway.controller.refuse = AssertionError("a lease was taken")
    assert (await post(gateway, f"{gateway.url}/apps/iris/x", {}))[0] == 422


async def test_an_answer_has_the_requests_id(gateway: Served) -> None:
    url = serve_app(gateway, piece(b"ok"))
    async with gateway.http.get(url, headers={"X-Request-Id": "mine-1"}) as response:
        assert response.headers.get("X-Request-Id") == "mine-1"


async def test_an_odd_content_type_breaks_nothing(gateway: Served) -> None:
    url = serve_app(gateway, piece(b"ok"))
    host, port = url.split("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = b"POST /apps/greeter HTTP/1.1\r\nHost: localhost\r\nContent-Type: a/\xff\r\n"
    head += b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    writer.write(head)
    status = int((await reader.readline()).split()[1])
    writer.close()
    await writer.wait_closed()
    assert status < 500


async def test_a_model_that_dies_in_the_middle_is_reported(gateway: Served) -> None:
    url = serve_app(gateway, piece(b"half"), ModelGone("its stub died"))
    with pytest.raises(aiohttp.ClientPayloadError):
        async with gateway.http.get(url) as response:
            await response.read()
    async with asyncio.timeout(PATIENCE_S):
        await gateway.controller.released.wait()
    assert gateway.controller.gone == ["its stub died"]


async def test_a_client_that_reads_nothing_frees_the_application_at_its_deadline(gateway: Served) -> None:
    def steps(inputs: Tensors) -> Iterator[Step]:
        while True:
            yield piece(b"x" * 60_000)

    url = serve_app(gateway)
    gateway.triton.streamer = steps
    host, port = url.split("/")[2].split(":")
    head = b"POST /apps/greeter HTTP/1.1\r\nHost: localhost\r\nX-Request-Timeout: 0.2\r\nContent-Length: 0\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        client.send(head)
        async with asyncio.timeout(PATIENCE_S):
            await gateway.controller.released.wait()
    assert gateway.controller.held == 0

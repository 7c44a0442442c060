"""KServe's v2 protocol against a Triton that does on demand what a real one does seldom: it is away, breaks off, hangs."""

from __future__ import annotations

import asyncio
import gzip
import socket
import zlib
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from modelium.errors import ModelGone, NotExecuted
from modelium.triton.faults import http_fault
from modelium.values import State, Task

from .kserve_upstream import FINE, GONE, INFER, breaks_off, breaks_off_amid, error, gateway, hangs, says
from .stand_in import profile_of, status_of

PACKED = gzip.compress(b"some tensors")


async def test_bytes_pass_in_both_directions_and_secrets_do_not() -> None:
    async with gateway(FINE) as (running, upstream):
        headers = {
            "Authorization": "Bearer KEY",
            "X-API-Key": "KEY",
            "X-Priority": "low",
            "Modelium": "guessed",
            "Content-Encoding": "gzip",
            "Inference-Header-Content-Length": "3",
            "X-Mine": "yes",
        }
        async with running.http.post(running.url + INFER, data=PACKED, headers=headers) as answer:
            assert (answer.status, await answer.read()) == (200, b"\x00answer")
            assert answer.headers["Inference-Header-Content-Length"] == "7"
        [(method, path, got, body)] = upstream.seen
        assert (method, path, body) == ("POST", INFER, PACKED)
        assert {name.lower() for name in got}.isdisjoint({"authorization", "x-api-key", "x-priority"})
        assert [got[name] for name in ("modelium", "Content-Encoding", "X-Mine")] == ["secret", "gzip", "yes"]
        assert running.controller.held == 0


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", gzip.compress(bytes(50_000_000)), 413),
        ("deflate", zlib.compress(bytes(50_000_000)), 413),
        ("gzip", b"\x1fnot gzip", 400),
        ("gzip", PACKED + PACKED, 400),  # who unpacks on would find more than was counted
        ("compress", b"x", 415),
        ("gzip, gzip", PACKED, 415),
    ],
    ids=["gzip", "deflate", "no gzip", "two of them", "unknown", "packed twice"],
)
async def test_a_packed_body_counts_unpacked(encoding: str, body: bytes, status: int) -> None:
    async with gateway(FINE) as (running, upstream):
        for _ in range(2):  # the second time a connection to Triton could be had
            async with running.http.post(running.url + INFER, data=b"{}") as answer:
                assert answer.status == 200
            async with running.http.post(running.url + INFER, data=body, headers={"Content-Encoding": encoding}) as answer:
                assert answer.status == status
        assert len(upstream.seen) == 2
        assert running.controller.held == 0


async def test_no_place_on_the_server_is_in_what_triton_s_clients_are_told() -> None:
    async with gateway(FINE) as (running, _):
        place = Path.cwd() / "models"
        failed = replace(running.controller.models["m"], state=State.FAILED, reason=f"in {place}/m", quarantined=True)
        adapter = replace(failed, name="a", state=State.LOADED, base="m")
        running.controller.models |= {"m": failed, "a": adapter}
        async with running.http.get(f"{running.url}/v2/models/m/ready") as answer:
            assert (answer.status, str(place) in await answer.text()) == (400, False)
        async with running.http.post(f"{running.url}/v2/repository/index") as answer:
            (row,) = await answer.json()
            assert (row["name"], row["state"], str(place) in row["reason"]) == ("m", "UNAVAILABLE", False)


async def test_what_was_certainly_not_executed_is_sent_again() -> None:
    async with gateway(GONE, GONE, FINE) as (running, upstream):
        async with running.http.post(running.url + INFER, data=b"{}") as answer:
            assert answer.status == 200
        assert (len(upstream.seen), len(running.controller.gone), running.controller.held) == (3, 2, 0)


async def test_it_ends_where_triton_goes_on_not_knowing_the_model() -> None:
    async with gateway(GONE) as (running, upstream):
        async with running.http.post(running.url + INFER, data=b"{}") as answer:
            assert (answer.status, (await answer.json())["type"]) == (503, "model_gone")
        assert len(upstream.seen) == 3


async def test_a_triton_that_nobody_reaches_is_asked_again_and_then_told() -> None:
    async with gateway(FINE) as (running, upstream):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            running.triton.http_url = f"127.0.0.1:{free.getsockname()[1]}"
        async with running.http.post(running.url + INFER, data=b"{}") as answer:
            assert (answer.status, "triton.http_url" in (await answer.json())["error"]) == (503, True)
        assert (len(running.controller.gone), upstream.seen) == (3, [])


async def test_what_may_have_been_executed_is_not_sent_again() -> None:
    async with gateway(breaks_off, FINE) as (running, upstream):
        async with running.http.post(running.url + INFER, data=b"{}") as answer:
            assert (answer.status, "not sent again" in (await answer.json())["error"]) == (503, True)
        assert (len(upstream.seen), len(running.controller.gone), running.controller.held) == (1, 1, 0)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "input byte size mismatch for input 'x' for model 'm'. Expected 4, got 3"),
        (404, "Request for unknown model: 'm' version 9 is not found"),
        (500, "boom"),
        (400, "Request for unknown model: 'm' is not found"),  # a model's own words, by another status
    ],
)
async def test_tritons_error_is_the_clients(status: int, words: str) -> None:
    async with gateway(says(status, error(words))) as (running, upstream):
        async with running.http.post(running.url + INFER, data=b"{}") as answer:
            assert (answer.status, await answer.read()) == (status, error(words))
        assert (len(upstream.seen), running.controller.gone) == (1, [])


async def test_a_dead_process_is_reported_and_its_request_is_not_sent_again() -> None:
    words = "Failed to process the request(s) for model instance 'm_0_0', message: Stub process 'm_0_0' is not healthy."
    async with gateway(says(500, error(words))) as (running, upstream):
        async with running.http.post(running.url + INFER, data=b"{}") as answer:
            assert (answer.status, await answer.read()) == (500, error(words))
        assert (len(upstream.seen), len(running.controller.gone)) == (1, 1)


async def test_a_client_that_hangs_up_ends_the_request() -> None:
    async with gateway(hangs) as (running, upstream):
        asking = asyncio.create_task(running.http.post(running.url + INFER, data=b"{}"))
        while not upstream.seen:  # noqa: ASYNC110 — a request on its way
            await asyncio.sleep(0.005)
        asking.cancel()
        await running.controller.released.wait()
        await upstream.gone.wait()
        assert running.controller.held == 0


async def test_a_stream_passes_as_it_comes_and_ends_with_its_client() -> None:
    more = asyncio.Event()

    async def streams(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await more.wait()
        await response.write(b"data: 2\n\n")
        await asyncio.Event().wait()
        return response

    async with gateway(streams) as (running, upstream):
        answer = await running.http.post(f"{running.url}/v2/models/m/generate_stream", data=b"{}")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        assert await answer.content.readany() == b"data: 1\n\n"
        more.set()
        assert await answer.content.readany() == b"data: 2\n\n"
        assert running.controller.held == 1
        answer.close()
        await running.controller.released.wait()
        await upstream.gone.wait()


async def test_an_answer_that_breaks_off_is_no_whole_one() -> None:
    async with gateway(breaks_off_amid) as (running, _):
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
            async with running.http.post(running.url + INFER, data=b"{}") as answer:
                await answer.read()
        assert (running.controller.held, len(running.controller.gone)) == (0, 1)


async def test_a_body_beyond_the_limit_comes_to_nobody() -> None:
    async with gateway(FINE) as (running, upstream):
        async with running.http.post(running.url + INFER, data=b"x" * 100_001) as answer:
            assert (answer.status, (await answer.json())["type"]) == (413, "body_too_large")
        assert upstream.seen == []


async def test_a_deadline_holds() -> None:
    async with gateway(hangs) as (running, _):
        async with running.http.post(running.url + INFER, data=b"{}", headers={"X-Request-Timeout": "0.2"}) as answer:
            assert (answer.status, (await answer.json())["type"]) == (504, "deadline_exceeded")
        assert running.controller.held == 0


@pytest.mark.parametrize("path", ["/v2/systemsharedmemory/status", "/v2/cudasharedmemory/region/r/register", "/v2/logging"])
async def test_the_server_s_machine_is_nobodys_business(path: str) -> None:
    async with gateway(FINE) as (running, upstream):
        async with running.http.post(running.url + path, data=b"{}") as answer:
            assert (answer.status, (await answer.json())["type"]) == (403, "refused")
        assert upstream.seen == []


@pytest.mark.parametrize("rest", ["region/../status", "../models/m", "region/a/b/register", "region/x%3f/other"])
async def test_no_path_leads_out_of_the_shared_memorys(rest: str) -> None:
    async with gateway(FINE, shared_memory=True) as (running, upstream):
        where = URL(f"{running.url}/v2/systemsharedmemory/{rest}", encoded=True)
        async with running.http.post(where, data=b"{}") as answer:
            assert answer.status in (400, 404)
        assert upstream.seen == []
        async with running.http.post(f"{running.url}/v2/systemsharedmemory/region/a%20b/register", data=b"{}") as answer:
            assert answer.status == 200
        assert upstream.seen[0][1] == "/v2/systemsharedmemory/region/a%20b/register"


async def test_a_setting_gives_tritons_meaning_of_ready() -> None:
    for ready, status in (("can_load", 200), ("loaded", 400)):
        async with gateway(FINE, kserve_ready=ready) as (running, upstream):
            running.controller.models["m"] = status_of(profile_of(Task.TEXT_CLASSIFICATION), state=State.UNLOADED)
            async with running.http.get(f"{running.url}/v2/models/m/ready") as answer:
                assert (answer.status, answer.headers["X-Modelium-State"]) == (status, "UNLOADED")
            assert upstream.seen == []


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"parameters": 1}', b'{"parameters": {"config": "{}"}}'])
async def test_a_load_with_something_else_loads_nothing(body: bytes) -> None:
    async with gateway(FINE) as (running, _):
        async with running.http.post(f"{running.url}/v2/repository/models/m/load", data=body) as answer:
            assert (answer.status, isinstance((await answer.json())["error"], str)) == (400, True)
        assert running.controller.calls == []


def test_what_triton_says_over_http() -> None:
    for status, words, kind in [
        (404, "Request for unknown model: 'm' is not found", NotExecuted),
        (404, "Request for unknown model: 'm' has no available versions", NotExecuted),
        (400, "requested model 'm' is not available", NotExecuted),
        (503, "Request for unknown model: 'm' version 1 is not at ready state", NotExecuted),
        (503, "Server is stopping, scheduler for model has stopped accepting new inference requests", NotExecuted),
        (404, "Request for unknown model: 'm' version 2 is not found", type(None)),
        (500, "Stub process 'm_0_0' is not healthy.", ModelGone),
    ]:
        assert type(http_fault("m", status, error(words))) is kind, words
    for body in (b"", b"[]", b'{"error": 1}', b'{"x": ""}', b"\xff"):
        assert http_fault("m", 404, body) is None


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("POST", "/v2/models/org/x@2/infer", "Request for unknown model: 'org/x@2' is not found; "),
        ("GET", "/v2/models/nobody", "Request for unknown model: 'nobody' is not found; "),
        ("GET", "/v2/models/nobody/ready", "Request for unknown model: 'nobody' is not found; "),
        ("POST", "/v2/repository/models/nobody/load", "failed to load 'nobody', no model has that name; "),
        ("POST", "/v2/repository/models/nobody/unload", "Request for unknown model: 'nobody' is not found; "),
    ],
)
async def test_who_asks_for_nothing_is_told_in_tritons_words(method: str, path: str, words: str) -> None:
    """Triton's own examples look for them."""
    async with gateway(FINE) as (running, _), running.http.request(method, running.url + path) as answer:
        body = await answer.json()
        assert (answer.status, body["type"]) == (404, "unknown_model")
        assert body["error"].startswith(words)

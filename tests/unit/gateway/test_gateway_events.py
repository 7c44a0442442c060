"""``GET /events``: what a client that listens is told, that it may come back, and that one that does not read harms nobody."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from modelium.controller import Controller
from modelium.gateway.http.errors import answer_errors
from modelium.gateway.places import Places
from modelium.gateway.status.events import Events
from modelium.values import LoadingStatus, LoadStage, State, Task

from .stand_in import Served, StandInController, profile_of, served, status_of


async def events_of(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Each event with its fields; comments too."""
    event: dict[str, Any] = {}
    async for line in response.content:
        text = line.decode().rstrip("\n")
        if not text:
            if event:
                yield event
            event = {}
            continue
        field, _, value = text.partition(": ")
        event[field or "comment"] = json.loads(value) if field == "data" else value


@asynccontextmanager
async def listening(gateway: Served, query: str = "", **headers: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    async with gateway.http.get(f"{gateway.url}/events{query}", headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        events = events_of(response)
        assert await anext(events) == {"retry": "2000"}
        yield events


async def test_the_states_come_first_and_then_what_changes(gateway: Served) -> None:
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, "a"))
    gateway.controller.models["b"] = status_of(profile_of(Task.FEATURE_EXTRACTION, "b"), state=State.UNLOADED)
    news = gateway.controller.news
    async with listening(gateway) as events:
        first = [await anext(events) for _ in range(2)]
        assert [(each["event"], each["data"]["model"], each["data"]["state"]) for each in first] == [
            ("state", "a", "LOADED"),
            ("state", "b", "UNLOADED"),
        ]
        news.tell("b", State.LOADING, "a request waits", LoadStage.PREPARING)
        changed = await anext(events)
        assert (changed["event"], changed["id"]) == ("state", f"{news.era}-1")
        assert changed["data"]["state"] == "LOADING" and changed["data"]["stage"] == "preparing"
        news.tell("a", None, "its folder was removed")
        gone = await anext(events)
        assert (gone["event"], gone["data"]["model"]) == ("gone", "a")


async def test_places_on_the_server_are_left_out_of_reasons(gateway: Served) -> None:
    place = Path(tempfile.gettempdir()) / "m" / "x.onnx"
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, "m"))
    gateway.controller.models["m"] = replace(gateway.controller.models["m"], reason=f"{place} is cut short")
    async with listening(gateway) as events:
        assert (await anext(events))["data"]["reason"] == "m/x.onnx is cut short"
        for state in (State.FAILED, None):
            gateway.controller.news.tell("m", state, f"{place} is gone")
            assert (await anext(events))["data"]["reason"] == "m/x.onnx is gone"


async def test_of_one_model_the_others_are_not_heard_and_its_end_ends_the_stream(gateway: Served) -> None:
    for name in ("a", "b"):
        gateway.serve(profile_of(Task.FEATURE_EXTRACTION, name))
    async with listening(gateway, "?model=a") as events:
        assert (await anext(events))["data"]["model"] == "a"
        gateway.controller.news.tell("b", State.UNLOADED, "evicted")
        gateway.controller.news.tell("a", None, "its folder was removed")
        assert [each["event"] async for each in events] == ["gone"]


async def test_who_comes_back_hears_what_it_missed_and_no_more(gateway: Served) -> None:
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, "a"))
    news = gateway.controller.news
    for state in (State.LOADED, State.DRAINING, State.UNLOADED):
        news.tell("a", state, "so")
    async with listening(gateway, **{"Last-Event-ID": f"{news.era}-1"}) as events:
        assert [(await anext(events))["data"]["state"] for _ in range(2)] == ["DRAINING", "UNLOADED"]
        news.tell("a", State.LOADING, "so")
        assert (await anext(events))["data"]["state"] == "LOADING"


@pytest.mark.parametrize("ident", ["other-1", "{era}-99", "{era}-", "{era}-x", "7", "{era}-²", "{era}-" + "9" * 5000])
async def test_an_id_that_means_nothing_is_answered_with_the_states(gateway: Served, ident: str) -> None:
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, "a"))
    ident = ident.format(era=gateway.controller.news.era)
    async with listening(gateway, **{"Last-Event-ID": ident}) as events:
        assert (await anext(events))["data"]["state"] == "LOADED"


async def test_an_unknown_model_and_a_client_without_a_key_are_refused(gateway: Served, tmp_path: Path) -> None:
    async with gateway.http.get(f"{gateway.url}/events?model=nobody") as response:
        assert response.status == 404
    keys = tmp_path / "keys"
    keys.write_text("the-right-key-0123456789\n", encoding="utf-8")
    async with served(api_keys_file=keys) as locked, locked.http.get(f"{locked.url}/events") as response:
        assert response.status == 401


async def test_loads_are_followed_and_silence_is_filled() -> None:
    """With a clock of its own: a progress a second, and a comment after ten, are long for a test."""
    controller = StandInController()
    status = status_of(profile_of(Task.FEATURE_EXTRACTION, "a"), state=State.LOADING)
    loads = LoadingStatus(stage=LoadStage.LOADING, seconds=2.0, progress=0.5, remaining_s=2.0)
    controller.models["a"] = replace(status, loading=loads, waiting=3)
    events = Events(cast("Controller", controller), Places(), stall_s=60, progress_s=0.01, heartbeat_s=0.02)
    app = web.Application(middlewares=(answer_errors,))
    app.router.add_get("/events", events.show)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession() as http, http.get(f"http://{host}:{port}/events") as response:
            heard = events_of(response)
            first = [await anext(heard) for _ in range(3)]
            assert [each.get("event") for each in first] == [None, "state", "progress"]
            told = first[2]["data"]
            assert "id" not in first[2] and (told["waiting"], told["loading"]["progress"]) == (3, 0.5)
            controller.models["a"] = replace(status, loading=None)
            while "comment" not in (event := await anext(heard)):
                assert event["event"] == "progress"
            await events.close(app)
            assert all([each.keys() == {"comment"} async for each in heard]), "it ends when Modelium stops"
    finally:
        await runner.cleanup()


async def test_a_client_that_does_not_read_loses_its_connection_and_nobody_else(gateway: Served) -> None:
    news, where = gateway.controller.news, urlsplit(gateway.url)
    loop = asyncio.get_running_loop()
    with socket.socket() as deaf:
        deaf.setblocking(False)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(deaf, (where.hostname, where.port))
        await loop.sock_sendall(deaf, f"GET /events HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
        assert await loop.sock_recv(deaf, 12) == b"HTTP/1.1 200"  # the last that it reads
        async with listening(gateway) as events:
            told = 0
            while news.listeners == 2:
                news.tell("m", State.LOADED, f"{told} " + "x" * 1900)
                assert (await anext(events))["data"]["reason"].startswith(f"{told} ")
                told += 1
                assert told < 100_000, "it was never cut"
            news.tell("m", State.UNLOADED, "the last word")
            assert (await anext(events))["data"]["reason"] == "the last word"

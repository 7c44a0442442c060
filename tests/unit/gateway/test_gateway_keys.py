"""API keys at the gateway: which routes ask for one, what is said to whom has none, and that real clients send theirs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from modelium.config import GatewaySettings
from modelium.errors import ConfigError, KeyQueueFull
from modelium.gateway.http.keys import OPEN_ROUTES
from modelium.values import Asker, Priority, Task

from .stand_in import Served, numbers, profile_of, repeated, served

KEY, OTHER = "the-right-key-0123456789", "another-key-0123456789ab"
BEARER = {"Authorization": f"Bearer {KEY}"}
CLOSED = [
    ("GET", "/models"),
    ("GET", "/models/m"),
    ("POST", "/models/m/load"),
    ("POST", "/models/m/unload"),
    ("POST", "/models/m/pin"),
    ("POST", "/models/m/unpin"),
    ("GET", "/plan"),
    ("POST", "/predict/m"),
    ("GET", "/predict/m"),
    ("GET", "/apps/m"),
    ("PUT", "/apps/m/any/path?q=1"),
    ("GET", "/nothing/here"),
]
CLOSED_OPENAI = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/m"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/nothing"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"# for the tests\nana: {KEY}\n", encoding="utf-8")
    return path


@pytest.fixture
async def locked(file: Path) -> AsyncIterator[Served]:
    async with served(request_timeout_seconds=60, api_keys_file=file) as running:
        running.serve(profile_of(Task.FEATURE_EXTRACTION), repeated({"EMBEDDING": numbers([1, 2, 3])}))
        yield running


@pytest.mark.parametrize(
    ("line", "sent", "priority"),
    [
        ("ana: {key}", None, Priority.NORMAL),
        ("ana: {key}", "high", Priority.HIGH),
        ("ana: {key}", "Low", Priority.LOW),
        ("ana: {key}  priority=low", None, Priority.LOW),
        ("ana: {key} priority=low", "high", Priority.LOW),
        ("ana: {key} priority=normal", "high", Priority.NORMAL),
        ("ana: {key} priority=normal", "low", Priority.LOW),
        ("ana: {key} priority=high", None, Priority.HIGH),
        ("ana: {key} priority=high", "normal", Priority.NORMAL),
    ],
)
async def test_who_asks_and_how_urgently_is_known_where_leases_are_given(
    tmp_path: Path, line: str, sent: str | None, priority: Priority
) -> None:
    file = tmp_path / "keys"
    file.write_text(line.format(key=KEY) + "\n", encoding="utf-8")
    async with served(request_timeout_seconds=60, api_keys_file=file) as running:
        url = running.serve(profile_of(Task.FEATURE_EXTRACTION), repeated({"EMBEDDING": numbers([1, 2, 3])}))
        headers = BEARER | ({} if sent is None else {"X-Priority": sent})
        async with running.http.post(url, json={"inputs": "a"}, headers=headers) as response:
            assert response.status == 200
        assert running.controller.askers == [Asker("ana", priority)]


@pytest.mark.parametrize(("sent", "status", "priority"), [("high", 200, Priority.HIGH), ("urgent", 422, None)])
async def test_without_keys_anybody_may_say_how_urgent_it_is(
    gateway: Served, sent: str, status: int, priority: Priority | None
) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), repeated({"EMBEDDING": numbers([1, 2, 3])}))
    async with gateway.http.post(url, json={"inputs": "a"}, headers={"X-Priority": sent}) as response:
        body = await response.json()
    assert response.status == status
    assert gateway.controller.askers == ([Asker("", priority)] if priority is not None else [])
    assert priority is not None or body["error"] == "X-Priority: expected high, normal or low, found 'urgent'"


async def test_a_key_whose_queue_is_full_is_told_to_come_back(gateway: Served) -> None:
    gateway.controller.refuse = KeyQueueFull("256 requests with this API key wait already", 4.2)
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION))
    async with gateway.http.post(url, json={"inputs": "a"}) as response:
        body = await response.json()
    assert (response.status, body["type"], response.headers["Retry-After"]) == (429, "key_queue_full", "5")


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_a_route_without_a_key_is_refused_in_our_shape(locked: Served, method: str, path: str) -> None:
    async with locked.http.request(method, locked.url + path) as response:
        body = await response.json()
    assert (response.status, body["type"]) == (401, "unauthorized")
    assert "Authorization: Bearer KEY" in body["error"]
    assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    assert response.headers["X-Request-Id"]
    assert not locked.controller.calls


@pytest.mark.parametrize(("method", "path"), CLOSED_OPENAI)
async def test_a_route_of_openais_is_refused_in_openais_shape(locked: Served, method: str, path: str) -> None:
    async with locked.http.request(method, locked.url + path) as response:
        error = (await response.json())["error"]
    assert (response.status, error["type"], error["code"]) == (401, "invalid_request_error", "invalid_api_key")
    assert response.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("path", sorted(OPEN_ROUTES))
async def test_probes_and_the_page_need_no_key(locked: Served, path: str) -> None:
    for headers in ({}, {"Authorization": f"Bearer {OTHER}"}):
        async with locked.http.get(locked.url + path, headers=headers) as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (BEARER, 200),
        ({"Authorization": f"bearer   {KEY} "}, 200),
        ({"X-API-Key": KEY}, 200),
        ({"Authorization": f"Bearer {OTHER}", "X-API-Key": KEY}, 200),
        ({"Authorization": f"Bearer {OTHER}"}, 401),
        ({"Authorization": KEY}, 401),
        ({"Authorization": f"Basic {KEY}"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"X-API-Key": KEY[:-1]}, 401),
        ({"Cookie": f"key={KEY}"}, 401),
    ],
)
async def test_a_key_comes_as_bearer_or_in_its_own_header(locked: Served, headers: dict[str, str], status: int) -> None:
    async with locked.http.get(f"{locked.url}/models", headers=headers) as response:
        assert response.status == status
    async with locked.http.get(f"{locked.url}/models?api_key={KEY}") as response:
        assert response.status == 401, "never in the address: those are logged everywhere"


async def test_without_a_file_nobody_is_asked(gateway: Served) -> None:
    async with gateway.http.get(f"{gateway.url}/models") as response:
        assert response.status == 200


async def test_a_wrong_key_is_not_repeated_anywhere(locked: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with locked.http.get(f"{locked.url}/models", headers={"X-API-Key": OTHER}) as response:
            assert "not known here" in (text := await response.text())
    assert OTHER not in text and OTHER not in caplog.text and KEY not in caplog.text


async def test_a_rotated_key_counts_at_once(locked: Served, file: Path) -> None:
    file.with_name("new").write_text(OTHER, encoding="utf-8")
    file.with_name("new").replace(file)
    for key, status in ((KEY, 401), (OTHER, 200)):
        async with locked.http.get(f"{locked.url}/models", headers={"X-API-Key": key}) as response:
            assert response.status == status


async def test_a_file_without_keys_is_no_gateway(tmp_path: Path) -> None:
    (tmp_path / "keys").touch()
    with pytest.raises(ConfigError, match="there is no key in"):
        async with served(api_keys_file=tmp_path / "keys"):
            pass


async def test_refused_requests_are_counted_without_a_name(locked: Served) -> None:
    async with locked.http.post(f"{locked.url}/predict/m", json={"inputs": "x"}) as response:
        assert response.status == 401
    async with locked.http.get(f"{locked.metrics_url}/metrics") as response:
        assert 'modelium_requests_total{code="401",model=""} 1.0' in await response.text()


async def test_openais_client_sends_its_key(locked: Served) -> None:
    async with openai.AsyncOpenAI(base_url=f"{locked.url}/v1", api_key=KEY) as client:
        assert [model.id async for model in client.models.list()] == ["m"]
        assert (await client.embeddings.create(model="m", input="x", encoding_format="float")).data[0].embedding == [1, 2, 3]
    async with openai.AsyncOpenAI(base_url=f"{locked.url}/v1", api_key=OTHER, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError, match="not known here"):
            await client.models.list()


async def test_hugging_faces_client_sends_its_token(locked: Served) -> None:
    def ask(token: str) -> object:
        client = InferenceClient(model=f"{locked.url}/predict/m", token=token)
        return client.feature_extraction("x").ravel().tolist()

    assert await asyncio.to_thread(ask, KEY) == [1, 2, 3]
    with pytest.raises(HfHubHTTPError, match="401"):
        await asyncio.to_thread(ask, OTHER)


async def test_the_page_asks_for_the_key_and_keeps_it_in_the_tab(locked: Served) -> None:
    async with locked.http.get(locked.url) as response:
        page = await response.text()
    assert 'id="ask" hidden' in page and 'type="password"' in page
    assert "sessionStorage" in page and "localStorage" not in page and KEY not in page


@pytest.mark.parametrize(
    ("host", "keys", "open_to_all"),
    [
        ("127.0.0.1", None, False),
        ("::1", None, False),
        ("0.0.0.0", None, True),
        ("0.0.0.0", "keys", False),
        ("0.0.0.0", "", True),
    ],
)
def test_whether_others_may_ask_is_known(host: str, keys: str | None, open_to_all: bool) -> None:
    """An empty path is none: compose hands on every variable, set or not."""
    assert GatewaySettings.model_validate({"host": host, "api_keys_file": keys}).open_to_all is open_to_all

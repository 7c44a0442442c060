"""Paths as people and clients write them: what is meant is answered, the rest is told the right path."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from modelium.gateway.http.paths import meant_path
from modelium.values import Task

from .stand_in import Served, numbers, profile_of, repeated

ANSWER = repeated({"EMBEDDING": numbers([1, 2, 3])})


@given(st.text("/v1?.a%20", max_size=30).map("/".__add__))
def test_what_was_meant_stays_what_was_meant(sent: str) -> None:
    assert meant_path(meant_path(sent)) == meant_path(sent)
    assert meant_path(sent).startswith("/")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/predict/m/"),
        ("POST", "//predict//m"),
        ("GET", "/v1/models/"),
        ("GET", "//v1/models"),
        ("GET", "/models/"),
        ("GET", "/models/m/"),
        ("POST", "/embeddings"),
        ("POST", "/v1/v1/embeddings"),
        ("POST", "/v1/embeddings/"),
        ("GET", "/health/live/"),
        ("HEAD", "/health/live"),
        ("HEAD", "/models"),
    ],
)
async def test_what_is_meant_is_answered(gateway: Served, method: str, path: str) -> None:
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION), ANSWER)
    body = {"model": "m", "input": "a"} if "embeddings" in path else {"inputs": "a"}
    url = URL(gateway.url + path, encoded=True)
    async with gateway.http.request(method, url, json=body, allow_redirects=False) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("sent", "label"),
    [
        ("acme/qwen2.5:7b", "acme/qwen2.5"),
        ("acme/qwen2.5%3A7b", "acme/qwen2.5"),
        ("acme%2Fqwen2.5:7b", "acme/qwen2.5"),
        ("qwen2.5:7b", "qwen2.5"),
        ("my%20model:7b", "my model"),
        ("a@b:7b", "a@b"),
    ],
)
async def test_a_name_with_a_colon_is_called_as_it_is_written(gateway: Served, sent: str, label: str) -> None:
    url = URL(f"{gateway.url}/predict/{sent}", encoded=True)
    async with gateway.http.post(url, json={"inputs": "a"}) as answer:
        assert answer.status == 404
        assert f"{label!r}" in (await answer.json())["error"]  # the stand-in says what it was asked for


@pytest.mark.parametrize("name", ["my model", "a@b", "org/my model"])
async def test_a_name_with_other_signs_is_reached_percent_encoded(gateway: Served, name: str) -> None:
    from modelium.names import served_name

    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, served_name(name)), ANSWER)
    async with gateway.http.post(f"{gateway.url}/predict/{name}", json={"inputs": "a"}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/predict", "/predict/NAME"),
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/v1/chat", "/v1/chat/completions"),
        ("/V1/Models", "/v1/models"),
        ("/generate", "/predict/NAME"),
    ],
)
async def test_what_nobody_serves_is_told_the_right_path(gateway: Served, path: str, right: str) -> None:
    async with gateway.http.post(gateway.url + path, json={}) as answer:
        assert answer.status == 404
        assert right in await answer.text()


@pytest.mark.parametrize("path", ["/" + "a" * 5000, "/v1/" + "a" * 5000, "/health/" + "a" * 5000])
async def test_no_long_path_is_repeated(gateway: Served, path: str) -> None:
    async with gateway.http.get(gateway.url + path) as answer:
        assert answer.status == 404
        assert len(await answer.read()) < 500


@pytest.mark.parametrize("path", ["/predict/m", "/v1/embeddings", "/models"])
async def test_options_says_what_there_is(gateway: Served, path: str) -> None:
    async with gateway.http.options(gateway.url + path) as answer:
        assert answer.status == 204
        assert {"POST", "GET"} & set(answer.headers["Allow"].split(", "))
    async with gateway.http.delete(gateway.url + path) as answer:
        assert answer.status == 405
        assert answer.headers["Allow"]
        assert "not DELETE" in json.dumps(await answer.json())

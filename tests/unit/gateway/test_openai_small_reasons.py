"""Clients that did not work for a small reason: an empty list, an address, a missing header, a word too many."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelium.errors import DeadlineExceeded, InferenceFailed, LoadFailed, ModelGone, NotServable
from modelium.values import State, Task

from .openai_models import chat_model, prompt_of, saying, write_folder
from .stand_in import Served, numbers, profile_of, repeated, response

HI = [{"role": "user", "content": "hello"}]


async def post(gateway: Served, path: str, body: Any) -> tuple[int, Any, Any]:
    async with gateway.http.post(gateway.url + path, json=body) as answer:
        return answer.status, await answer.json(), answer.headers


async def get(gateway: Served, path: str) -> tuple[int, Any]:
    async with gateway.http.get(gateway.url + path) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("by_vllm", [True, False])
async def test_an_empty_stop_stops_nothing(gateway: Served, tmp_path: Path, by_vllm: bool) -> None:
    profile = chat_model(write_folder(tmp_path / "m"))
    answer = {
        "GENERATED_TEXT": numbers([1]).astype(object).reshape(1, 1),
        "FINISH_REASON": numbers([1]).astype(object).reshape(1, 1),
        "INPUT_TOKENS": numbers([2]),
        "OUTPUT_TOKENS": numbers([1]),
    }
    answer["GENERATED_TEXT"][0, 0], answer["FINISH_REASON"][0, 0] = b"x", b"stop"
    url = gateway.serve_vllm(profile, saying("x")) if by_vllm else gateway.serve(profile, repeated(answer))
    async with gateway.http.post(url, json={"inputs": "hello", "parameters": {"stop": []}}) as said:
        assert said.status == 200, await said.text()


async def test_a_model_s_own_address_has_openai_s_api(gateway: Served, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("x"))
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, "e"), repeated({"EMBEDDING": numbers([1, 2, 3])}))
    for path, body in (
        ("/predict/m/v1/chat/completions", {"model": "dummy", "messages": HI}),
        ("/predict/m/v1/chat/completions", {"messages": HI}),
        ("/predict/m/v1/completions", {"prompt": "hello"}),
        ("/predict/e/v1/embeddings", {"model": "dummy", "input": "hello"}),
    ):
        status, answer, _ = await post(gateway, path, body)
        assert (status, answer["model"]) == (200, path.split("/")[2])
    status, answer = await get(gateway, "/predict/m/v1/models")
    assert (status, [each["id"] for each in answer["data"]]) == (200, ["m"])
    for path in ("/predict/nobody/v1/chat/completions", "/predict/m/v1/embeddings"):
        status, answer, _ = await post(gateway, path, {"messages": HI, "input": "a"})
        assert status in (400, 404) and set(answer["error"]) == {"message", "type", "param", "code"}


async def test_health_is_asked_first(gateway: Served) -> None:
    assert await get(gateway, "/health") == (200, {"alive": True})


async def test_what_chats_is_listed_first_then_what_embeds(gateway: Served, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    gateway.serve(profile_of(Task.FILL_MASK, "a"))
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, "b"))
    gateway.serve_vllm(chat_model(folder, "c"))
    gateway.serve_vllm(chat_model(folder, "d", language={"chat_template": True, "modalities": ("text", "image")}))
    _, answer = await get(gateway, "/v1/models")
    assert {each["id"]: each["capabilities"] for each in answer["data"]} == {
        "d": ["chat", "completion", "vision"],
        "c": ["completion"],
        "b": ["embedding"],
        "a": [],
    }
    assert [each["id"] for each in answer["data"]] == ["d", "c", "b", "a"]


@pytest.mark.parametrize("fault", [DeadlineExceeded("slow"), NotServable("not yet")])
async def test_who_asks_during_a_load_is_told_when_to_come_back(gateway: Served, tmp_path: Path, fault: Exception) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("x"))
    gateway.controller.refuse = fault
    known = gateway.controller.models["m"]
    for status, expected in (
        (replace(known, state=State.LOADING, load_seconds=7.2), ("8", "true")),
        (replace(known, state=State.FAILED, retry_in_s=0.4), ("1", "true")),
        (replace(known, state=State.FAILED, retry_in_s=None), (None, "false")),
        (replace(known, state=State.UNLOADED), ("5", "true") if isinstance(fault, DeadlineExceeded) else (None, "false")),
        (known, (None, "false")),
    ):
        gateway.controller.models["m"] = status
        _, _, headers = await post(gateway, "/v1/chat/completions", {"model": "m", "messages": HI})
        assert (headers.get("Retry-After"), headers.get("x-should-retry")) == expected
        _, _, headers = await post(gateway, "/predict/m", {"inputs": "hello"})
        assert headers.get("Retry-After") == expected[0]


async def test_no_place_of_the_server_is_in_a_client_s_message(gateway: Served, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("x"))
    places = (Path.cwd() / "models/incoming/m/x.safetensors", Path(tempfile.gettempdir()) / "y", Path.home() / "z/w.py")
    gateway.controller.refuse = LoadFailed(f"{places[0]}: cut short, {places[1]} and {places[2]}; ask POST /predict/m or 3/4")
    _, answer, _ = await post(gateway, "/v1/chat/completions", {"model": "m", "messages": HI})
    assert answer["error"]["message"] == "m/x.safetensors: cut short, y and z/w.py; ask POST /predict/m or 3/4"
    _, answer, _ = await post(gateway, "/predict/m", {"inputs": "hello"})
    assert answer["error"] == "m/x.safetensors: cut short, y and z/w.py; ask POST /predict/m or 3/4"
    gateway.controller.refuse = None

    def steps(inputs: Any) -> Any:
        assert prompt_of(inputs)
        yield response("a")
        yield InferenceFailed(f"{places[0]} broke")

    gateway.triton.streamer = steps
    body = {"inputs": "hello", "stream": True}
    async with gateway.http.post(f"{gateway.url}/predict/m", json=body) as streamed:
        assert '"error":"m/x.safetensors broke"' in await streamed.text()


async def test_a_stream_that_an_unload_cuts_says_so(gateway: Served, tmp_path: Path) -> None:
    def steps(inputs: Any) -> Any:
        assert prompt_of(inputs)
        yield response("a")
        gateway.controller.models["m"] = replace(
            gateway.controller.models["m"], state=State.UNLOADING, reason="asked for by POST /models/m/unload"
        )
        yield ModelGone("vLLM broke the generation off")

    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), steps)
    async with gateway.http.post(
        f"{gateway.url}/v1/chat/completions", json={"model": "m", "messages": HI, "stream": True}
    ) as answer:
        said = await answer.text()
    assert "'m' was unloaded in the middle of its answer: asked for by POST /models/m/unload" in said

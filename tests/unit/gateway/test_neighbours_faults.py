"""What went wrong at the routes of other servers' clients, each once: half a call that was given out, words that were dropped,
work on the loop, clients that hang up, loads that nobody was told to wait for.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from modelium.errors import DeadlineExceeded, NotServable
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.bodies import BODIES, Bodies, give_back_bodies
from modelium.gateway.http.errors import MAX_BODY_BYTES
from modelium.gateway.openai.reading import STRICT, make, read_request
from modelium.gateway.openai.requests import CompletionRequest
from modelium.gateway.openai.tokenizing import Tokenizing
from modelium.values import State, Task

from .openai_models import CHATML, chat_model, saying, write_folder
from .ray_models import post
from .stand_in import Served, Step, Tensors, profile_of, response

HI: Any = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "f", "parameters": SCHEMA}
HALF = '<tool_call>{"name": "f", "arguments": {"city": "Ro'


async def test_half_a_call_is_nobodys_to_run(gateway: Served, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("well ", HALF, reason="length"))
    body = {"model": "m", "messages": HI, "max_tokens": 5, "tools": [{"name": "f", "input_schema": SCHEMA}]}
    _, said = await post(gateway, f"{gateway.url}/v1/messages", body)
    assert [block["type"] for block in said["content"]] == ["text"]
    assert said["stop_reason"] == "max_tokens"
    gateway.triton.streamer = saying('{"city": "Ro', reason="length")
    _, said = await post(gateway, f"{gateway.url}/v1/messages", body | {"tool_choice": {"type": "tool", "name": "f"}})
    assert said["content"] == [{"type": "text", "text": '{"city": "Ro'}]
    tools = [{"type": "function", "function": FUNCTION}]
    gateway.triton.streamer = saying("well ", HALF, reason="length")
    for stream in (False, True):
        async with gateway.http.post(
            f"{gateway.url}/api/chat", json={"model": "m", "messages": HI, "tools": tools, "stream": stream}
        ) as answer:
            lines = [json.loads(line) for line in (await answer.text()).splitlines()]
        assert not any("tool_calls" in line["message"] for line in lines)
        assert lines[-1]["done_reason"] == "length"


@pytest.mark.parametrize("field", ["stop", "bad_words"])
async def test_as_many_words_as_predict_takes(gateway: Served, folder: Path, field: str) -> None:
    """The engine looks for each of them in each token's text."""
    gateway.serve_vllm(chat_model(folder), saying("x"))
    url = f"{gateway.url}/v1/completions"
    assert (await post(gateway, url, {"model": "m", "prompt": "a", field: ["x"] * 1000}))[0] == 200
    for value in (["x"] * 1001, ["x" * 1001]):
        status, said = await post(gateway, url, {"model": "m", "prompt": "a", field: value})
        assert (status, said["error"]["param"].split(".")[0]) == (400, field)


async def ignored(gateway: Served, path: str, body: object) -> list[str]:
    async with gateway.http.post(gateway.url + path, json=body) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers.get("X-Modelium-Ignored", "").split(", ")


async def test_no_word_is_dropped_in_silence(gateway: Served, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("x"))
    include = ["reasoning.encrypted_content", "message.output_text.logprobs"]
    assert await ignored(gateway, "/v1/responses", {"model": "m", "input": "a", "include": include}) == [
        "include.message.output_text.logprobs"
    ]
    tool = {"type": "function", **FUNCTION, "strict": True}
    assert await ignored(gateway, "/v1/responses", {"model": "m", "input": "a", "tools": [tool]}) == ["tools.function.strict"]
    chat = {"model": "m", "messages": HI, "priority": 3}
    assert await ignored(gateway, "/v1/chat/completions", chat) == ["priority"]
    call = {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}}
    assert await ignored(gateway, "/v1/chat/completions", {"model": "m", "messages": [call, *HI]}) == ["messages.function_call"]


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        ("/v1/responses", {"prompt": {"id": "p1"}}, "prompt"),
        ("/v1/responses", {"tool_choice": "required"}, "tool_choice"),
        ("/v1/responses", {"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ("/v1/responses", {"input": [{"content": "a"}]}, "input.0.role"),
        ("/v1/messages", {"tool_choice": {"type": "any"}}, "tool_choice"),
        ("/v1/messages", {"tool_choice": {"type": "tool", "name": "f"}}, "tool_choice"),
    ],
    ids=str,
)
async def test_what_was_dropped_is_refused(
    gateway: Served, folder: Path, path: str, change: dict[str, object], param: str
) -> None:
    gateway.serve_vllm(chat_model(folder), saying("x"))
    body = {"model": "m", "max_tokens": 5, "messages": HI} if path == "/v1/messages" else {"model": "m", "input": "a"}
    status, said = await post(gateway, gateway.url + path, body | change)
    assert status == 400 and param in said["error"]["message"]
    assert not gateway.triton.seen


ASKING: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/completions": {"prompt": "a"},
    "/v1/embeddings": {"input": "a"},
    "/v1/score": {"text_1": "a", "text_2": "b"},
    "/rerank": {"query": "a", "documents": ["b"]},
    "/classify": {"input": "a"},
    "/pooling": {"input": "a"},
    "/v1/messages": {"messages": HI, "max_tokens": 3},
    "/v1/responses": {"input": "a"},
    "/api/chat": {"messages": HI},
    "/api/generate": {"prompt": "a"},
    "/api/embed": {"input": "a"},
    "/predict/m/embed": {"inputs": "a"},
    "/predict/m/rerank": {"query": "a", "texts": ["b"]},
    "/predict/m/predict": {"inputs": "a"},
    "/predict/m/generate": {"inputs": "a"},
    "/openai/deployments/m/chat/completions": {"messages": HI},
}


@pytest.mark.parametrize("path", ASKING)
@pytest.mark.parametrize("fault", [DeadlineExceeded("slow"), NotServable("not yet")], ids=["deadline", "unready"])
async def test_who_asks_during_the_first_load_is_told_when_to_come_back(
    gateway: Served, folder: Path, path: str, fault: Exception
) -> None:
    """Of such a model nothing is known yet: to look it up is to wait for its load."""
    gateway.serve_vllm(chat_model(folder))
    gateway.controller.models["m"] = replace(
        gateway.controller.models["m"], profile=None, state=State.LOADING, load_seconds=7.2
    )
    gateway.controller.refuse = fault
    async with gateway.http.post(gateway.url + path, json=ASKING[path] | {"model": "m"}) as answer:
        assert answer.status == (504 if isinstance(fault, DeadlineExceeded) else 503)
        assert (answer.headers.get("Retry-After"), answer.headers.get("x-should-retry")) == ("8", "true")


STREAMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HI, "stream": True, "n": 3},
    "/v1/completions": {"prompt": ["a", "b"], "stream": True, "n": 2},
    "/v1/messages": {"messages": HI, "max_tokens": 3, "stream": True},
    "/v1/responses": {"input": "a", "stream": True},
    "/api/chat": {"messages": HI},
    "/api/generate": {"prompt": "a", "raw": True},
    "/predict/m/generate_stream": {"inputs": "a"},
}


@pytest.mark.parametrize("path", STREAMS)
async def test_who_hangs_up_holds_nothing(gateway: Served, folder: Path, path: str) -> None:
    never = asyncio.Event()

    def steps(inputs: Tensors) -> Iterable[Step]:
        yield response("a")
        yield never

    gateway.serve_vllm(chat_model(folder), steps)
    before = asyncio.all_tasks()
    async with gateway.http.post(gateway.url + path, json=STREAMS[path] | {"model": "m"}) as answer:
        assert await answer.content.readany()
    async with asyncio.timeout(60):
        while gateway.controller.held:
            gateway.controller.released.clear()
            await gateway.controller.released.wait()
        if left := asyncio.all_tasks() - before - {task for task in asyncio.all_tasks() if "RequestHandler" in repr(task)}:
            await asyncio.wait(left)
    assert gateway.triton.cancelled.is_set()


async def test_a_large_body_becomes_a_chat_beside_the_loop() -> None:
    """All of it is checked once more then, images among it."""

    async def handle(request: web.Request) -> web.Response:
        deadline = Deadline(60)
        await read_request(CompletionRequest, request, deadline)
        return web.json_response(await make(request, deadline, lambda: threading.current_thread().name.partition("_")[0]))

    app = web.Application(middlewares=[give_back_bodies])
    app[MAX_BODY_BYTES], app[STRICT], app[BODIES] = 10**6, False, Bodies(10**7, stall_s=60)
    app.on_cleanup.append(app[BODIES].close)
    app.router.add_post("/", handle)
    async with TestClient(TestServer(app)) as client:
        for size, expected in ((10, "MainThread"), (300_000, "bodies")):
            async with client.post("/", json={"model": "m", "prompt": "a" * size}) as answer:
                assert await answer.json() == expected


async def test_a_tokenizer_is_waited_for_as_long_as_the_request_may_last(folder: Path) -> None:
    """A process that is yet to start takes longer than this."""
    tokenizing, profile = Tokenizing(), profile_of(Task.FEATURE_EXTRACTION, path=folder, fingerprint="1")
    for ask in (
        lambda: tokenizing.encode(profile, "hello", special=True, param="prompt", deadline=Deadline(0.001)),
        lambda: tokenizing.spell(profile, [3], param="tokens", deadline=Deadline(0.001)),
        lambda: tokenizing.decode(profile, [3], param="prompt", deadline=Deadline(0.001)),
    ):
        with pytest.raises(DeadlineExceeded):
            await ask()
    await tokenizing.close()


async def test_thoughts_are_counted_in_responses_too(gateway: Served, tmp_path: Path) -> None:
    profile = chat_model(write_folder(tmp_path / "t", CHATML + "{# <think> #}"))
    gateway.serve_vllm(profile, saying("<think>", "a b", "</think>", "c"))
    _, said = await post(gateway, f"{gateway.url}/v1/responses", {"model": "m", "input": "a"})
    assert said["usage"]["output_tokens_details"] == {"reasoning_tokens": 1}
    assert said["usage"]["output_tokens"] == 4

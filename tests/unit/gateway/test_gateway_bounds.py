"""What one request may cost: how much of it is looked at, how many generations it makes, how long it may hold a model."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelium.errors import InferenceFailed, InvalidBody, ModelGone
from modelium.gateway.codecs.fields import plain_base64
from modelium.gateway.generation import GenerationRequest, Piece
from modelium.gateway.generation.huggingface import options_for
from modelium.gateway.generation.seeds import LAST_SEED
from modelium.gateway.generation.values import AT_ONCE, MOST_GENERATIONS
from modelium.gateway.generation.vllm_runtime import PieceReader, tensors_of
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.interleave import interleave
from modelium.gateway.openai.parsing import parse
from modelium.gateway.openai.requests import ChatRequest, CompletionRequest, EmbeddingRequest
from modelium.gateway.openai.tool_calls import FAMILIES, Scanner
from modelium.values import Task
from tests.patience import PATIENCE_S, cpu_s, work_s

from .openai_models import chat_model, sampling_of, saying, write_folder
from .stand_in import Served, Step, Tensors, profile_of, response, status_of, text_asked

HI = [{"role": "user", "content": "hello"}]
LLAMA = profile_of(Task.TEXT_GENERATION, "llama")


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": "x", "parameters": {"do_sample": True, "num_return_sequences": 129}},
        {"inputs": ["x"] * 9, "parameters": {"do_sample": True, "num_return_sequences": 128}},
        {"inputs": ["x"] * (MOST_GENERATIONS + 1)},
        {"inputs": "x", "parameters": {"do_sample": True, "seed": LAST_SEED + 1}},
    ],
)
def test_one_body_makes_so_many_generations(body: dict[str, object]) -> None:
    with pytest.raises(InvalidBody, match="at most"):
        options_for(text_asked(body))


async def test_so_many_generations_of_a_body_are_under_way_at_once(gateway: Served) -> None:
    most = 0

    def steps(inputs: Tensors) -> Iterator[Step]:
        nonlocal most
        most = max(most, gateway.controller.held)
        yield response("x", "stop")

    url = gateway.serve_vllm(LLAMA, steps)
    texts = [str(number) for number in range(3 * AT_ONCE)]
    async with gateway.http.post(url, json={"inputs": texts, "parameters": {"return_full_text": True}}) as answer:
        assert [item["generated_text"] for (item,) in await answer.json()] == [f"{text}x" for text in texts]
    assert most <= AT_ONCE


async def test_so_many_choices_are_under_way_at_once() -> None:
    running = most = 0

    async def stream() -> AsyncGenerator[Piece, None]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        yield Piece(text="x", finish_reason="stop")
        running -= 1

    assert len([place async for place, _ in interleave([stream() for _ in range(4 * AT_ONCE)])]) == 4 * AT_ONCE
    assert most == AT_ONCE


async def test_a_completion_makes_so_many_choices(gateway: Served, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("x"))
    body = {"model": "m", "prompt": ["x"] * 100, "n": 11}
    async with gateway.http.post(f"{gateway.url}/v1/completions", json=body) as answer:
        assert (answer.status, (await answer.json())["error"]["param"]) == (400, "prompt")
    assert gateway.triton.seen == []


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (CompletionRequest, {"prompt": [{}] * 200_000}),
        (CompletionRequest, {"prompt": ["a", *[1] * 300_000]}),
        (EmbeddingRequest, {"input": [[{}] * 200_000]}),
        (ChatRequest, {"messages": [0] * 300_000}),
        (ChatRequest, {"messages": [{"role": "user", "content": [0] * 300_000}]}),
        (ChatRequest, {"messages": HI, "logit_bias": {str(token): "x" for token in range(100_000)}}),
        (ChatRequest, {"messages": HI, **{f"unknown{place}": 1 for place in range(100_000)}}),
    ],
)
def test_a_body_full_of_faults_is_refused_for_the_first(kind: type[Any], field: dict[str, object]) -> None:
    data = json.dumps({"model": "m", **field}).encode()

    def refused() -> None:
        with pytest.raises(BadRequest):
            parse(kind, data)

    assert cpu_s(refused) < 40 * work_s()  # a list of all faults takes four times that


def test_a_fault_in_a_list_has_its_place() -> None:
    with pytest.raises(BadRequest, match=r"^prompt\.1: "):
        parse(CompletionRequest, b'{"model": "m", "prompt": ["a", 1]}')
    with pytest.raises(BadRequest, match=r"^prompt\.0\.1: "):
        parse(CompletionRequest, b'{"model": "m", "prompt": [[1, "a"]]}')


def test_reading_a_call_takes_no_longer_than_its_length() -> None:
    hostile = "f" + "<arg_key></arg_key><arg_value>" * 20_000
    most = 40 * work_s()  # where each start is looked at from every other, it is minutes
    assert cpu_s(lambda: FAMILIES["glm45"].read(hostile)) < most
    assert cpu_s(lambda: FAMILIES["qwen3_coder"].read("<function=" * 20_000)) < most
    assert cpu_s(lambda: FAMILIES["hermes"].read("{} " * 100_000)) < most


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("hermes", "a <tool_call> b </tool_call> c"),
        ("phi4_mini", "use functools to"),
        ("mistral", "say [TOOL_CALLS] nothing"),
        ("llama3_json", '  {"a": 1} and text'),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1e999}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>'),
    ],
)
def test_what_is_no_call_is_text_as_it_was(family: str, text: str) -> None:
    for pieces in ([text], list(text)):
        scanner = Scanner(FAMILIES[family])
        found = [item for piece in pieces for item in scanner.feed(piece)] + scanner.finish()
        assert "".join(item for item in found if isinstance(item, str)) == text


@pytest.mark.parametrize(("reason", "error"), [("abort", ModelGone), ("error", InferenceFailed)])
def test_half_an_answer_is_no_answer(reason: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        PieceReader(GenerationRequest(prompt="x")).pieces(response("Hel", reason))


def test_what_cannot_be_written_down_is_refused() -> None:
    deep: Any = {}
    for _ in range(300):
        deep = {"a": deep}
    for request in (
        GenerationRequest(prompt="\ud800"),
        GenerationRequest(prompt="x", sampling={"structured_outputs": {"json": deep}}),
    ):
        with pytest.raises(InvalidBody):
            tensors_of(request, None)


async def test_the_last_seed_has_successors(gateway: Served, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("x"))
    for seed, status in ((LAST_SEED, 200), (LAST_SEED + 1, 400)):
        body = {"model": "m", "messages": HI, "n": 2, "seed": seed}
        async with gateway.http.post(f"{gateway.url}/v1/chat/completions", json=body) as answer:
            assert answer.status == status
    assert {sampling_of(inputs)["seed"] for inputs in gateway.triton.seen} == {LAST_SEED, 0}


async def test_a_model_that_nobody_looked_into_yet_streams_too(gateway: Served) -> None:
    url = gateway.serve_vllm(LLAMA, lambda inputs: [response("Hel"), response("lo", "stop")])
    lease = gateway.controller.lease
    known = gateway.controller.models["llama"]
    gateway.controller.models["llama"] = replace(known, profile=None)

    async def look_and_lease(name: str, **kept: Any) -> Any:
        gateway.controller.models["llama"] = known
        return await lease(name, **kept)

    gateway.controller.lease = look_and_lease  # type: ignore[method-assign]  # the load is when a model is looked into
    async with gateway.http.post(url, json={"inputs": "Once", "stream": True}) as answer:
        assert answer.content_type == "text/event-stream"
        assert (await answer.read()).count(b"data:") == 2


async def test_a_translator_is_not_loaded_for_a_completion(gateway: Served) -> None:
    gateway.controller.models["t5"] = status_of(profile_of(Task.TRANSLATION, "t5"))
    gateway.controller.refuse = AssertionError("leased")
    async with gateway.http.post(f"{gateway.url}/v1/completions", json={"model": "t5", "prompt": "x"}) as answer:
        said = (await answer.json())["error"]
    assert (answer.status, said["param"]) == (400, "model")
    assert "translation" in said["message"]


@pytest.mark.parametrize("stream", [True, False])
async def test_images_are_in_plain_base64(gateway: Served, stream: bool) -> None:
    url = gateway.serve_vllm(replace(LLAMA, task=Task.IMAGE_TEXT_TO_TEXT), lambda inputs: [response("x", "stop")])
    for image, status in (("_-8\n", 200), ("data:image/png;base64,_-8", 200), ("&&&&", 422)):
        async with gateway.http.post(url, json={"inputs": {"text": "x", "image": image}, "stream": stream}) as answer:
            assert answer.status == status
    assert [inputs["image"].tolist() for inputs in gateway.triton.seen] == [[b"/+8="]] * 2


def test_images_of_chats_are_in_plain_base64() -> None:
    def chat(url: str) -> ChatRequest:
        content = [{"type": "image_url", "image_url": {"url": url}}]
        body = {"model": "m", "messages": [{"role": "user", "content": content}]}
        return parse(ChatRequest, json.dumps(body).encode())

    content = chat("data:image/png;base64,_-8\n").messages[0].content
    assert isinstance(content, list)
    assert content[0].image_url == {"url": f"data:image/png;base64,{plain_base64('_-8')}"}
    with pytest.raises(BadRequest, match="is not base64"):
        chat("data:image/png;base64,&&&&")


async def test_a_client_that_reads_nothing_frees_the_model_at_its_deadline(
    gateway: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelium.gateway.http.events.GRACE_S", 0.05)

    def steps(inputs: Tensors) -> Iterator[Step]:
        for _ in range(500):
            yield response("x" * 60_000)

    url = gateway.serve_vllm(LLAMA, steps)
    port = int(url.split(":")[2].split("/")[0])
    body = b'{"inputs": "Once", "stream": true}'
    head = f"POST /predict/llama HTTP/1.1\r\nHost: localhost\r\nX-Request-Timeout: 0.5\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.send(head.encode() + body)
        async with asyncio.timeout(PATIENCE_S):
            await gateway.controller.released.wait()
    assert gateway.controller.held == 0
    assert gateway.triton.cancelled.is_set()

"""Ollama's API, as its own Python client sees it: lists, chats, texts, vectors, streams of lines, and every kind of refusal."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ollama
import pytest

from modelium.errors import TritonError
from modelium.values import Adapter, State, Task

from .openai_models import chat_model, prompt_of, sampling_of, saying, write_folder
from .ray_models import post
from .stand_in import Served, Step, Tensors, numbers, profile_of, repeated, response

HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'


@pytest.fixture
async def client(gateway: Served) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(gateway.url) as running:
        yield running


# -- chats ---------------------------------------------------------------------------------------------------------


async def test_a_chat_whole_and_in_pieces(gateway: Served, client: ollama.AsyncClient, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("Hel", "lo"))
    whole = await client.chat(model="m", messages=HI, options={"num_predict": 7, "temperature": 0.5, "repeat_penalty": 1.1})
    assert (whole.message.content, whole.done, whole.done_reason) == ("Hello", True, "stop")
    assert (whole.prompt_eval_count, whole.eval_count) == (3, 2)
    assert whole.total_duration is not None and whole.total_duration > 0
    assert prompt_of(gateway.triton.seen[0]) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert sampling_of(gateway.triton.seen[0]) == {"temperature": 0.5, "repetition_penalty": 1.1, "max_tokens": 7}
    parts = [part async for part in await client.chat(model="m", messages=HI, stream=True)]
    assert [part.message.content for part in parts] == ["Hel", "lo", ""]
    assert [part.done for part in parts] == [False, False, True]
    assert (parts[-1].done_reason, parts[-1].eval_count) == ("stop", 2)


async def test_a_stream_is_the_default_and_comes_as_lines(gateway: Served, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("a", "b", reason="length"))
    async with gateway.http.post(f"{gateway.url}/api/chat", json={"model": "m", "messages": HI}) as answer:
        assert answer.content_type == "application/x-ndjson"
        lines = [json.loads(line) async for line in answer.content]
    assert [line["message"]["content"] for line in lines] == ["a", "b", ""]
    assert lines[-1]["done_reason"] == "length"


async def test_tools_are_called_with_objects(gateway: Served, client: ollama.AsyncClient, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("Let me see. ", CALL))
    whole = await client.chat(model="m", messages=HI, tools=[TOOL])
    [call] = whole.message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Rome"})
    parts = [part async for part in await client.chat(model="m", messages=HI, tools=[TOOL], stream=True)]
    assert [len(part.message.tool_calls or []) for part in parts].count(1) == 1
    assert "get_weather" in prompt_of(gateway.triton.seen[0])
    said: list[dict[str, Any]] = [
        *HI,
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
        {"role": "tool", "content": "sunny", "tool_name": "f"},
    ]
    await client.chat(model="m", messages=said)
    assert '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>' in prompt_of(gateway.triton.seen[-1])


async def test_thoughts_are_told_apart(gateway: Served, client: ollama.AsyncClient, tmp_path: Path) -> None:
    template = "{{ messages[0].content }}{% if enable_thinking %}<think>{% endif %}{# </think> #}"
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m", template)), saying("why", "</think>", "because"))
    whole = await client.chat(model="m", messages=HI, think=True)
    assert (whole.message.thinking, whole.message.content) == ("why", "because")
    assert prompt_of(gateway.triton.seen[0]) == "hi<think>"
    await client.chat(model="m", messages=HI, think=False)
    assert prompt_of(gateway.triton.seen[1]) == "hi"


@pytest.mark.parametrize(
    ("form", "shape"),
    [("json", {"json_object": True}), ({"type": "object"}, {"json": {"type": "object"}}), ("", None), (None, None)],
)
async def test_the_form_of_an_answer(
    gateway: Served, client: ollama.AsyncClient, folder: Path, form: Any, shape: object
) -> None:
    gateway.serve_vllm(chat_model(folder), saying("{}"))
    await client.chat(model="m", messages=HI, format=form)
    sent = sampling_of(gateway.triton.seen[0]).get("structured_outputs")
    assert (json.loads(sent) if sent is not None else None) == shape


# -- texts ---------------------------------------------------------------------------------------------------------


async def test_a_text_goes_through_the_template_unless_it_is_raw(
    gateway: Served, client: ollama.AsyncClient, folder: Path
) -> None:
    gateway.serve_vllm(chat_model(folder), saying("x", "y"))
    whole = await client.generate(model="m", prompt="hi", system="be kind")
    assert (whole.response, whole.done_reason, whole.eval_count) == ("xy", "stop", 2)
    assert "<|im_start|>system\nbe kind<|im_end|>" in prompt_of(gateway.triton.seen[0])
    parts = [part async for part in await client.generate(model="m", prompt="hi", raw=True, stream=True)]
    assert [part.response for part in parts] == ["x", "y", ""]
    assert prompt_of(gateway.triton.seen[1]) == "hi"
    assert sampling_of(gateway.triton.seen[1])["max_tokens"] == 512, "to the end of the context, not OpenAI's 16"


async def test_a_model_without_a_template_continues_the_prompt(
    gateway: Served, client: ollama.AsyncClient, tmp_path: Path
) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m", None)), saying("x"))
    assert (await client.generate(model="m", prompt="hi", options={"num_predict": -1})).response == "x"
    assert prompt_of(gateway.triton.seen[0]) == "hi"


async def test_a_request_that_asks_nothing_loads(gateway: Served, client: ollama.AsyncClient, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder))
    assert (await client.generate(model="m")).done_reason == "load"
    assert (await client.chat(model="m", messages=[])).done_reason == "load"
    assert (await client.generate(model="m", keep_alive=0)).done_reason == "unload"
    assert [call[:2] for call in gateway.controller.calls] == [("load", "m"), ("load", "m"), ("unload", "m")]


async def test_what_changes_nothing_is_named_in_a_header(gateway: Served, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("x"))
    body = {"model": "m", "messages": HI, "keep_alive": 0, "options": {"num_ctx": 4096, "top_k": 3}}
    async with gateway.http.post(f"{gateway.url}/api/chat", json=body) as answer:
        assert answer.headers["X-Modelium-Ignored"] == "keep_alive, options.num_ctx"
    assert not gateway.controller.calls, "others may be using the model"


# -- vectors -------------------------------------------------------------------------------------------------------


async def test_embeddings(gateway: Served, client: ollama.AsyncClient, tmp_path: Path) -> None:
    profile = profile_of(Task.FEATURE_EXTRACTION, path=write_folder(tmp_path / "m"), fingerprint="1")
    gateway.serve(profile, repeated({"EMBEDDING": numbers([3, 4, 0])}))
    answer = await client.embed(model="m", input=["hello world", "a"], dimensions=2)
    assert np.array(answer.embeddings) == pytest.approx(np.array([[0.6, 0.8]] * 2))
    assert answer.prompt_eval_count == 3
    assert b'"normalize":true' in gateway.triton.seen[0]["PARAMETERS"].item(0)
    assert (await client.embeddings(model="m", prompt="hello")).embedding == [3, 4, 0]
    assert (await client.embed(model="m", input="")).embeddings == []
    assert gateway.controller.calls[0][:2] == ("load", "m")


# -- lists ---------------------------------------------------------------------------------------------------------


async def test_the_lists(gateway: Served, client: ollama.AsyncClient, folder: Path) -> None:
    profile = chat_model(folder, parameters=7_200_000_000, weight_bytes=10, model_type="llama", max_length=512)
    gateway.serve_vllm(profile)
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, "e"))
    gateway.controller.models["e"] = replace(gateway.controller.models["e"], state=State.UNLOADED)
    listed = (await client.list()).models
    assert [model.model for model in listed] == ["m", "e"]
    assert listed[0].details is not None
    assert (listed[0].details.family, listed[0].details.parameter_size) == ("llama", "7.2B")
    [running] = (await client.ps()).models
    assert (running.model, running.size, running.size_vram, running.context_length) == ("m", 800, 0, 512)
    shown = await client.show("m")
    assert shown.capabilities == ["completion", "tools"]
    assert shown.modelinfo is not None and shown.modelinfo["llama.context_length"] == 512
    assert shown.template is not None and "<|im_start|>" in shown.template
    assert (await client.show("e:latest")).capabilities == ["embedding"]
    async with gateway.http.get(f"{gateway.url}/api/version") as answer:
        assert set(await answer.json()) == {"version"}


async def test_latest_is_any_models_tag_and_an_adapters_name(gateway: Served, client: ollama.AsyncClient, folder: Path) -> None:
    adapter = Adapter(name="latest", path=folder, rank=8)
    gateway.serve_vllm(chat_model(folder), saying("x"))
    await client.chat(model="m:latest", messages=HI)
    assert "lora_name" not in sampling_of(gateway.triton.seen[0])
    gateway.serve_vllm(chat_model(folder, adapters=[adapter]), saying("x"), adapters=[adapter])
    await client.chat(model="m:latest", messages=HI)
    assert sampling_of(gateway.triton.seen[1])["lora_name"] == "latest"


# -- errors --------------------------------------------------------------------------------------------------------


async def test_errors_have_the_shape_that_the_client_reads(gateway: Served, client: ollama.AsyncClient, folder: Path) -> None:
    with pytest.raises(ollama.ResponseError, match="m2") as unknown:
        await client.chat(model="m2", messages=HI)
    assert unknown.value.status_code == 404
    gateway.serve_vllm(chat_model(folder))
    with pytest.raises(ollama.ResponseError, match="top_p"):
        await client.chat(model="m", messages=HI, options={"top_p": 7})
    with pytest.raises(ollama.ResponseError, match="takes no images"):
        await client.chat(model="m", messages=[{**HI[0], "images": [b"\x89PNG"]}])
    with pytest.raises(ollama.ResponseError, match="embeddings"):
        await client.embed(model="m", input="a")


@pytest.mark.parametrize(
    "body",
    [
        {"messages": "a"},
        {"messages": HI, "options": []},
        {"messages": HI, "format": "xml"},
        {"messages": HI, "logprobs": True},
        {"messages": HI, "tools": [{"type": "x"}]},
    ],
)
async def test_a_chat_that_does_not_fit(gateway: Served, folder: Path, body: dict[str, object]) -> None:
    gateway.serve_vllm(chat_model(folder), saying("x"))
    status, said = await post(gateway, f"{gateway.url}/api/chat", {"model": "m"} | body)
    assert status == 400 and isinstance(said["error"], str)
    assert not gateway.triton.seen


@pytest.mark.parametrize("field", [{"suffix": "x"}, {"template": "x"}, {"context": [1]}])
async def test_what_a_text_cannot_have_is_refused(gateway: Served, folder: Path, field: dict[str, object]) -> None:
    gateway.serve_vllm(chat_model(folder), saying("x"))
    status, said = await post(gateway, f"{gateway.url}/api/generate", {"model": "m", "prompt": "a"} | field)
    assert status == 400 and next(iter(field)) in said["error"]


async def test_an_error_after_the_first_line_is_a_line(gateway: Served, client: ollama.AsyncClient, folder: Path) -> None:
    def steps(inputs: Tensors) -> Iterable[Step]:
        yield response("a")
        yield TritonError("it broke")

    gateway.serve_vllm(chat_model(folder), steps)
    parts = await client.chat(model="m", messages=HI, stream=True)
    assert (await anext(parts)).message.content == "a"
    with pytest.raises(ollama.ResponseError, match="it broke"):
        await anext(parts)


async def test_a_client_that_waits_long_gets_lines_that_say_nothing(
    gateway: Served, client: ollama.AsyncClient, folder: Path
) -> None:
    goes_on = asyncio.Event()
    gateway.serve_vllm(chat_model(folder), lambda inputs: [goes_on, response("a", "stop")])
    parts = []
    async for part in await client.chat(model="m", messages=HI, stream=True):
        parts.append(part.message.content)
        goes_on.set()
    assert parts == ["", "a", ""]


async def test_pictures_come_as_base64(gateway: Served, client: ollama.AsyncClient, tmp_path: Path) -> None:
    template = "{% for m in messages %}{% for p in m.content %}{{ p.text or '<image>' }}{% endfor %}{% endfor %}"
    profile = replace(chat_model(write_folder(tmp_path / "m", template)), task=Task.IMAGE_TEXT_TO_TEXT)
    gateway.serve_vllm(profile, saying("x"))
    await client.chat(model="m", messages=[{**HI[0], "images": [b"\x89PNG"]}])
    await client.generate(model="m", prompt="hi", images=[b"\x89PNG"])
    for seen in gateway.triton.seen:
        assert base64.b64decode(seen["image"].item(0)) == b"\x89PNG"
        assert prompt_of(seen) == "hi<image>"

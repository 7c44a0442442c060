"""``/v1/completions``, ``/v1/embeddings``, ``/v1/models`` and every kind of error, as the openai package sees them."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from openai import AsyncOpenAI

from modelium.errors import ContextExceeded, DeadlineExceeded, InferenceFailed, NotServable, QueueFull, TritonUnavailable
from modelium.metrics.families import REQUESTS
from modelium.values import State, Task
from tests.patience import PATIENCE_S

from .openai_models import chat_model, prompt_of, sampling_of, saying, write_folder
from .stand_in import Served, Step, Tensors, numbers, profile_of, response, status_of

HI: Any = [{"role": "user", "content": "hi"}]


# -- completions ---------------------------------------------------------------------------------------------------


async def test_a_completion_with_logprobs(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    def steps(inputs: Tensors) -> Iterable[Step]:
        for token, reason in (("Hel", None), ("lo", "length")):
            entry = {"1": {"logprob": -0.5, "decoded_token": token}, "2": {"logprob": -0.1, "decoded_token": "x"}}
            yield response(token, reason, logprobs=[entry])

    gateway.serve_vllm(chat_model(folder), steps)
    answer = await client.completions.create(model="m", prompt="say", logprobs=1)
    [choice] = answer.choices
    assert (choice.text, choice.finish_reason) == ("Hello", "length")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == ["Hel", "lo"]
    assert choice.logprobs.token_logprobs == [-0.5, -0.5]
    assert choice.logprobs.text_offset == [0, 3]
    assert choice.logprobs.top_logprobs == [{"x": -0.1, "Hel": -0.5}, {"x": -0.1, "lo": -0.5}]
    assert sampling_of(gateway.triton.seen[0]) == {"logprobs": 1, "max_tokens": 16}
    stream = await client.completions.create(model="m", prompt="say", logprobs=1, stream=True)
    offsets = [chunk.choices[0].logprobs.text_offset async for chunk in stream if chunk.choices[0].logprobs]
    assert offsets == [[0], [3]]


async def test_several_prompts_times_n_choices(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), lambda inputs: [response(f"[{prompt_of(inputs)}]", "stop")])
    answer = await client.completions.create(model="m", prompt=["a", "b"], n=2, echo=True)
    assert [(choice.index, choice.text) for choice in answer.choices] == [
        (0, "a[a]"), (1, "a[a]"), (2, "b[b]"), (3, "b[b]"),
    ]  # fmt: skip
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 4)


async def test_token_ids_are_a_prompt_too(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("x"))
    await client.completions.create(model="m", prompt=[3, 4])
    await client.completions.create(model="m", prompt=[[5], [6, 7]])
    assert [sampling_of(seen)["prompt_token_ids"] for seen in gateway.triton.seen] == [[3, 4], [5], [6, 7]]
    assert {prompt_of(seen) for seen in gateway.triton.seen} == {""}


async def test_a_failure_of_one_choice_fails_the_answer(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    def steps(inputs: Tensors) -> Iterable[Step]:
        return [InferenceFailed("bad luck")] if sampling_of(inputs)["seed"] == 1 else [response("a"), asyncio.Event()]

    gateway.serve_vllm(chat_model(folder), steps)
    with pytest.raises(openai.BadRequestError, match="bad luck"):
        await client.completions.create(model="m", prompt="x", n=2, seed=0)
    await asyncio.wait_for(gateway.triton.cancelled.wait(), PATIENCE_S)
    assert gateway.controller.held == 0


async def test_a_python_model_answers_as_far_as_it_can(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    answer = {
        "GENERATED_TEXT": np.array([[b" world"]], dtype=object),
        "FINISH_REASON": np.array([[b"length"]], dtype=object),
        "INPUT_TOKENS": numbers([2], dtype=np.int32),
        "OUTPUT_TOKENS": numbers([1], dtype=np.int32),
    }
    gateway.serve(chat_model(folder), lambda inputs: answer)
    completion = await client.completions.create(model="m", prompt="hello", temperature=0)
    assert completion.choices[0].text == " world"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 3
    chat = await client.chat.completions.create(model="m", messages=HI, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in chat]) == " world"
    with pytest.raises(openai.BadRequestError, match="logprobs"):
        await client.completions.create(model="m", prompt="hello", logprobs=1)


# -- embeddings ----------------------------------------------------------------------------------------------------


async def test_embeddings_in_both_formats(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    def embed(inputs: Tensors) -> Tensors:
        return {"EMBEDDING": numbers(*([len(text), 3, 4] for (text,) in inputs["TEXT"]))}

    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, "e", path=folder, fingerprint="1"), embed, max_batch_size=2)
    answer = await client.embeddings.create(model="e", input=["a", "hello", "b c"])  # base64 on the wire
    assert [item.embedding for item in answer.data] == [[1, 3, 4], [5, 3, 4], [3, 3, 4]]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (4, 4)
    plain = await client.embeddings.create(model="e", input="hello", encoding_format="float")
    assert plain.data[0].embedding == [5, 3, 4]
    tokens = await client.embeddings.create(model="e", input=[3, 4], extra_body={"encoding": "model"})
    assert tokens.data[0].embedding[0] == len("hello world")
    short = await client.embeddings.create(model="e", input=[[5], [6]], dimensions=2, extra_body={"encoding": "model"})
    assert [round(math.hypot(*item.embedding), 5) for item in short.data] == [1, 1]
    async with gateway.http.post(
        f"{gateway.url}/v1/embeddings", json={"model": "e", "input": "a", "encoding_format": "base64"}
    ) as raw:
        [item] = (await raw.json())["data"]
    assert np.frombuffer(base64.b64decode(item["embedding"]), "<f4").tolist() == [1, 3, 4]
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        await client.embeddings.create(model="e", input="a", dimensions=4)


async def test_a_prompt_goes_before_the_texts_as_in_predict(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    def embed(inputs: Tensors) -> Tensors:
        return {"EMBEDDING": numbers(*([1, 2] for _ in inputs["TEXT"]))}

    gateway.serve(profile_of(Task.SENTENCE_SIMILARITY, "e", path=folder, fingerprint="1"), embed)
    for sent in ({"prompt_name": "query"}, {"prompt": "a "}, {"prompt": "", "prompt_name": "query"}):
        raw = await client.embeddings.with_raw_response.create(model="e", input=["a", "b"], extra_body=sent)
        assert "x-modelium-ignored" not in raw.headers
        (seen,) = gateway.triton.seen
        assert [json.loads(one) for one in seen["PARAMETERS"].ravel()] == [sent, sent]
        gateway.triton.seen.clear()
        assert raw.parse().usage.prompt_tokens == (4 if sent.get("prompt") else 2)
    await client.embeddings.create(model="e", input="a")
    assert "PARAMETERS" not in gateway.triton.seen.pop()
    with pytest.raises(openai.BadRequestError, match="prompt_name: ") as caught:
        await client.embeddings.create(model="e", input="a", extra_body={"prompt_name": "x" * 20_000})
    assert caught.value.param == "prompt_name"
    assert gateway.triton.seen == []


# -- models --------------------------------------------------------------------------------------------------------


async def test_the_list_has_what_can_be_served(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder))
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, "e", path=folder))
    gateway.controller.models["broken"] = status_of(profile_of(Task.FILL_MASK, "broken"), state=State.UNSUPPORTED)
    models = {model.id: model async for model in client.models.list()}
    assert set(models) == {"m", "e"}
    assert 1_700_000_000 < models["m"].created <= time.time()
    extra = models["m"].to_dict()
    assert (extra["state"], extra["task"], extra["max_model_len"]) == ("LOADED", "text-generation", 512)
    assert extra["context"] is None
    assert (await client.models.retrieve("e")).owned_by == "modelium"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"
    assert gateway.recorder.counted(REQUESTS) == []  # looking is no use


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "kind", "code", "header"),
    [
        (QueueFull("full", 4.2), 429, openai.RateLimitError, "queue_full", ("retry-after", "5")),
        (NotServable("broken"), 503, openai.InternalServerError, "not_servable", ("x-should-retry", "false")),
        (DeadlineExceeded("slow"), 504, openai.InternalServerError, "deadline_exceeded", ("x-should-retry", "false")),
        (RuntimeError("secret"), 500, openai.InternalServerError, "internal_error", ("x-should-retry", "false")),
    ],
)
async def test_errors_before_the_model(
    gateway: Served, client: AsyncOpenAI, folder: Path, fault: Exception, status: int, kind: type[openai.APIStatusError],
    code: str, header: tuple[str, str],
) -> None:  # fmt: skip
    gateway.serve_vllm(chat_model(folder), saying("x"))
    gateway.controller.refuse = fault
    with pytest.raises(kind) as caught:
        await client.chat.completions.create(model="m", messages=HI, stream=True)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.response.headers[header[0]] == header[1]
    assert "secret" not in str(caught.value)


async def test_errors_of_the_model(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), lambda inputs: [ContextExceeded("too much")])
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="m", messages=HI)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", None)
    words = "temperature: the context length died, evicted: out of memory, longer than the maximum model length"
    gateway.serve_vllm(chat_model(folder), lambda inputs: [InferenceFailed(words)])
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="m", messages=HI)
    assert (caught.value.code, caught.value.param) == ("inference_failed", None)
    gateway.serve_vllm(chat_model(folder), lambda inputs: [TritonUnavailable("gone")])
    with pytest.raises(openai.InternalServerError) as broken:
        await client.chat.completions.create(model="m", messages=HI)
    assert broken.value.status_code == 503


async def test_an_error_in_the_middle_of_a_stream_is_an_event(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), lambda inputs: [response("a"), TritonUnavailable("it died")])
    stream = await client.chat.completions.create(model="m", messages=HI, stream=True)
    with pytest.raises(openai.APIError, match="it died"):
        async for _ in stream:
            pass
    assert [labels[:2] for labels, _ in gateway.recorder.counted(REQUESTS)] == [("m", "503")]


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({}, "model: is missing", "model"),
        ({"model": "m"}, "messages: is missing", "messages"),
        ({"model": "m", "messages": HI, "temperature": -1}, "temperature: ", "temperature"),
        ({"model": "m", "messages": HI, "functions": [{"name": "f"}]}, "send those", "functions"),
        ({"model": "m", "messages": HI, "modalities": ["audio"]}, "modalities.0: ", "modalities.0"),
        ({"model": "m", "messages": [{"role": "", "content": "x"}]}, "messages.0.role: ", "messages.0.role"),
        ({"model": "m", "messages": HI, "stream_options": {"include_usage": True}}, "stream: true", "stream_options"),
        ({"model": "m", "messages": HI, "logit_bias": {"1": 1, "a": 1, "-2": 1}}, "'a', '-2'", "logit_bias"),
        ({"model": "m", "messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input_audio", None),
        ({"model": "m", "messages": HI, "tool_choice": "auto"}, "no tools", "tool_choice"),
        ({"model": "m", "messages": HI, "top_logprobs": 2}, "logprobs: true", "top_logprobs"),
        ({"model": "m", "messages": HI, "guided_regex": "a", "response_format": {"type": "json_object"}}, "one way", None),
    ],
)
async def test_what_does_not_fit_is_refused_by_name(
    gateway: Served, folder: Path, body: dict[str, Any], message: str, param: str | None
) -> None:
    gateway.serve_vllm(chat_model(folder), saying("x"))
    async with gateway.http.post(f"{gateway.url}/v1/chat/completions", json=body) as answer:
        said = (await answer.json())["error"]
    assert answer.status == 400
    assert message in said["message"]
    assert said["type"] == "invalid_request_error"
    assert param is None or said["param"] == param
    assert gateway.triton.seen == []


async def test_models_that_cannot_do_it_say_what_they_do(gateway: Served, client: AsyncOpenAI, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "base", None), "base"), saying("x"))
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, "e"))
    gateway.controller.models["base"] = replace(gateway.controller.models["base"])
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        await client.chat.completions.create(model="base", messages=HI)
    with pytest.raises(openai.BadRequestError, match="/v1/embeddings"):
        await client.chat.completions.create(model="e", messages=HI)
    with pytest.raises(openai.BadRequestError, match="/v1/chat/completions"):
        await client.embeddings.create(model="base", input="x")
    with pytest.raises(openai.NotFoundError, match="nobody"):
        await client.chat.completions.create(model="nobody", messages=HI)


async def test_paths_methods_and_bodies_that_are_wrong(gateway: Served, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("x"))
    for method, path, body, status in (
        ("GET", "/v1/chat/completions", b"", 405),
        ("POST", "/v1/images", b"", 404),
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b"x" * 200_000, 413),
    ):
        async with gateway.http.request(method, gateway.url + path, data=body) as answer:
            assert answer.status == status, path
            assert set((await answer.json())["error"]) == {"message", "type", "param", "code"}


async def test_a_stream_lives_while_its_model_loads(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gate = asyncio.Event()

    gateway.serve_vllm(chat_model(folder), lambda inputs: [gate, response("late", "stop")])
    stream = await client.chat.completions.create(model="m", messages=HI, stream=True)  # its headers came with a comment
    gate.set()
    assert [chunk.choices[0].delta.content async for chunk in stream] == ["late"]

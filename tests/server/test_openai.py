"""The unmodified openai package against a whole Modelium: a language model that learnt its answers, with an adapter, by vLLM;
MiniLM by the python runtime. One Modelium and one load of each for the whole module; the first request of all pays the load.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.documented import examples_of, run_example
from tests.models import minilm
from tests.models.language import ADAPTER, LLAMA
from tests.models.language.corpus import (
    CHATS,
    FRANCE,
    GET_TIME,
    GET_WEATHER,
    JSON_QUESTION,
    PARAGRAPH,
    PARIS,
    PIRATE_CHATS,
)
from tests.patience import PATIENCE_S
from tests.server import language_predicting
from tests.server.systems import HEAVY, System, system

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

LOAD_S = 900.0
STORY: Any = [{"role": "user", "content": "Tell me a story."}]
CAPITAL: Any = [{"role": "user", "content": FRANCE}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modelium(tmp_path_factory: pytest.TempPathFactory, language_models: Path) -> AsyncIterator[System]:
    directory = tmp_path_factory.mktemp("openai")
    settings = {"load_on_discovery": False, "policies": HEAVY | {"evict_after_idle_seconds": 3600}}
    async with system(directory, devices={"host_memory": "12GiB"}, orchestration=settings) as running:
        for folder, name in ((language_models / LLAMA, LLAMA), (language_models / ADAPTER, ADAPTER), (minilm(), "minilm")):
            beside = directory / name
            shutil.copytree(folder, beside)
            beside.rename(running.incoming / name)
        for name in (LLAMA, "minilm"):
            await running.becomes(name, "UNLOADED")
        await running.becomes(LLAMA, "UNLOADED", lambda model: model["adapters"] == [ADAPTER])
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(modelium: System) -> AsyncIterator[AsyncOpenAI]:
    base = f"{modelium.running.gateway_url}/v1"
    async with AsyncOpenAI(base_url=base, api_key="none", max_retries=0, timeout=LOAD_S) as running:
        yield running


async def test_the_first_request_streams_from_a_model_that_is_not_loaded(modelium: System, client: AsyncOpenAI) -> None:
    """Comments keep the connection alive meanwhile."""
    body = {"model": LLAMA, "messages": CAPITAL, "temperature": 0, "stream": True}
    async with modelium.http.post(f"{client.base_url}chat/completions", json=body) as answer:
        assert answer.content_type == "text/event-stream"
        said = [raw.decode().rstrip("\n") async for raw in answer.content]
    comments = [line for line in said if line.startswith(":")]
    assert any("LOADING" in line for line in comments)
    chunks = [json.loads(line.removeprefix("data: ")) for line in said if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == PARIS
    assert [line for line in said if line][-1] == "data: [DONE]"
    assert (await modelium.get(f"/models/{LLAMA}"))["loads"] == 1


@pytest.mark.parametrize("index", range(len(CHATS)))
async def test_it_says_what_it_learnt(client: AsyncOpenAI, index: int) -> None:
    """The rendered prompt is the one that it learnt from, to the letter: else it would not know the answer."""
    messages, tools, answer = CHATS[index]
    sent: Any = [_as_openai(message) for message in messages]
    more: Any = {"tools": tools} if tools else {}
    got = await client.chat.completions.create(model=LLAMA, messages=sent, temperature=0, **more)
    message = got.choices[0].message
    expected = re.findall(r"<tool_call>\n(.*)\n</tool_call>", answer)
    if not expected:
        assert (message.content, got.choices[0].finish_reason) == (answer, "stop")
        return
    calls = [call for call in message.tool_calls or [] if call.type == "function"]
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        (json.loads(text)["name"], json.loads(text)["arguments"]) for text in expected
    ]
    assert (message.content, got.choices[0].finish_reason) == (None, "tool_calls")


def _as_openai(message: dict[str, Any]) -> dict[str, Any]:
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in message.get("tool_calls", [])
    ]
    return {**message, **({"tool_calls": calls} if calls else {})}


async def test_a_streamed_chat_is_the_whole_one_in_pieces(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model=LLAMA, messages=STORY, temperature=0)
    stream = await client.chat.completions.create(
        model=LLAMA, messages=STORY, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content == PARAGRAPH
    assert len(chunks) > 50
    assert chunks[-1].usage == whole.usage


async def test_streamed_tool_calls(client: AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "What are the weather and the time in Rome?"}]
    tools: Any = [GET_WEATHER, GET_TIME]
    async with client.chat.completions.stream(model=LLAMA, messages=messages, tools=tools, temperature=0) as stream:
        answer = await stream.get_final_completion()
    calls = answer.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == ["get_weather", "get_time"]


async def test_a_completion_with_logprobs(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model=LLAMA, prompt="The old lighthouse", max_tokens=6, logprobs=3, temperature=0)
    [choice] = answer.choices
    assert choice.logprobs is not None and choice.logprobs.tokens and choice.logprobs.top_logprobs
    assert PARAGRAPH.startswith("The old lighthouse" + choice.text)
    assert "".join(choice.logprobs.tokens) == choice.text
    assert len(choice.logprobs.tokens) == 6
    assert all(len(top) == 3 for top in choice.logprobs.top_logprobs)
    assert all(-1 < value <= 0 for value in choice.logprobs.token_logprobs or [])
    assert choice.finish_reason == "length"
    chat = await client.chat.completions.create(
        model=LLAMA, messages=CAPITAL, temperature=0, logprobs=True, top_logprobs=2, n=2, seed=1
    )
    for one in chat.choices:
        assert one.logprobs is not None and one.logprobs.content
        assert "".join(token.token for token in one.logprobs.content[:-1]) == PARIS
        assert all(len(token.top_logprobs) == 2 for token in one.logprobs.content)


async def test_stop_and_echo(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(
        model=LLAMA, prompt=["The old", "Once upon"], max_tokens=60, stop=[" at", " was"], echo=True, temperature=0
    )
    assert [choice.text for choice in answer.choices] == ["The old lighthouse stands", "Once upon a time there"]
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "stop"]


async def test_output_that_validates(client: AsyncOpenAI) -> None:
    """Hot, so that nothing but the schema holds it together; no value is long."""
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "size": {"enum": ["small", "large"]},
            "rivers": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 2},
            "capital": {"type": "boolean"},
        },
        "required": ["city", "size", "rivers", "capital"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}}
    messages: Any = [{"role": "user", "content": JSON_QUESTION}]
    for seed in range(3):
        answer = await client.chat.completions.create(
            model=LLAMA, messages=messages, response_format=form, temperature=1, seed=seed, max_tokens=400
        )
        assert answer.choices[0].finish_reason == "stop"
        jsonschema.validate(json.loads(answer.choices[0].message.content or ""), schema)
    free = await client.chat.completions.create(
        model=LLAMA, messages=messages, response_format={"type": "json_object"}, temperature=0, max_tokens=400
    )
    assert isinstance(json.loads(free.choices[0].message.content or ""), dict)


async def test_a_named_tool_is_called_with_valid_arguments(client: AsyncOpenAI) -> None:
    zone = {"type": "object", "properties": {"zone": {"enum": ["Paris", "Rome"]}}, "required": ["zone"]}
    tool: Any = {"type": "function", "function": {"name": "set_zone", "parameters": {**zone, "additionalProperties": False}}}
    choice: Any = {"type": "function", "function": {"name": "set_zone"}}
    answer = await client.chat.completions.create(
        model=LLAMA, messages=CAPITAL, tools=[tool], tool_choice=choice, temperature=0, max_tokens=400
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function" and call.function.name == "set_zone"
    jsonschema.validate(json.loads(call.function.arguments), zone)


async def test_an_adapter_is_a_model(client: AsyncOpenAI) -> None:
    messages: Any = PIRATE_CHATS[0][0]
    answer = await client.chat.completions.create(model=f"{LLAMA}:{ADAPTER}", messages=messages, temperature=0)
    assert answer.choices[0].message.content == PIRATE_CHATS[0][2]


async def test_embeddings(modelium: System, client: AsyncOpenAI) -> None:
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose."]
    answer = await client.embeddings.create(model="minilm", input=texts)
    vectors = np.array([item.embedding for item in answer.data])
    assert vectors.shape == (3, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    status, predicted = await modelium.post("/predict/minilm", {"inputs": texts})
    assert status == 200
    assert np.allclose(vectors, predicted, atol=1e-6)
    short = await client.embeddings.create(model="minilm", input=texts[0], dimensions=64, encoding_format="float")
    assert len(short.data[0].embedding) == 64
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 15


async def test_the_list(client: AsyncOpenAI) -> None:
    models = {model.id: model.to_dict() async for model in client.models.list()}
    assert set(models) == {LLAMA, f"{LLAMA}:{ADAPTER}", "minilm"}
    assert models[LLAMA]["max_model_len"] == 1024
    assert (await client.models.retrieve("minilm")).id == "minilm"


@pytest.mark.parametrize("index", range(4))
async def test_the_examples_of_the_documentation_run(client: AsyncOpenAI, index: int) -> None:
    """Those of speech and pictures run where there are models for them (``test_neighbours``, ``test_ray``)."""
    elsewhere = [*examples_of("openai.md", "client.audio."), *examples_of("openai.md", "client.images.")]
    examples = [code for code in examples_of("openai.md", "client.") if code not in elsewhere]
    assert (len(examples), len(elsewhere)) == (4, 2)
    names = {"llama-3": LLAMA} if '"llama-3"' in examples[index] else {}
    await run_example(examples[index], str(client.base_url), **names)


async def test_each_kind_of_error(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="nobody", messages=CAPITAL)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model=f"{LLAMA}:nobody", messages=CAPITAL)
    with pytest.raises(openai.BadRequestError) as long:
        await client.chat.completions.create(model=LLAMA, messages=[{"role": "user", "content": "hi " * 3000}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="embeddings"):
        await client.chat.completions.create(model="minilm", messages=CAPITAL)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        await client.chat.completions.create(model=LLAMA, messages=CAPITAL, temperature=-1)
    with pytest.raises(openai.BadRequestError, match="vocab"):
        await client.chat.completions.create(model=LLAMA, messages=CAPITAL, logit_bias={"99999": 1})
    with pytest.raises(openai.InternalServerError) as slow:
        await client.chat.completions.create(
            model=LLAMA, messages=STORY, extra_headers={"X-Request-Timeout": "0.05"}, extra_body={"ignore_eos": True}
        )
    assert slow.value.status_code == 504


@pytest.mark.parametrize("check", language_predicting.CHECKS, ids=lambda check: check.__name__)
async def test_predict(modelium: System, check: Callable[[System], Awaitable[None]]) -> None:
    """Hugging Face's words for the same models: ``/predict``."""
    await check(modelium)


async def test_a_client_that_leaves_frees_the_engine(modelium: System, client: AsyncOpenAI) -> None:
    """Long before it has written what it could: a text of the model's whole context."""
    for _ in range(3):
        before = await _written(modelium)
        stream = await client.chat.completions.create(
            model=LLAMA, messages=STORY, stream=True, temperature=1, extra_body={"ignore_eos": True}
        )
        await anext(aiter(stream))
        await _running(modelium, 1)
        await stream.close()
        await _running(modelium, 0)
        assert await _written(modelium) - before < 900
    assert (await modelium.get(f"/models/{LLAMA}"))["leases"] == 0


async def _written(modelium: System) -> float:
    """How many tokens the engine has written so far."""
    async with modelium.http.get(f"http://{modelium.running.server.metrics_url}/metrics") as answer:
        [line] = re.findall(rf'^vllm:generation_tokens_total{{.*model="{LLAMA}".*', await answer.text(), re.MULTILINE)
    return float(line.split()[-1])


async def _running(modelium: System, count: int) -> None:
    """Wait until the engine computes so many requests, as Triton's metrics have it."""
    url = f"http://{modelium.running.server.metrics_url}/metrics"
    wanted = re.compile(rf'^vllm:num_requests_running{{.*model="{LLAMA}".*}} {count}(\.0)?$', re.MULTILINE)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            async with modelium.http.get(url) as answer:
                if wanted.search(await answer.text()):
                    return
            await asyncio.sleep(0.02)

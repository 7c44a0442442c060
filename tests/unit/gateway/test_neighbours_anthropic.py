"""Anthropic's API, as its own Python client sees it: messages, blocks, tools, events, counts and errors. And Azure's paths."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from modelium.errors import TritonError
from modelium.values import Task

from .openai_models import chat_model, prompt_of, sampling_of, saying, write_folder
from .ray_models import post
from .stand_in import Served, Step, Tensors, numbers, profile_of, repeated, response, served

HI: Any = [{"role": "user", "content": "hi"}]
TOOL: Any = {
    "name": "get_weather",
    "description": "The weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'


@pytest.fixture
async def client(gateway: Served) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="none", max_retries=0) as running:
        yield running


async def test_a_message(gateway: Served, client: anthropic.AsyncAnthropic, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("Hel", "lo"))
    system: Any = [{"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}}]
    whole = await client.messages.create(
        model="m", max_tokens=7, messages=HI, system=system, stop_sequences=["x"], extra_body={"temperature": 0.5, "top_k": 3}
    )
    assert [(block.type, getattr(block, "text", "")) for block in whole.content] == [("text", "Hello")]
    assert (whole.stop_reason, whole.usage.input_tokens, whole.usage.output_tokens) == ("end_turn", 3, 2)
    assert sampling_of(gateway.triton.seen[0]) == {"temperature": 0.5, "top_k": 3, "stop": ["x"], "max_tokens": 7}
    assert prompt_of(gateway.triton.seen[0]).startswith("<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>")


async def test_a_streamed_message_is_the_whole_one_in_events(
    gateway: Served, client: anthropic.AsyncAnthropic, folder: Path
) -> None:
    gateway.serve_vllm(chat_model(folder), saying("Hel", "lo ", CALL, reason="length"))
    whole = await client.messages.create(model="m", max_tokens=7, messages=HI, tools=[TOOL])
    async with client.messages.stream(model="m", max_tokens=7, messages=HI, tools=[TOOL]) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_message()
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2
    assert [block.type for block in final.content] == ["text", "tool_use"]
    for one, other in zip(final.content, whole.content, strict=True):
        assert getattr(one, "text", None) == getattr(other, "text", None)
        assert getattr(one, "input", None) == getattr(other, "input", None)
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    assert final.stop_reason == "max_tokens"


async def test_tools_and_what_they_gave(gateway: Served, client: anthropic.AsyncAnthropic, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying(CALL))
    messages: Any = [
        *HI,
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "one moment"},
                {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Paris"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "sunny"}]},
                {"type": "text", "text": "and in Rome?"},
            ],
        },
    ]
    answer = await client.messages.create(model="m", max_tokens=7, messages=messages, tools=[TOOL])
    [block] = answer.content
    assert block.type == "tool_use" and (block.name, block.input) == ("get_weather", {"city": "Rome"})
    assert answer.stop_reason == "tool_use"
    prompt = prompt_of(gateway.triton.seen[0])
    assert '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>' in prompt
    assert prompt.index("tool\nsunny<") < prompt.index("user\nand in Rome?<")
    choice: Any = {"type": "tool", "name": "get_weather"}
    gateway.triton.streamer = saying('{"city": "Oslo"}')
    forced = await client.messages.create(model="m", max_tokens=7, messages=HI, tools=[TOOL], tool_choice=choice)
    assert getattr(forced.content[0], "input", None) == {"city": "Oslo"}


async def test_thoughts_are_blocks_of_their_own(gateway: Served, client: anthropic.AsyncAnthropic, tmp_path: Path) -> None:
    template = "{{ messages[0].content }}{% if enable_thinking %}<think>{% endif %}{# </think> #}"
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m", template)), saying("why", "</think>", "because"))
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    whole = await client.messages.create(model="m", max_tokens=2048, messages=HI, thinking=thinking)
    assert [block.type for block in whole.content] == ["thinking", "text"]
    async with client.messages.stream(model="m", max_tokens=2048, messages=HI, thinking=thinking) as stream:
        final = await stream.get_final_message()
    assert [(block.type, getattr(block, "thinking", getattr(block, "text", ""))) for block in final.content] == [
        ("thinking", "why"),
        ("text", "because"),
    ]


async def test_an_answer_goes_on_where_the_last_message_ends(
    gateway: Served, client: anthropic.AsyncAnthropic, folder: Path
) -> None:
    gateway.serve_vllm(chat_model(folder), saying("x"))
    messages: Any = [*HI, {"role": "assistant", "content": "The capital is"}]
    await client.messages.create(model="m", max_tokens=1, messages=messages)
    assert prompt_of(gateway.triton.seen[0]).endswith("assistant\nThe capital is")


async def test_pictures(gateway: Served, client: anthropic.AsyncAnthropic, tmp_path: Path) -> None:
    template = "{% for m in messages %}{% for p in m.content %}{{ p.text or '<image>' }}{% endfor %}{% endfor %}"
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m", template), language={"modalities": ("image",)}), saying("x"))
    data = base64.b64encode(b"\x89PNG").decode()
    source = {"type": "base64", "media_type": "image/png", "data": data}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "what?"}]
    messages: Any = [{"role": "user", "content": content}]
    await client.messages.create(model="m", max_tokens=1, messages=messages)
    assert base64.b64decode(gateway.triton.seen[0]["image"].item(0)) == b"\x89PNG"
    assert prompt_of(gateway.triton.seen[0]) == "<image>what?"


async def test_tokens_are_counted_and_nothing_is_loaded(
    gateway: Served, client: anthropic.AsyncAnthropic, tmp_path: Path
) -> None:
    template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m", template)))
    counted = await client.messages.count_tokens(model="m", messages=[{"role": "user", "content": "hello world a"}])
    assert counted.input_tokens == 3
    assert not gateway.triton.seen


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url"}}]}]}, "source"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"top_p": 7}, "top_p"),
    ],
)
async def test_what_does_not_fit_is_named_in_anthropics_shape(
    gateway: Served, folder: Path, change: dict[str, object], place: str
) -> None:
    gateway.serve_vllm(chat_model(folder), saying("x"))
    body = {"model": "m", "max_tokens": 1, "messages": HI} | change
    status, said = await post(gateway, f"{gateway.url}/v1/messages", body)
    assert (status, said["type"], said["error"]["type"]) == (400, "error", "invalid_request_error")
    assert place in said["error"]["message"]
    assert not gateway.triton.seen


async def test_errors_have_the_classes_of_the_client(gateway: Served, client: anthropic.AsyncAnthropic, folder: Path) -> None:
    with pytest.raises(anthropic.NotFoundError, match="m2"):
        await client.messages.create(model="m2", max_tokens=1, messages=HI)

    def steps(inputs: Tensors) -> Iterable[Step]:
        yield response("a")
        yield TritonError("it broke")

    gateway.serve_vllm(chat_model(folder), steps)
    with pytest.raises(anthropic.APIStatusError, match="it broke"):
        await client.messages.create(model="m", max_tokens=1, messages=HI)
    stream = await client.messages.create(model="m", max_tokens=1, messages=HI, stream=True)
    with pytest.raises(anthropic.APIStatusError, match="it broke"):
        _ = [event async for event in stream]


async def test_each_client_sends_its_key_in_its_own_header(tmp_path: Path, folder: Path) -> None:
    key = "the-right-key-0123456789"
    (tmp_path / "keys").write_text(f"ana: {key}\n", encoding="utf-8")
    async with served(request_timeout_seconds=60, api_keys_file=tmp_path / "keys") as locked:
        locked.serve_vllm(chat_model(folder), saying("x"))
        async with anthropic.AsyncAnthropic(base_url=locked.url, api_key=key, max_retries=0) as client:
            assert (await client.messages.create(model="m", max_tokens=1, messages=HI)).stop_reason == "end_turn"
        async with anthropic.AsyncAnthropic(base_url=locked.url, api_key="wrong-key-0123456789ab", max_retries=0) as client:
            with pytest.raises(anthropic.AuthenticationError):
                await client.messages.create(model="m", max_tokens=1, messages=HI)
        async with openai.AsyncAzureOpenAI(azure_endpoint=locked.url, api_key=key, api_version="2024-10-21") as azure:
            chat = await azure.chat.completions.create(model="m", messages=HI)
            assert (chat.choices[0].message.content, chat.model) == ("x", "m")


async def test_azures_client_names_its_model_in_the_path(gateway: Served, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("x"))
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, "e"), repeated({"EMBEDDING": numbers([1, 2, 3])}))
    async with openai.AsyncAzureOpenAI(
        azure_endpoint=gateway.url, api_key="none", api_version="2024-10-21", max_retries=0
    ) as azure:
        assert (await azure.completions.create(model="m", prompt="a")).choices[0].text == "x"
        assert (await azure.embeddings.create(model="e", input="a")).data[0].embedding == [1, 2, 3]
        with pytest.raises(openai.NotFoundError, match="m2"):
            await azure.chat.completions.create(model="m2", messages=HI)
    status, said = await post(gateway, f"{gateway.url}/openai/deployments/m/chat/completions", {"messages": "x"})
    assert (status, said["error"]["param"]) == (400, "messages")

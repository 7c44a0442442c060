"""``/v1/chat/completions`` as the openai package sees it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from modelium.metrics.families import REQUESTS
from modelium.values import Adapter
from tests.patience import PATIENCE_S

from .openai_models import chat_model, prompt_of, sampling_of, saying, write_folder
from .stand_in import Served, response

HI: Any = [{"role": "user", "content": "hi"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


async def test_a_chat_is_rendered_with_the_models_own_template(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("Hello", " there"))
    answer = await client.chat.completions.create(model="m", messages=[{"role": "system", "content": "s"}, *HI])
    assert answer.choices[0].message.content == "Hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 2, 5)
    assert (answer.object, answer.model) == ("chat.completion", "m")
    [seen] = gateway.triton.seen
    assert prompt_of(seen) == "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert sampling_of(seen)["max_tokens"] == 512  # what remains of the context: the engine stops at its end
    assert gateway.controller.held == 0
    assert [labels[:2] for labels, _ in gateway.recorder.counted(REQUESTS)] == [("m", "200")]


async def test_a_streamed_chat_is_the_same_in_pieces(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("He", "llo", ""))
    stream = await client.chat.completions.create(model="m", messages=HI, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.role for chunk in chunks[1:-1]] == [None, None]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Hello"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None, None, "stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_raw_stream_ends_with_done(gateway: Served, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("x"))
    body = {"model": "m", "messages": HI, "stream": True}
    async with gateway.http.post(f"{gateway.url}/v1/chat/completions", json=body) as answer:
        assert answer.content_type == "text/event-stream"
        text = await answer.text()
    assert text.endswith("data: [DONE]\n\n")
    assert all(line.startswith("data: ") for line in text.split("\n\n")[:-1])
    assert "usage" not in text


async def test_n_choices_have_seeds_of_their_own(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), lambda inputs: [response(f"seed {sampling_of(inputs)['seed']}", "stop")])
    answer = await client.chat.completions.create(model="m", messages=HI, n=3, seed=7)
    assert [choice.message.content for choice in answer.choices] == ["seed 7", "seed 8", "seed 9"]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 3)  # the prompt counts once
    stream = await client.chat.completions.create(model="m", messages=HI, n=2, seed=1, stream=True)
    said = {chunk.choices[0].index: chunk.choices[0].delta.content async for chunk in stream}
    assert said == {0: "seed 1", 1: "seed 2"}


async def test_sampling_goes_to_vllm_and_the_models_defaults_speak_where_the_request_is_silent(
    gateway: Served, client: AsyncOpenAI, folder: Path
) -> None:
    defaults = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "eos_token_id": 2, "do_sample": True}
    gateway.serve_vllm(chat_model(folder, language={"generation_defaults": defaults}), saying("x"))
    await client.chat.completions.create(
        model="m",
        messages=HI,
        temperature=0,
        stop="END",
        presence_penalty=0.5,
        logit_bias={"5": 2},
        max_completion_tokens=9,
        user="u",
        store=False,
        metadata={"a": "b"},
        service_tier="auto",
        parallel_tool_calls=True,
        extra_body={"min_p": 0.1, "ignore_eos": True, "repetition_penalty": 1.1},
    )
    assert sampling_of(gateway.triton.seen[0]) == {
        "temperature": 0.0,
        "top_p": 0.95,
        "top_k": 20,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.5,
        "ignore_eos": True,
        "stop": ["END"],
        "logit_bias": {"5": 2.0},
        "max_tokens": 9,
    }


async def test_logprobs_of_a_chat(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    first = {"logprob": -0.1, "rank": 1, "decoded_token": "Hé"}
    tokens = [{"7": first, "8": {"logprob": float("-inf"), "rank": 2, "decoded_token": "o"}}]
    gateway.serve_vllm(chat_model(folder), lambda inputs: [response("Hé", "stop", logprobs=tokens)])
    answer = await client.chat.completions.create(model="m", messages=HI, logprobs=True, top_logprobs=2)
    assert answer.choices[0].logprobs is not None
    [token] = answer.choices[0].logprobs.content or []
    assert (token.token, token.logprob, token.bytes) == ("Hé", -0.1, list("Hé".encode()))
    assert [(top.token, top.logprob) for top in token.top_logprobs] == [("Hé", -0.1), ("o", -9999.0)]
    assert sampling_of(gateway.triton.seen[0])["logprobs"] == 2


async def test_structured_output_is_asked_of_the_engine(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying('{"a": 1}'))
    schema: Any = {"type": "object", "properties": {"a": {"type": "integer"}}}
    await client.chat.completions.create(
        model="m", messages=HI, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    )
    await client.chat.completions.create(model="m", messages=HI, response_format={"type": "json_object"})
    await client.chat.completions.create(model="m", messages=HI, extra_body={"structured_outputs": {"regex": "a+"}})
    await client.chat.completions.create(model="m", messages=HI, extra_body={"guided_choice": ["a", "b"]})
    shapes = [json.loads(sampling_of(seen)["structured_outputs"]) for seen in gateway.triton.seen]
    assert shapes == [{"json": schema}, {"json_object": True}, {"regex": "a+"}, {"choice": ["a", "b"]}]


async def test_a_tool_call_the_model_makes_by_itself(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("Let me see.\n", CALL[:20], CALL[20:]))
    answer = await client.chat.completions.create(model="m", messages=HI, tools=[WEATHER])
    message = answer.choices[0].message
    assert message.content == "Let me see."
    assert answer.choices[0].finish_reason == "tool_calls"
    [call] = message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    assert call.id.startswith("call_")
    assert '"get_weather"' in prompt_of(gateway.triton.seen[0])
    follow_up: Any = [*HI, message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    await client.chat.completions.create(model="m", messages=follow_up, tools=[WEATHER])
    assert '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}' in prompt_of(gateway.triton.seen[1])


async def test_streamed_tool_calls(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    text = f"{CALL}\n{CALL}"
    gateway.serve_vllm(chat_model(folder), saying(*text, ""))
    async with client.chat.completions.stream(model="m", messages=HI, tools=[WEATHER]) as stream:
        answer = await stream.get_final_completion()
    calls = answer.choices[0].message.tool_calls or []
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Paris"}] * 2
    assert len({call.id for call in calls}) == 2
    assert not answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_a_named_tool_is_held_to_its_schema(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying('{"city"', ': "Rome"}'))
    choice: Any = {"type": "function", "function": {"name": "get_weather"}}
    answer = await client.chat.completions.create(model="m", messages=HI, tools=[WEATHER], tool_choice=choice)
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("get_weather", '{"city": "Rome"}')
    assert answer.choices[0].message.content is None
    shape = json.loads(sampling_of(gateway.triton.seen[0])["structured_outputs"])
    assert shape == {"json": WEATHER["function"]["parameters"]}


async def test_a_required_tool_is_one_of_a_list(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying('[{"name": "get_weather",', ' "parameters": {"city": "Rome"}}]'))
    answer = await client.chat.completions.create(model="m", messages=HI, tools=[WEATHER], tool_choice="required")
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Rome"}
    assert answer.choices[0].finish_reason == "tool_calls"
    shape = json.loads(sampling_of(gateway.triton.seen[0])["structured_outputs"])
    assert shape["json"]["items"]["properties"]["parameters"] == WEATHER["function"]["parameters"]


async def test_thoughts_are_told_apart(gateway: Served, client: AsyncOpenAI, tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n"
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "r", template)), saying("I wonder", "</th", "ink>\n\n", "42", ""))
    answer = await client.chat.completions.create(model="m", messages=HI)
    message = answer.choices[0].message
    assert (message.content, message.to_dict()["reasoning_content"]) == ("42", "I wonder")


async def test_an_adapter_is_a_model_of_its_own(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    adapter = Adapter(name="pirate", path=Path("p"), rank=8)
    gateway.serve_vllm(chat_model(folder, adapters=[adapter]), saying("arr"), adapters=[adapter])
    await client.chat.completions.create(model="m:pirate", messages=HI)
    assert sampling_of(gateway.triton.seen[0])["lora_name"] == "pirate"
    models = [model async for model in client.models.list()]
    assert [model.id for model in models] == ["m", "m:pirate"]
    assert (await client.models.retrieve("m:pirate")).id == "m:pirate"


async def test_a_client_that_leaves_cancels_its_generation(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), lambda inputs: [response("a"), asyncio.Event()])
    stream = await client.chat.completions.create(model="m", messages=HI, stream=True)
    async for _ in stream:
        break
    await stream.close()
    await asyncio.wait_for(gateway.triton.cancelled.wait(), PATIENCE_S)
    await asyncio.wait_for(gateway.controller.released.wait(), PATIENCE_S)
    assert gateway.controller.held == 0


async def test_images_travel_beside_the_prompt(gateway: Served, client: AsyncOpenAI, tmp_path: Path) -> None:
    template = (
        "{% for message in messages %}{% for part in message.content %}"
        "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
    )
    folder = write_folder(tmp_path / "v", template)
    gateway.serve_vllm(chat_model(folder, language={"modalities": ("image",)}), saying("a cat"))
    parts: Any = [
        {"type": "text", "text": "what is"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]
    await client.chat.completions.create(model="m", messages=[{"role": "user", "content": parts}])
    assert prompt_of(gateway.triton.seen[0]) == "what is<image>"
    assert gateway.triton.seen[0]["image"].tolist() == [b"iVBORw0KGgo="]
    parts[1]["image_url"]["url"] = "https://example.com/cat.png"
    with pytest.raises(openai.BadRequestError, match="fetches nothing"):
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": parts}])


async def test_a_template_that_writes_the_bos_token_does_not_double_it(
    gateway: Served, client: AsyncOpenAI, tmp_path: Path
) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    for name, bos, prompt in (("with", True, "hi"), ("without", False, "<s>hi")):
        gateway.serve_vllm(chat_model(write_folder(tmp_path / name, template, bos=bos), name), saying("x"))
        await client.chat.completions.create(model=name, messages=HI)
        assert prompt_of(gateway.triton.seen[-1]) == prompt

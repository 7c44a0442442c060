"""``/v1/responses``, as the openai package sees it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from modelium.errors import TritonError

from .openai_models import chat_model, prompt_of, sampling_of, saying, write_folder
from .ray_models import post
from .stand_in import Served, Step, Tensors, response

TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'


async def test_a_text_is_answered(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("Hel", "lo"))
    answer = await client.responses.create(
        model="m", input="hi", instructions="be kind", max_output_tokens=7, temperature=0.5, store=False
    )
    assert (answer.output_text, answer.status, answer.object) == ("Hello", "completed", "response")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (3, 2, 5)
    assert sampling_of(gateway.triton.seen[0]) == {"temperature": 0.5, "max_tokens": 7}
    assert prompt_of(gateway.triton.seen[0]) == (
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )


async def test_a_streamed_answer_is_the_whole_one_in_events(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("Hel", "lo ", CALL))
    whole = await client.responses.create(model="m", input="hi", tools=[TOOL])
    async with client.responses.stream(model="m", input="hi", tools=[TOOL]) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 2
    assert final.output_text == whole.output_text == "Hello"
    for one in (final, whole):
        call = one.output[1]
        assert call.type == "function_call" and (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Rome"})
        assert call.call_id


async def test_a_conversation_with_calls(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("x"))
    conversation: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "message", "role": "assistant", "id": "msg_1", "content": [{"type": "output_text", "text": "one moment"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
    ]
    await client.responses.create(model="m", input=conversation)
    assert prompt_of(gateway.triton.seen[0]) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\none moment"
        '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call><|im_end|>\n'
        "<|im_start|>tool\nsunny<|im_end|>\n<|im_start|>assistant\n"
    )


async def test_an_answer_that_is_cut_off_is_incomplete(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("Hel", reason="length"))
    whole = await client.responses.create(model="m", input="hi", max_output_tokens=1)
    assert whole.incomplete_details is not None
    assert (whole.status, whole.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    stream = await client.responses.create(model="m", input="hi", max_output_tokens=1, stream=True)
    assert [event.type async for event in stream][-1] == "response.incomplete"


async def test_thoughts_are_items_of_their_own(gateway: Served, client: AsyncOpenAI, tmp_path: Path) -> None:
    template = "{{ messages[0].content }}<think>{# </think> #}"
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m", template)), saying("why", "</think>", "because"))
    whole = await client.responses.create(model="m", input="hi", reasoning={"effort": "low", "summary": "auto"})
    assert [item.type for item in whole.output] == ["reasoning", "message"]
    stream = await client.responses.create(model="m", input="hi", stream=True)
    deltas = [(event.type, getattr(event, "delta", "")) async for event in stream if event.type.endswith("text.delta")]
    assert deltas == [("response.reasoning_text.delta", "why"), ("response.output_text.delta", "because")]


async def test_the_form_of_the_text(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder), saying("{}"))
    form: Any = {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}}
    await client.responses.create(model="m", input="hi", text=form)
    assert json.loads(sampling_of(gateway.triton.seen[0])["structured_outputs"]) == {"json": {"type": "object"}}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0"),
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
        ({"top_p": 7}, "top_p"),
    ],
)
async def test_what_cannot_be_done_is_refused(gateway: Served, folder: Path, change: dict[str, object], param: str) -> None:
    gateway.serve_vllm(chat_model(folder), saying("x"))
    status, said = await post(gateway, f"{gateway.url}/v1/responses", {"model": "m", "input": "hi"} | change)
    assert (status, said["error"]["param"]) == (400, param)
    assert not gateway.triton.seen


async def test_errors(gateway: Served, client: AsyncOpenAI, folder: Path) -> None:
    with pytest.raises(openai.NotFoundError, match="m2"):
        await client.responses.create(model="m2", input="hi")

    def steps(inputs: Tensors) -> Iterable[Step]:
        yield response("a")
        yield TritonError("it broke")

    gateway.serve_vllm(chat_model(folder), steps)
    with pytest.raises(openai.APIStatusError, match="it broke"):
        await client.responses.create(model="m", input="hi")
    body = {"model": "m", "input": "hi", "stream": True}
    async with gateway.http.post(f"{gateway.url}/v1/responses", json=body) as answer:
        lines = (await answer.text()).strip().splitlines()
    last = json.loads(lines[-1].removeprefix("data: "))
    assert (last["type"], "it broke" in last["message"], last["error"]["message"]) == ("error", True, last["message"])


async def test_openais_helper_raises_an_error_that_comes_before_anything_was_said(
    gateway: Served, client: AsyncOpenAI, folder: Path
) -> None:
    def steps(inputs: Tensors) -> Iterable[Step]:
        yield TritonError("it broke")

    gateway.serve_vllm(chat_model(folder), steps)
    with pytest.raises(openai.APIError, match="it broke"):
        async with client.responses.stream(model="m", input="hi") as stream:
            await stream.get_final_response()


async def test_probes_and_the_version(gateway: Served) -> None:
    for alive, status in ((True, 200), (False, 503)):
        gateway.controller.is_alive = alive
        for method in ("GET", "POST"):
            async with gateway.http.request(method, f"{gateway.url}/ping/") as answer:
                assert answer.status == status
    async with gateway.http.get(f"{gateway.url}//version") as answer:
        assert set(await answer.json()) == {"version"}

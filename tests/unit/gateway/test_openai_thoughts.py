"""What models think aloud, in answers and in usage; and what tokens cut off."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .openai_models import chat_model, saying, write_folder
from .stand_in import Served, Step, Tensors, response

HI = [{"role": "user", "content": "hello"}]
THINKER = "{{ messages[0].content }}{{ messages[0].reasoning }}{% if false %}<think>{% endif %}"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


async def ask(gateway: Served, **fields: Any) -> Any:
    async with gateway.http.post(f"{gateway.url}/v1/chat/completions", json={"model": "m", "messages": HI, **fields}) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


def thinking(inputs: Tensors) -> Iterable[Step]:
    for text in ("<think>", "let", " me", " see", "</think>", "\n\n", "yes"):
        yield response(text)
    yield response("", "stop", tokens=0)


async def test_thoughts_have_both_words_and_are_counted(gateway: Served, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m", THINKER)), thinking)
    answer = await ask(gateway)
    message = answer["choices"][0]["message"]
    assert message["content"] == "yes"
    assert message["reasoning"] == message["reasoning_content"] == "let me see"
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
    assert answer["usage"]["completion_tokens"] == 7


async def test_thoughts_that_nobody_wants_are_left_out_and_counted(gateway: Served, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m", THINKER)), thinking)
    answer = await ask(gateway, include_reasoning=False)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "yes", "refusal": None}
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}


async def test_a_model_that_does_not_think_has_no_such_count(gateway: Served, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("x"))
    assert "completion_tokens_details" not in (await ask(gateway))["usage"]


async def test_thoughts_that_come_back_reach_the_template(gateway: Served, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m", THINKER)), saying("x"))
    for word in ("reasoning", "reasoning_content"):
        await ask(gateway, messages=[{"role": "assistant", "content": "a", word: "b"}])
    assert [seen["text_input"].item(0) for seen in gateway.triton.seen] == [b"ab", b"ab"]


async def test_a_named_tool_that_was_cut_off_is_no_call(gateway: Served, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying('{"a": ', "1", reason="length"))
    answer = await ask(gateway, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "f"}})
    [choice] = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ('{"a": 1', "length")
    assert "tool_calls" not in choice["message"]


async def test_a_forced_tool_wins_over_the_form_of_an_answer(gateway: Served, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying('{"a": 1}'))
    named = {"type": "function", "function": {"name": "f"}}
    answer = await ask(gateway, tools=[TOOL], tool_choice=named, response_format={"type": "json_object"})
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}


async def test_logprobs_0_is_the_token_itself(gateway: Served, tmp_path: Path) -> None:
    entry = {"7": {"logprob": -0.5, "rank": 3, "decoded_token": "x"}}
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), lambda inputs: [response("x", "stop", logprobs=[entry])])
    body = {"model": "m", "prompt": "a", "logprobs": 0}
    async with gateway.http.post(f"{gateway.url}/v1/completions", json=body) as answer:
        [choice] = (await answer.json())["choices"]
    assert choice["logprobs"]["top_logprobs"] == [{"x": -0.5}]


async def test_a_role_of_the_template_s_own_is_taken(gateway: Served, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m", "{{ messages[0].role }}")), saying("x"))
    await ask(gateway, messages=[{"role": "narrator", "content": "hm"}])
    assert gateway.triton.seen[0]["text_input"].item(0) == b"narrator"

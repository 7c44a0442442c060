"""Prompts and answers as tokens: what vLLM's words ask for, and what comes back of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .openai_models import chat_model, sampling_of, saying, write_folder
from .stand_in import Served, Step, Tensors, numbers, repeated, response, served, texts

HI = [{"role": "user", "content": "hello"}]
PROMPT = {"prompt": "hello world", "prompt_token_ids": [3, 4], "first_token": "hello", "num_cached_tokens": 1}
POSITIONS = [
    None,
    {"4": {"logprob": -2.0, "rank": 3, "decoded_token": " world"}, "5": {"logprob": -0.5, "rank": 1, "decoded_token": " a"}},
]


def answering(inputs: Tensors) -> Iterable[Step]:
    """Two tokens of an engine that says what it is asked to say."""
    asked = sampling_of(inputs)
    for at, (token, text) in enumerate(((5, "a"), (6, "b"))):
        entry = {str(token): {"logprob": -0.25, "rank": 1, "decoded_token": text}}
        outputs = dict(response(text, "stop" if at else None, prompt_tokens=2))
        said = [json.dumps([entry] if "logprobs" in asked else None)]
        if at == 0 and "prompt_logprobs" in asked:
            said.append(json.dumps(POSITIONS))
        if asked.get("details"):
            said.append(json.dumps({"token_ids": [[token]], **(PROMPT if at == 0 else {})}))
        outputs["logprobs"] = texts(said)[0]
        yield outputs


@pytest.fixture
async def model(gateway: Served, tmp_path: Path) -> Served:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), answering)
    return gateway


async def ask(gateway: Served, path: str, **body: Any) -> Any:
    async with gateway.http.post(f"{gateway.url}/v1/{path}", json={"model": "m", **body}) as answer:
        assert answer.status == 200, await answer.text()
        if answer.content_type == "text/event-stream":
            lines = (await answer.text()).splitlines()
            return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        return await answer.json()


async def test_the_likelihood_of_a_prompt(model: Served) -> None:
    """As lm-eval asks for it."""
    answer = await ask(model, "completions", prompt=[3, 4], echo=True, logprobs=1, max_tokens=0)
    [choice] = answer["choices"]
    assert (choice["text"], choice["logprobs"]["tokens"]) == ("hello world", ["hello", " world"])
    assert choice["logprobs"]["token_logprobs"] == [None, -2.0]
    assert choice["logprobs"]["top_logprobs"] == [None, {" a": -0.5, " world": -2.0}]
    assert choice["logprobs"]["text_offset"] == [0, 5]
    asked = sampling_of(model.triton.seen[0])
    assert (asked["prompt_logprobs"], asked["max_tokens"], asked["prompt_token_ids"]) == (1, 1, [3, 4])


async def test_an_echo_with_logprobs_goes_on_with_the_answer(model: Served) -> None:
    [choice] = (await ask(model, "completions", prompt="hello world", echo=True, logprobs=0))["choices"]
    assert (choice["text"], choice["logprobs"]["tokens"]) == ("hello worldab", ["hello", " world", "a", "b"])
    events = await ask(model, "completions", prompt="hello world", echo=True, logprobs=0, stream=True)
    assert [event["choices"][0]["text"] for event in events] == ["hello worlda", "b"]
    assert [event["choices"][0]["logprobs"]["text_offset"] for event in events] == [[0, 5, 11], [12]]


async def test_token_ids_of_prompt_and_answer(model: Served) -> None:
    answer = await ask(model, "completions", prompt="hello world", return_token_ids=True)
    assert (answer["choices"][0]["prompt_token_ids"], answer["choices"][0]["token_ids"]) == ([3, 4], [5, 6])
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}
    answer = await ask(model, "chat/completions", messages=HI, return_token_ids=True)
    assert (answer["prompt_token_ids"], answer["choices"][0]["token_ids"]) == ([3, 4], [5, 6])
    events = await ask(model, "chat/completions", messages=HI, return_token_ids=True, stream=True)
    assert [event.get("prompt_token_ids") for event in events] == [[3, 4], None]
    assert [event["choices"][0]["token_ids"] for event in events] == [[5], [6]]


async def test_prompt_logprobs_are_the_engine_s(model: Served) -> None:
    assert (await ask(model, "completions", prompt="x", prompt_logprobs=1))["choices"][0]["prompt_logprobs"] == POSITIONS
    assert (await ask(model, "chat/completions", messages=HI, prompt_logprobs=1))["prompt_logprobs"] == POSITIONS


async def test_tokens_called_by_their_numbers(model: Served) -> None:
    [choice] = (await ask(model, "completions", prompt="x", logprobs=1, return_tokens_as_token_ids=True))["choices"]
    assert choice["logprobs"]["tokens"] == ["token_id:5", "token_id:6"]
    body = {"messages": HI, "logprobs": True, "return_tokens_as_token_ids": True}
    [choice] = (await ask(model, "chat/completions", **body))["choices"]
    assert [each["token"] for each in choice["logprobs"]["content"]] == ["token_id:5", "token_id:6"]


async def test_usage_up_to_here(model: Served) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    for path, body in (("completions", {"prompt": "x"}), ("chat/completions", {"messages": HI})):
        events = await ask(model, path, stream=True, stream_options=options, **body)
        assert [event["usage"]["total_tokens"] for event in events] == [3, 4, 4]


async def test_how_a_prompt_is_cut_is_the_engine_s_work(model: Served) -> None:
    sent = {"truncate_prompt_tokens": 5, "truncation_side": "left", "add_special_tokens": False}
    await ask(model, "completions", prompt="x", logit_bias={"5": 1000}, **sent)
    assert {**sent, "logit_bias": {"5": 100}}.items() <= sampling_of(model.triton.seen[0]).items()


async def test_an_echo_in_a_chat_is_the_beginning_of_the_answer(model: Served) -> None:
    begun = [*HI, {"role": "assistant", "content": "Well, "}]
    assert (await ask(model, "chat/completions", messages=begun, echo=True))["choices"][0]["message"]["content"] == "Well, ab"
    assert (await ask(model, "chat/completions", messages=HI, echo=True))["choices"][0]["message"]["content"] == "ab"
    events = await ask(model, "chat/completions", messages=begun, echo=True, stream=True)
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "Well, ab"


async def test_a_server_with_triton_s_own_backend_gets_the_text(tmp_path: Path) -> None:
    async with served() as gateway:
        gateway.serve(chat_model(write_folder(tmp_path / "m")), repeated(ANSWER))
        assert (await ask(gateway, "completions", prompt=[3, 4], temperature=0))["choices"][0]["text"] == "x"
        assert gateway.triton.seen[0]["TEXT"].item(0) == b"hello world"
        async with gateway.http.post(
            f"{gateway.url}/v1/completions", json={"model": "m", "prompt": "x", "truncate_prompt_tokens": 1}
        ) as answer:
            assert answer.status == 400 and "truncate_prompt_tokens" in await answer.text()


ANSWER = {
    "GENERATED_TEXT": np.array([[b"x"]], dtype=object),
    "FINISH_REASON": np.array([[b"stop"]], dtype=object),
    "INPUT_TOKENS": numbers([2], dtype=np.int32),
    "OUTPUT_TOKENS": numbers([1], dtype=np.int32),
}


@pytest.mark.parametrize("more", [{"prompt_logprobs": 1, "stream": True}, {"max_tokens": 0}, {"prompt_logprobs": -2}])
async def test_what_vllm_refuses(gateway: Served, tmp_path: Path, more: dict[str, Any]) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("x"))
    async with gateway.http.post(f"{gateway.url}/v1/completions", json={"model": "m", "prompt": "x", **more}) as answer:
        assert answer.status == 400, await answer.text()

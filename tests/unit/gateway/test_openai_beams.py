"""Beam searches, chosen tokens and what was in the cache: words of Modelium's own vLLM backend, and what comes back of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelium.values import Task

from .openai_models import chat_model, sampling_of, write_folder
from .ray_models import post
from .stand_in import Served, Step, Tensors, profile_of, response, served, texts

HI = [{"role": "user", "content": "hello"}]


def searching(inputs: Tensors) -> Iterable[Step]:
    """An engine that finds two beams, or says one token with what it is asked to tell of it."""
    asked = json.loads(inputs["sampling_parameters"].item(0))
    ids = asked.get("logprob_token_ids", [])
    entry = {str(token): {"logprob": -1.0 - at, "rank": 1, "decoded_token": f"t{token}"} for at, token in enumerate([5, *ids])}
    said = [json.dumps([entry] if "logprobs" in asked or ids else None)] * asked.get("beam_width", 1)
    tokens = [[5], [6, 7]][: len(said)]
    details = {"prompt": "hello", "prompt_token_ids": [3], "first_token": "hello", "num_cached_tokens": 2}
    if asked.get("details"):
        said.append(json.dumps({"token_ids": tokens, **details}))
    elif asked.get("facts"):
        said.append(json.dumps({"num_cached_tokens": 2} | ({"stop_reasons": ["STOP"]} if "stop" in asked else {})))
    yield dict(response("a", "stop")) | {
        "text_output": texts(["a", "bc"][: len(tokens)])[0],
        "finish_reason": texts(["stop", "length"][: len(tokens)])[0],
        "num_output_tokens": np.array([len(one) for one in tokens], dtype=np.uint32),
        "logprobs": texts(said)[0],
    }


@pytest.fixture
async def model(gateway: Served, folder: Path) -> Served:
    gateway.serve_vllm(chat_model(folder), searching)
    return gateway


async def ask(gateway: Served, path: str, **body: Any) -> Any:
    status, said = await post(gateway, f"{gateway.url}/v1/{path}", {"model": "m", **body})
    assert status == 200, said
    return said


async def test_beams_are_the_choices(model: Served) -> None:
    beams = {"use_beam_search": True, "n": 2}
    said = await ask(model, "completions", prompt="hello", return_token_ids=True, length_penalty=2.0, **beams)
    assert [(one["text"], one["finish_reason"], one["token_ids"]) for one in said["choices"]] == [
        ("a", "stop", [5]), ("bc", "length", [6, 7])
    ]  # fmt: skip
    assert [one["prompt_token_ids"] for one in said["choices"]] == [[3], [3]]
    assert said["usage"]["prompt_tokens"] == 3 and said["usage"]["completion_tokens"] == 3
    assert sampling_of(model.triton.seen[0]) == {
        "beam_width": 2, "length_penalty": 2.0, "max_tokens": 16, "details": True
    }  # fmt: skip
    said = await ask(model, "completions", prompt=["hello", "world"], echo=True, **beams)
    assert [one["text"] for one in said["choices"]] == ["helloa", "hellobc", "worlda", "worldbc"]
    assert [one["index"] for one in said["choices"]] == [0, 1, 2, 3]
    said = await ask(model, "chat/completions", messages=HI, temperature=0, logprobs=True, **beams)
    assert [one["message"]["content"] for one in said["choices"]] == ["a", "bc"]
    assert said["choices"][1]["logprobs"]["content"][0]["token"] == "t5"
    assert len(model.triton.seen) == 4


async def test_what_beams_do_not_heed_is_told(model: Served) -> None:
    body = {"model": "m", "prompt": "a", "use_beam_search": True, "top_p": 0.5, "seed": 3, "stop": ["x"]}
    async with model.http.post(f"{model.url}/v1/completions", json=body) as answer:
        assert (answer.status, answer.headers["X-Modelium-Ignored"]) == (200, "top_p, seed, stop")
    assert sampling_of(model.triton.seen[0]) == {
        "beam_width": 1, "length_penalty": 1.0, "max_tokens": 16
    }  # fmt: skip
    async with model.http.post(
        f"{model.url}/v1/completions", json={"model": "m", "prompt": "a", "length_penalty": 2}
    ) as answer:
        assert (answer.status, answer.headers["X-Modelium-Ignored"]) == (200, "length_penalty")


@pytest.mark.parametrize(
    "more",
    [
        {"stream": True}, {"echo": True, "logprobs": 1}, {"prompt_logprobs": 1}, {"logprobs": 1, "logprob_token_ids": [3]},
        {"response_format": {"type": "json_object"}}, {"guided_regex": "a"},
    ],
    ids=str,
)  # fmt: skip
async def test_what_a_beam_search_would_break_is_refused(model: Served, more: dict[str, Any]) -> None:
    status, said = await post(
        model, f"{model.url}/v1/completions", {"model": "m", "prompt": "a", "use_beam_search": True, **more}
    )
    assert status == 400, said
    assert not model.triton.seen


async def test_beams_need_the_backend_that_searches_them(tmp_path: Path) -> None:
    body = {"model": "m", "prompt": "a", "messages": HI, "use_beam_search": True}
    async with served(request_timeout_seconds=60) as gateway:
        gateway.serve(profile_of(Task.TEXT_GENERATION, "m", path=write_folder(tmp_path / "m")))
        for path in ("completions", "chat/completions"):
            status, said = await post(gateway, f"{gateway.url}/v1/{path}", body)
            assert (status, said["error"]["param"]) == (400, "use_beam_search")


async def test_chosen_tokens_are_told(model: Served) -> None:
    said = await ask(model, "completions", prompt="a", logprobs=1, logprob_token_ids=[3, 4])
    assert said["choices"][0]["logprobs"]["top_logprobs"] == [{"t5": -1.0, "t3": -2.0, "t4": -3.0}]
    said = await ask(model, "chat/completions", messages=HI, logprobs=True, logprob_token_ids=[4, 3])
    [place] = said["choices"][0]["logprobs"]["content"]
    assert [one["token"] for one in place["top_logprobs"]] == ["t5", "t4", "t3"]
    for seen in model.triton.seen:
        assert "logprobs" not in sampling_of(seen)


@pytest.mark.parametrize(
    "more",
    [{}, {"logprobs": 1, "echo": True, "max_tokens": 0}, {"logprobs": 1, "logprob_token_ids": list(range(129))}],
    ids=str,
)
async def test_chosen_tokens_that_do_not_fit(model: Served, more: dict[str, Any]) -> None:
    status, said = await post(
        model, f"{model.url}/v1/completions", {"model": "m", "prompt": "a", "logprob_token_ids": [3], **more}
    )
    assert (status, said["error"]["param"]) == (400, "logprob_token_ids")


async def test_what_was_in_the_cache_is_told_everywhere(model: Served) -> None:
    for path, body in (("completions", {"prompt": "a"}), ("chat/completions", {"messages": HI})):
        assert (await ask(model, path, **body))["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    said = await ask(model, "responses", input="a")
    assert said["usage"]["input_tokens_details"] == {"cached_tokens": 2}
    said = await ask(model, "messages", messages=HI, max_tokens=3)
    assert said["usage"] == {"input_tokens": 1, "cache_read_input_tokens": 2, "output_tokens": 1}


async def test_what_stopped_a_text_is_told(model: Served) -> None:
    for path, body in (("completions", {"prompt": "a"}), ("chat/completions", {"messages": HI})):
        said = await ask(model, path, stop=["STOP"], **body)
        assert (said["choices"][0]["stop_reason"], said["choices"][0]["finish_reason"]) == ("STOP", "stop")
        assert "stop_reason" not in (await ask(model, path, **body))["choices"][0]
    said = await ask(model, "messages", messages=HI, max_tokens=3, stop_sequences=["STOP"])
    assert (said["stop_reason"], said["stop_sequence"]) == ("stop_sequence", "STOP")

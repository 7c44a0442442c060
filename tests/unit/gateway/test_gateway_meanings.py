"""What other servers' clients send, and numbers that are none: left out or refused in words, never taken for something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.parsing import parse
from modelium.gateway.openai.requests import ChatRequest, CompletionRequest, EmbeddingRequest
from modelium.values import Task

from .openai_models import chat_model, saying, write_folder
from .stand_in import Served, numbers, profile_of, repeated, texts

HI = [{"role": "user", "content": "hello"}]
OTHERS: dict[str, Any] = {
    "keep_alive": "5m",
    "options": {"num_ctx": 4096},
    "cache_prompt": True,
    "session_id": "abc",
    "provider": {"order": ["x"]},
    "usage": {"include": True},
    "reasoning": {"effort": "high"},
    "thinking": {"type": "enabled"},
    "typical_p": 0.9,
    "models": ["m", "another"],
}


@pytest.mark.parametrize("stream", [True, False])
async def test_fields_of_other_servers_are_left_out_and_listed(gateway: Served, tmp_path: Path, stream: bool) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("x"))
    body = {"model": "m", "messages": HI, "stream": stream, "user": "me", **OTHERS, "e\u00e9\r\nX: y": 1}
    async with gateway.http.post(f"{gateway.url}/v1/chat/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["X-Modelium-Ignored"] == ", ".join([*OTHERS, "e%C3%A9%0D%0AX%3A y"])
        assert "X" not in answer.headers


async def test_without_them_there_is_no_header(gateway: Served, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("x"))
    async with gateway.http.post(
        f"{gateway.url}/v1/chat/completions", json={"model": "m", "messages": HI, "user": "me"}
    ) as answer:
        assert (answer.status, "X-Modelium-Ignored" in answer.headers) == (200, False)


@pytest.mark.parametrize(
    ("theirs", "ours", "value"),
    [("repeat_penalty", "repetition_penalty", 1.1), ("n_predict", "max_tokens", 5), ("max_new_tokens", "max_tokens", 5)],
)
def test_other_names_of_what_there_is_are_honoured(theirs: str, ours: str, value: float) -> None:
    request = parse(CompletionRequest, json.dumps({"model": "m", "prompt": "a", theirs: value}).encode())
    assert (getattr(request, ours), request.ignored) == (value, ())
    request = parse(CompletionRequest, json.dumps({"model": "m", "prompt": "a", theirs: value, ours: 7}).encode())
    assert (getattr(request, ours), [one.path for one in request.ignored]) == (7, [theirs])


@pytest.mark.parametrize("name", ["n_predict", "num_predict"])
@pytest.mark.parametrize("value", [-1, -2])
def test_no_limit_in_other_servers_words_is_none_here(name: str, value: int) -> None:
    request = parse(ChatRequest, json.dumps({"model": "m", "messages": HI, name: value}).encode())
    assert (request.max_tokens, [one.path for one in request.ignored]) == (None, [name])


@pytest.mark.parametrize(
    "fields",
    [
        {"model": None, "models": ["m"]},
        {"response_format": {"type": "xml"}},
        {"tools": [{"type": "computer", "computer": {}}]},
        {"functions": [{"name": "f"}]},
        {"json_schema": {"type": "object"}},
        {"grammar": 'root ::= "yes"'},
        {"grammar": {"type": "regex", "value": "a"}},
        {"ebnf": 'root ::= "yes"'},
        {"regex": "a"},
        {"format": "json"},
    ],
)
def test_what_would_change_the_answer_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        parse(ChatRequest, json.dumps({"model": "m", "messages": HI, **fields}).encode())


@pytest.mark.parametrize(
    ("fields", "instead"),
    [
        ({"json_schema": {"type": "object"}}, "response_format"),
        ({"grammar": 'root ::= "yes"'}, "guided_grammar"),
        ({"regex": "a"}, "guided_regex"),
    ],
)
def test_another_servers_word_for_the_form_of_an_answer_is_told_by_ours(fields: dict[str, object], instead: str) -> None:
    with pytest.raises(BadRequest, match=instead) as caught:
        parse(ChatRequest, json.dumps({"model": "m", "messages": HI, **fields}).encode())
    assert (caught.value.param, caught.value.code) == (next(iter(fields)), "unsupported_parameter")


@pytest.mark.parametrize("sent", [[1, 2], [[1, 2], [3]]])
async def test_token_ids_of_who_knows_which_tokenizer_are_refused(gateway: Served, sent: list[Any]) -> None:
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION))
    async with gateway.http.post(f"{gateway.url}/v1/embeddings", json={"model": "m", "input": sent}) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["param"], error["code"]) == (400, "input", "token_ids")
    assert "check_embedding_ctx_length=False" in error["message"]


@pytest.mark.parametrize("sent", [[True, False], [[1, True]]])
def test_true_is_no_token_id(sent: list[Any]) -> None:
    with pytest.raises(BadRequest, match=r"input.*integer"):
        parse(EmbeddingRequest, json.dumps({"model": "m", "input": sent, "encoding": "model"}).encode())
    with pytest.raises(BadRequest, match=r"prompt.*integer"):
        parse(CompletionRequest, json.dumps({"model": "m", "prompt": sent}).encode())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
async def test_numbers_that_are_none_are_no_answer(gateway: Served, bad: float) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), repeated({"EMBEDDING": numbers([0.1, bad, 0.2])}))
    async with gateway.http.post(url, json={"inputs": "a"}) as answer:
        said = await answer.json()
    assert (answer.status, said["type"]) == (502, "not_finite")
    assert "EMBEDDING" in said["error"]
    async with gateway.http.post(f"{gateway.url}/v1/embeddings", json={"model": "m", "input": "a"}) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"], answer.headers["x-should-retry"]) == (502, "not_finite", "false")
    url = gateway.serve(profile_of(Task.TEXT_CLASSIFICATION), repeated({"LABEL": texts(["a"]), "SCORE": numbers([bad])}))
    async with gateway.http.post(url, json={"inputs": "a"}) as answer:
        assert answer.status == 502
    assert gateway.controller.held == 0

"""Bodies of strangers at the neighbours' routes: whatever a field holds, it is refused or answered, and never a defect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelium.values import Task

from .openai_models import chat_model, saying, write_folder
from .ray_models import RANKER
from .stand_in import Served, numbers, profile_of, repeated, texts
from .test_gateway_rankings_and_images import by_length

MESSAGES: Any = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "/tokenize": {"model": "m", "prompt": "a", "messages": None, "tools": None, "chat_template_kwargs": None},
    "/detokenize": {"model": "m", "tokens": [3]},
    "/v1/score": {"model": "ranker", "text_1": "a", "text_2": ["b"]},
    "/v1/rerank": {"model": "ranker", "query": "a", "documents": ["b"], "top_n": 1},
    "/classify": {"model": "c", "input": "a"},
    "/pooling": {"model": "e", "input": "a", "task": None},
    "/api/chat": {"model": "m", "messages": MESSAGES, "tools": None, "options": None, "format": None, "think": None},
    "/api/generate": {"model": "m", "prompt": "a", "system": None, "images": None, "options": None, "raw": None},
    "/api/embed": {"model": "e", "input": "a", "dimensions": 2, "truncate": None, "options": None},
    "/api/embeddings": {"model": "e", "prompt": "a"},
    "/api/show": {"model": "m"},
    "/v1/messages": {"model": "m", "max_tokens": 1, "messages": MESSAGES, "system": None, "tools": None, "thinking": None},
    "/v1/messages/count_tokens": {"model": "m", "messages": MESSAGES, "tool_choice": None},
    "/v1/responses": {"model": "m", "input": "a", "tools": None, "tool_choice": None, "text": None, "reasoning": None},
    "/predict/m/generate": {"inputs": "a", "parameters": None},
    "/predict/e/embed": {"inputs": "a", "dimensions": None, "prompt_name": None},
    "/predict/ranker/rerank": {"query": "a", "texts": ["b"]},
    "/predict/c/predict": {"inputs": "a"},
    "/openai/deployments/m/chat/completions": {"messages": MESSAGES},
}
VALUES: list[Any] = [
    True, -1, 0, 2**70, 1e308, "", "\x00", "\ud800", "x" * 5000, [], [[]], [None], [{}], [[[["a"]]]], {}, {"a": [1]},
    {"type": "object"}, [{"type": "text"}], [{"role": "user"}], [{"role": "assistant", "content": []}],
    [{"type": "function_call"}], [{"type": "reasoning"}], [{"role": "user", "content": [{"type": "tool_result"}]}],
    [{"type": "function", "function": {"name": "f", "parameters": {"type": 3}}}],
]  # fmt: skip


@pytest.mark.parametrize("path", BODIES)
async def test_no_field_is_a_defect(gateway: Served, tmp_path: Path, path: str) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("x"))
    gateway.serve(RANKER)
    answer = {"LABEL": texts(["bad", "good"]), "SCORE": numbers([0.25, 0.75])}
    embedded = {"EMBEDDING": numbers([3, 4, 0])}
    gateway.serve(profile_of(Task.TEXT_CLASSIFICATION, "c", labels=("bad", "good")))
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, "e"))
    gateway.triton.answerer = lambda inputs: (
        by_length(inputs)
        if "DOCUMENTS" in inputs
        else repeated(answer if path.endswith(("classify", "predict")) else embedded)(inputs)
    )
    bodies = [BODIES[path] | {field: value} for field in BODIES[path] for value in VALUES]
    for body in [json.dumps(body).encode() for body in bodies] + [b"", b"[", b"[]", b"[" * 10_000, b'"a"', b"\xff"]:
        async with gateway.http.post(gateway.url + path, data=body, headers={"Content-Type": "application/json"}) as said:
            assert said.status < 500, (body[:300], await said.text())
    assert gateway.controller.held == 0

"""Routes of Hugging Face's servers below a model's own address."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelium.values import Task

from .openai_models import chat_model, saying, write_folder
from .ray_models import RANKER, post
from .stand_in import Served, numbers, profile_of, repeated, texts
from .test_gateway_rankings_and_images import by_length


async def test_a_text_whole_and_in_events(gateway: Served, tmp_path: Path) -> None:
    url = gateway.serve_vllm(chat_model(write_folder(tmp_path / "m")), saying("Hel", "lo"))
    for stream in (None, True):
        assert await post(gateway, f"{url}/generate", {"inputs": "hi", "stream": stream}) == (200, {"generated_text": "Hello"})
    status, said = await post(gateway, f"{url}/generate", {"inputs": "hi", "parameters": {"details": True}})
    assert (status, said["details"]["generated_tokens"]) == (200, 2)
    async with gateway.http.post(f"{url}/generate_stream", json={"inputs": "hi"}) as answer:
        assert answer.content_type == "text/event-stream"
        events = [json.loads(line.removeprefix(b"data:")) async for line in answer.content if line.strip()]
    assert [event["token"]["text"] for event in events] == ["Hel", "lo"]
    assert events[-1]["generated_text"] == "Hello"


async def test_a_label_goes_in_front_of_the_route(gateway: Served, tmp_path: Path) -> None:
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m"), "org--m"), saying("x"))
    status, said = await post(gateway, f"{gateway.url}/predict/org/m/generate", {"inputs": "hi"})
    assert (status, said) == (200, {"generated_text": "x"})


async def test_vectors(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), repeated({"EMBEDDING": numbers([3, 4, 0])}))
    assert await post(gateway, f"{url}/embed", {"inputs": "a"}) == (200, [[3, 4, 0]])
    assert b'"normalize":true' in gateway.triton.seen[0]["PARAMETERS"].item(0)
    status, said = await post(gateway, f"{url}/embed", {"inputs": ["a", "b"], "normalize": False, "dimensions": 2})
    assert (status, said) == (200, [pytest.approx([0.6, 0.8])] * 2)
    assert b'"normalize":false' in gateway.triton.seen[1]["PARAMETERS"].item(0)


async def test_rankings(gateway: Served) -> None:
    url = gateway.serve(RANKER, by_length)
    body = {"query": "q", "texts": ["a", "ccc", "bb"], "return_text": True}
    status, said = await post(gateway, f"{url}/rerank", body)
    assert status == 200
    assert said == [
        {"index": 1, "score": 3.0, "text": "ccc"},
        {"index": 2, "score": 2.0, "text": "bb"},
        {"index": 0, "score": 1.0, "text": "a"},
    ]


async def test_labels(gateway: Served) -> None:
    answer = {"LABEL": texts(["bad", "good"]), "SCORE": numbers([0.25, 0.75])}
    url = gateway.serve(profile_of(Task.TEXT_CLASSIFICATION, labels=("bad", "good")), repeated(answer))
    best = [{"label": "good", "score": 0.75}, {"label": "bad", "score": 0.25}]
    assert await post(gateway, f"{url}/predict", {"inputs": "a"}) == (200, best)
    assert await post(gateway, f"{url}/predict", {"inputs": ["a", "b"]}) == (200, best)
    assert gateway.triton.seen[-1]["TEXT_PAIR"].tolist() == [[b"b"]]
    assert await post(gateway, f"{url}/predict", {"inputs": [["a"], ["b"]], "raw_scores": True}) == (200, [best, best])
    assert b'"function_to_apply":"none"' in gateway.triton.seen[-1]["PARAMETERS"].item(0)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("embed", {"inputs": 3}),
        ("embed", {}),
        ("rerank", {"query": "q", "texts": []}),
        ("rerank", {"query": "q", "texts": ["a"], "raw_scores": True}),
        ("predict", {"inputs": ["a", "b", "c"]}),
        ("predict", {"inputs": [["a", "b", "c"]]}),
    ],
)
async def test_what_does_not_fit_asks_no_model(gateway: Served, path: str, body: dict[str, Any]) -> None:
    tasks = {"embed": Task.FEATURE_EXTRACTION, "rerank": Task.TEXT_RANKING, "predict": Task.TEXT_CLASSIFICATION}
    url = gateway.serve(profile_of(tasks[path]))
    status, said = await post(gateway, f"{url}/{path}", body)
    assert status == 400 and isinstance(said["error"], str)
    assert not gateway.triton.seen


@pytest.mark.parametrize("path", ["embed", "rerank", "predict"])
async def test_a_model_that_does_something_else_says_what(gateway: Served, path: str) -> None:
    url = gateway.serve(profile_of(Task.FILL_MASK))
    status, said = await post(gateway, f"{url}/{path}", {"inputs": "a", "query": "q", "texts": ["a"]})
    assert status == 400 and "fill-mask" in said["error"]

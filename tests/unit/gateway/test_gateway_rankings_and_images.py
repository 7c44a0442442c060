"""Cross-encoders and pipelines that paint, at ``/predict``: what reaches them, what comes back, which bodies are refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from modelium.errors import InferenceFailed
from modelium.signatures import signature

from .ray_models import PAINTER, RANKER, post, read
from .stand_in import Served, Tensors, numbers, texts

PNG = b"\x89PNG\r\n\x1a\n\x00\xff picture"


def by_length(inputs: Tensors) -> Tensors:
    """A ranker that likes long documents; padding has no part in its answer."""
    documents = inputs["DOCUMENTS"].tolist()
    return {
        "SCORE": numbers(*([float(len(text)) for text in row] for row in documents)),
        "COUNT": numbers(*([sum(text != b"" for text in row)] for row in documents), dtype=np.int32),
    }


def ranked(*places: int, scores: dict[int, float]) -> list[dict[str, float]]:
    return [{"index": place, "score": scores[place]} for place in places]


# -- rankings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["documents", "texts"])
async def test_documents_come_best_first_each_with_its_place(gateway: Served, word: str) -> None:
    url = gateway.serve(RANKER, by_length)
    body = {"inputs": {"query": "größe", word: ["a", "ccc", "bb"]}}
    assert await post(gateway, url, body) == (200, ranked(1, 2, 0, scores={0: 1.0, 1: 3.0, 2: 2.0}))
    (seen,) = gateway.triton.seen
    assert set(seen) <= {tensor.name for tensor in signature(RANKER).inputs}
    assert (seen["QUERY"].tolist(), seen["DOCUMENTS"].tolist()) == ([["größe".encode()]], [[b"a", b"ccc", b"bb"]])


@pytest.mark.parametrize("most", [1, 2, 32])
async def test_a_list_of_queries_gets_a_list_whatever_the_batches(gateway: Served, most: int) -> None:
    url = gateway.serve(RANKER, by_length, max_batch_size=most)
    inputs = [
        {"query": "q", "documents": ["a", "bb"]},
        {"query": "r", "documents": ["ccc"]},
        {"query": "s", "texts": ["d"] * 4},
    ]
    assert await post(gateway, url, {"inputs": inputs}) == (
        200,
        [
            ranked(1, 0, scores={0: 1.0, 1: 2.0}),
            ranked(0, scores={0: 3.0}),
            ranked(0, 1, 2, 3, scores=dict.fromkeys(range(4), 1.0)),
        ],
    )


async def test_top_k_cuts_a_ranking_off_and_equals_keep_their_order(gateway: Served) -> None:
    url = gateway.serve(RANKER, by_length)
    inputs = {"query": "q", "documents": ["a", "b", "cc", "d"]}
    scores = {0: 1.0, 1: 1.0, 2: 2.0, 3: 1.0}
    for count, places in ((1, (2,)), (3, (2, 0, 1)), (9, (2, 0, 1, 3))):
        body = {"inputs": inputs, "parameters": {"top_k": count}}
        assert await post(gateway, url, body) == (200, ranked(*places, scores=scores))
    assert await post(gateway, url, {"inputs": [inputs], "parameters": {"top_k": 1}}) == (200, [ranked(2, scores=scores)])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": "q"}, "inputs: expected an object with query, documents, found a string"),
        ({"inputs": {"query": "q"}}, "inputs.documents: is missing"),
        ({"inputs": {"documents": ["a"]}}, "inputs.query: is missing"),
        ({"inputs": {"query": "q", "documents": []}}, "inputs.documents: the list is empty"),
        ({"inputs": {"query": "q", "documents": "a"}}, "inputs.documents: expected a list of strings, found a string"),
        ({"inputs": {"query": "q", "documents": [{"text": "a"}]}}, "inputs.documents[0]: expected a string, found an object"),
        ({"inputs": {"query": ["q"], "documents": ["a"]}}, "inputs.query: expected a string, found a list"),
        ({"inputs": {"query": "q", "documents": ["a", ""]}}, "inputs.documents[1]: is empty"),
        ({"inputs": [{"query": "q", "texts": ["a"]}, {"query": "q", "texts": [1]}]}, "inputs[1].texts[0]: expected a string"),
        ({"inputs": {"query": "q", "document": ["a"]}}, "inputs.document: unknown field; did you mean 'documents'?"),
        ({"inputs": []}, "inputs: the list is empty"),
        ({"query": "q", "documents": ["a"]}, "query: unknown field"),
        ({"inputs": {"query": "q", "documents": ["a"]}, "parameters": {"top_k": 0}}, "parameters.top_k: must be at least 1"),
        ({"inputs": {"query": "q", "documents": ["a"]}, "parameters": {"top_n": 1}}, "parameters.top_n: unknown parameter"),
    ],
)  # fmt: skip
async def test_a_wrong_ranking_is_refused_with_its_place_and_loads_nothing(
    gateway: Served, body: dict[str, object], said: str
) -> None:
    url = gateway.serve(RANKER, by_length)
    gateway.controller.refuse = AssertionError("a lease was taken")
    status, answer = await post(gateway, url, body)
    assert (status, answer["type"]) == (422, "invalid_body")
    assert said in answer["error"]


# -- images --------------------------------------------------------------------------------------------------------------


def painted(image: bytes = PNG) -> Tensors:
    array = np.empty((1, 1), dtype=np.object_)
    array[0, 0] = image
    return {"IMAGE": array}


async def test_a_text_is_answered_by_the_image_itself(gateway: Served) -> None:
    url = gateway.serve(PAINTER, lambda _: painted())
    async with gateway.http.post(url, json={"inputs": "ein grünes Haus"}) as response:
        assert await read(response) == (200, "image/png", PNG)
        assert (response.headers["Content-Length"], response.headers["X-Modelium-Waited-Ms"]) == (str(len(PNG)), "0")
        assert response.headers["X-Request-Id"]
    (seen,) = gateway.triton.seen
    assert {name: array.tolist() for name, array in seen.items()} == {"PROMPT": [["ein grünes Haus".encode()]]}


async def test_what_is_said_of_the_image_reaches_the_pipeline_as_it_was_said(gateway: Served) -> None:
    url = gateway.serve(PAINTER, lambda _: painted())
    said: dict[str, Any] = {
        "negative_prompt": "blur",
        "height": 64,
        "width": 128,
        "num_inference_steps": 2,
        "guidance_scale": 0,
        "seed": 7,
    }
    async with gateway.http.post(url, json={"inputs": "x", "parameters": {**said, "scheduler": None}}) as response:
        assert response.status == 200
    ((sent,),) = gateway.triton.seen[-1]["PARAMETERS"].tolist()
    assert json.loads(sent) == said
    assert set(gateway.triton.seen[-1]) <= {tensor.name for tensor in signature(PAINTER).inputs}


async def test_a_load_that_an_image_waited_for_is_told(gateway: Served) -> None:
    url = gateway.serve(PAINTER, lambda _: painted())
    gateway.controller.cold_s = 2.5
    async with gateway.http.post(url, json={"inputs": "x"}) as response:
        assert (response.headers["X-Modelium-Cold"], response.headers["X-Modelium-Waited-Ms"]) == ("1", "2500")
        assert (await read(response))[2] == PNG


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "inputs: is missing"),
        ({"inputs": ["a house", "a cat"]}, "inputs: expected a string, found a list"),
        ({"inputs": {"prompt": "a house"}}, "inputs: expected a string, found an object"),
        ({"prompt": "a house"}, "prompt: unknown field"),
        ({"inputs": "x", "parameters": {"steps": 3}}, "parameters.steps: unknown parameter of text-to-image"),
        ({"inputs": "x", "parameters": {"scheduler": "ddim"}}, "parameters.scheduler: "),
        ({"inputs": "x", "parameters": {"height": 0}}, "parameters.height: must be at least 8, found 0"),
        ({"inputs": "x", "parameters": {"width": 64.5}}, "parameters.width: expected a whole number, found 64.5"),
        ({"inputs": "x", "parameters": {"num_inference_steps": 1001}}, "parameters.num_inference_steps: must be at most 1000"),
        ({"inputs": "x", "parameters": {"guidance_scale": -1}}, "parameters.guidance_scale: must be at least 0"),
        ({"inputs": "x", "parameters": {"guidance_scale": "high"}}, "parameters.guidance_scale: expected a number"),
        ({"inputs": "x", "parameters": {"seed": -1}}, "parameters.seed: must be at least 0, found -1"),
        ({"inputs": "x", "parameters": {"negative_prompt": 5}}, "parameters.negative_prompt: expected a string, found 5"),
        ({"inputs": "x", "stream": True}, "stream: answers are not streamed here"),
    ],
)  # fmt: skip
async def test_a_wrong_wish_for_an_image_is_refused_with_its_place_and_loads_nothing(
    gateway: Served, body: dict[str, object], said: str
) -> None:
    url = gateway.serve(PAINTER, lambda _: painted())
    gateway.controller.refuse = AssertionError("a lease was taken")
    status, answer = await post(gateway, url, body)
    assert (status, answer["type"]) == (422, "invalid_body")
    assert said in answer["error"]


async def test_an_image_makes_no_image(gateway: Served) -> None:
    url = gateway.serve(PAINTER, lambda _: painted())
    status, answer = await post(gateway, url, PNG, headers={"Content-Type": "image/png"})
    assert (status, answer["type"]) == (422, "invalid_body")
    assert "this model does text-to-image; send JSON" in answer["error"]


async def test_what_the_pipeline_says_of_a_size_is_json_again(gateway: Served) -> None:
    url = gateway.serve(PAINTER, lambda _: painted())
    gateway.triton.faults = [InferenceFailed("`height` and `width` have to be divisible by 8 but are 63 and 64.")]
    status, answer = await post(gateway, url, {"inputs": "x", "parameters": {"height": 63, "width": 64}})
    assert (status, answer["type"]) == (422, "inference_failed")
    assert "divisible by 8" in answer["error"]


# -- at OpenAI's doors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("completions", {"prompt": "x"}),
        ("embeddings", {"input": "x"}),
    ],
)
async def test_openais_routes_point_to_where_such_a_model_is_asked(gateway: Served, path: str, body: dict[str, object]) -> None:
    for profile in (RANKER, PAINTER):
        gateway.serve(profile, lambda _: {"TEXT": texts(["never"])})
        status, answer = await post(gateway, f"{gateway.url}/v1/{path}", {"model": profile.name, **body})
        assert (status, answer["error"]["code"]) == (400, "unsupported_model")
        assert f"ask POST /predict/{profile.name}" in answer["error"]["message"]
    assert gateway.triton.seen == []

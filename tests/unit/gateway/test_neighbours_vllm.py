"""vLLM's routes besides OpenAI's: tokens, scores, rankings, classes and pooled vectors, as its clients read them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelium.values import Task

from .openai_models import chat_model, write_folder
from .ray_models import RANKER, post
from .stand_in import Served, Tensors, numbers, profile_of, repeated, texts
from .test_gateway_rankings_and_images import by_length

LABELS = ("bad", "good", "odd")


async def ask(gateway: Served, path: str, **body: object) -> tuple[int, Any]:
    return await post(gateway, gateway.url + path, {"model": "m"} | body)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "m", bos=True)


# -- tokens --------------------------------------------------------------------------------------------------------


async def test_a_prompt_is_tokenized_as_the_engine_reads_it(gateway: Served, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder))
    status, body = await ask(gateway, "/tokenize", prompt="hello world", return_token_strs=True)
    assert (status, body) == (
        200,
        {"count": 3, "max_model_len": 512, "tokens": [0, 3, 4], "token_strs": ["<s>", "hello", "world"]},
    )
    status, body = await ask(gateway, "/tokenize", prompt="hello world", add_special_tokens=False)
    assert (body["tokens"], body["token_strs"]) == ([3, 4], None)
    status, body = await ask(gateway, "/tokenize", prompt="")
    assert (status, body["tokens"]) == (200, [0])
    assert not gateway.triton.seen, "nothing is asked of the model"


async def test_a_chat_is_tokenized_through_its_template(gateway: Served, tmp_path: Path) -> None:
    template = "{% for message in messages %}{{ message.content }} {% endfor %}{% if add_generation_prompt %}c{% endif %}"
    gateway.serve_vllm(chat_model(write_folder(tmp_path / "m", template, bos=True)))
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]
    assert (await ask(gateway, "/tokenize", messages=messages))[1]["tokens"] == [3, 4, 7]
    said = await ask(gateway, "/tokenize", messages=messages, add_generation_prompt=False, add_special_tokens=True)
    assert said[1]["tokens"] == [0, 3, 4]


async def test_tokens_become_text_again(gateway: Served, folder: Path) -> None:
    gateway.serve_vllm(chat_model(folder))
    assert await ask(gateway, "/detokenize", tokens=[3, 4]) == (200, {"prompt": "hello world"})
    assert await ask(gateway, "/detokenize", tokens=[]) == (200, {"prompt": ""})
    status, body = await ask(gateway, "/detokenize", tokens=[99])
    assert (status, body["error"]["param"]) == (400, "tokens")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "prompt"),
        ("/tokenize", {"prompt": 3}, "prompt"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": [True]}, "tokens.0"),
    ],
)
async def test_what_does_not_fit_is_named_in_openais_shape(
    gateway: Served, folder: Path, path: str, body: dict[str, object], param: str
) -> None:
    gateway.serve_vllm(chat_model(folder))
    status, said = await ask(gateway, path, **body)
    assert (status, said["error"]["type"], said["error"]["param"]) == (400, "invalid_request_error", param)


async def test_an_unknown_model_is_a_404_in_openais_shape(gateway: Served) -> None:
    for path, body in (("/tokenize", {"prompt": "a"}), ("/rerank", {"query": "q", "documents": ["d"]})):
        status, said = await ask(gateway, path, **body)
        assert (status, said["error"]["code"]) == (404, "model_not_found")


# -- scores and rankings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
async def test_documents_come_best_first(gateway: Served, path: str) -> None:
    gateway.serve(RANKER, by_length)
    documents = ["a", {"text": "ccc"}, {"content": [{"type": "text", "text": "bb"}]}]
    status, body = await ask(gateway, path, model="ranker", query="q", documents=documents, top_n=2)
    assert status == 200
    assert body["results"] == [
        {"index": 1, "document": {"text": "ccc"}, "relevance_score": 3.0},
        {"index": 2, "document": {"text": "bb"}, "relevance_score": 2.0},
    ]
    assert body["model"] == "ranker" and body["id"].startswith("rerank-")
    assert set(body["usage"]) == {"prompt_tokens", "total_tokens"}
    _, body = await ask(gateway, path, model="ranker", query="q", documents=documents, return_documents=False)
    assert body["results"][0] == {"index": 1, "relevance_score": 3.0}


async def test_more_documents_than_a_row_takes_go_out_in_several(gateway: Served) -> None:
    gateway.serve(RANKER, by_length)
    documents = ["x" * (1 + index % 7) for index in range(2500)]
    status, body = await ask(gateway, "/rerank", model="ranker", query="q", documents=documents)
    assert status == 200
    assert [one["relevance_score"] for one in sorted(body["results"], key=lambda one: one["index"])] == [
        float(len(text)) for text in documents
    ]
    assert max(seen["DOCUMENTS"].shape[1] for seen in gateway.triton.seen) <= 1000


@pytest.mark.parametrize(
    ("first", "second"), [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]
)
async def test_pairs_are_scored_under_each_pair_of_names(gateway: Served, first: str, second: str) -> None:
    gateway.serve(RANKER, by_length)
    for path in ("/score", "/v1/score"):
        status, body = await ask(gateway, path, model="ranker", **{first: "q", second: ["a", "ccc"]})
        assert status == 200
        assert body["data"] == [
            {"index": 0, "object": "score", "score": 1.0},
            {"index": 1, "object": "score", "score": 3.0},
        ]
    gateway.triton.seen.clear()
    _, body = await ask(gateway, "/score", model="ranker", **{first: ["p", "q"], second: ["bb", "a"]})
    assert [one["score"] for one in body["data"]] == [2.0, 1.0]
    assert gateway.triton.seen[0]["QUERY"].tolist() == [[b"p"], [b"q"]]
    status, body = await ask(gateway, "/score", model="ranker", **{first: ["p", "q"], second: ["a"] * 3})
    assert (status, body["error"]["param"]) == (400, first)


async def test_of_a_model_that_embeds_a_score_is_the_cosine(gateway: Served) -> None:
    vectors = {b"q": [1, 0, 0], b"a": [2, 0, 0], b"b": [0, 3, 0], b"c": [1, 1, 0]}

    def answer(inputs: Tensors) -> Tensors:
        return {"EMBEDDING": numbers(*(vectors[text] for (text,) in inputs["TEXT"].tolist()))}

    gateway.serve(profile_of(Task.FEATURE_EXTRACTION), answer)
    _, body = await ask(gateway, "/v1/score", text_1="q", text_2=["a", "b", "c"])
    assert [one["score"] for one in body["data"]] == pytest.approx([1, 0, 0.5**0.5])
    _, body = await ask(gateway, "/v1/rerank", query="q", documents=["b", "c", "a"], top_n=1)
    assert [one["index"] for one in body["results"]] == [2]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": "q", "documents": []}, "documents"),
        ({"query": "q", "documents": [""]}, "documents"),
        ({"query": "", "documents": ["a"]}, "query"),
        ({"query": "q"}, "documents"),
        ({"query": "q", "documents": ["a"], "top_n": -1}, "top_n"),
        ({"query": "q", "documents": [{"content": [{"type": "image_url"}]}]}, "documents"),
        ({"query": "q", "documents": ["a"], "use_activation": False}, "use_activation"),
    ],
)
async def test_a_ranking_that_does_not_fit_loads_nothing(gateway: Served, body: dict[str, object], param: str) -> None:
    gateway.serve(RANKER, by_length)
    status, said = await ask(gateway, "/v1/rerank", model="ranker", **body)
    assert (status, said["error"]["param"]) == (400, param)
    assert not gateway.triton.seen


async def test_a_model_that_does_something_else_says_what(gateway: Served) -> None:
    gateway.serve(profile_of(Task.FILL_MASK))
    for path, body in (
        ("/rerank", {"query": "q", "documents": ["a"]}),
        ("/classify", {"input": "a"}),
        ("/pooling", {"input": "a"}),
    ):
        status, said = await ask(gateway, path, **body)
        assert (status, said["error"]["code"]) == (400, "unsupported_model")
        assert "/predict/m" in said["error"]["message"]


# -- classes and vectors -------------------------------------------------------------------------------------------


def judge(gateway: Served) -> None:
    """Its answer comes best first, as transformers' pipeline gives it."""
    answer = {"LABEL": texts(["good", "odd", "bad"]), "SCORE": numbers([0.6, 0.3, 0.1])}
    gateway.serve(profile_of(Task.TEXT_CLASSIFICATION, labels=LABELS), repeated(answer))


async def test_classes_come_in_the_order_of_their_ids(gateway: Served) -> None:
    judge(gateway)
    status, body = await ask(gateway, "/classify", input=["a", "b"])
    assert status == 200
    for index, one in enumerate(body["data"]):
        assert (one["index"], one["label"], one["num_classes"]) == (index, "good", 3)
        assert one["probs"] == pytest.approx([0.1, 0.6, 0.3])
    await ask(gateway, "/classify", input="a", use_activation=False)
    assert b'"function_to_apply":"none"' in gateway.triton.seen[-1]["PARAMETERS"].item(0)


async def test_token_ids_are_those_of_the_models_tokenizer(gateway: Served, folder: Path) -> None:
    answer = {"LABEL": texts(["good"]), "SCORE": numbers([0.6])}
    gateway.serve(profile_of(Task.TEXT_CLASSIFICATION, path=folder, labels=("good",)), repeated(answer))
    for sent, read in (([3, 4], [b"hello world"]), ([[3], [5, 6]], [b"hello", b"a b"])):
        status, body = await ask(gateway, "/classify", input=sent)
        assert status == 200, body
        assert gateway.triton.seen[-1]["TEXT"].flatten().tolist() == read
    assert body["usage"]["prompt_tokens"] == 5  # the runtime writes the frame around each


async def test_pooling_is_what_the_head_gives(gateway: Served) -> None:
    judge(gateway)
    _, body = await ask(gateway, "/pooling", input="a")
    assert body["data"][0] == {"index": 0, "object": "pooling", "data": pytest.approx([0.1, 0.6, 0.3])}
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION), repeated({"EMBEDDING": numbers([1, 2, 3])}))
    _, body = await ask(gateway, "/pooling", input=["a", "b"], task="embed")
    assert [one["data"] for one in body["data"]] == [[1, 2, 3]] * 2
    _, body = await ask(gateway, "/pooling", input="a", encoding_format="base64")
    assert np.frombuffer(base64.b64decode(body["data"][0]["data"]), "<f4").tolist() == [1, 2, 3]
    _, body = await ask(gateway, "/pooling", input="a", dimensions=2)
    assert body["data"][0]["data"] == pytest.approx([1 / 5**0.5, 2 / 5**0.5])
    for wrong in ({"task": "token_embed"}, {"dimensions": 4}):
        status, body = await ask(gateway, "/pooling", input="a", **wrong)
        assert (status, body["error"]["param"]) == (400, next(iter(wrong)))
    status, body = await ask(gateway, "/pooling", input="a", task="classify")
    assert (status, body["error"]["param"]) == (400, "task")
    status, body = await ask(gateway, "/pooling", input=[])
    assert (status, body["error"]["param"]) == (400, "input")


@pytest.mark.parametrize("path", ["/tokenize", "/rerank", "/classify"])
async def test_large_and_broken_bodies_are_refused_in_openais_shape(gateway: Served, path: str) -> None:
    gateway.serve(RANKER, by_length)
    for body, status in ((b"{" * 10, 400), (b"[" * 100_001, 413), (b"[1]", 400), (b"", 400)):
        got, said = await post(gateway, gateway.url + path, body)
        assert (got, said["error"]["type"]) == (status, "invalid_request_error")

"""Clients of other servers against a whole Modelium: their routes and packages, unmodified, and what real models answer.

One Modelium for the module; each model is loaded by the first request that asks it.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.models import ensure_models, minilm, reference
from tests.models.language import LLAMA
from tests.models.language.corpus import CHATS
from tests.server.systems import HEAVY, System, system

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

NAMES = ("ranker", "classifier")


@pytest.fixture(scope="module")
def models() -> Path:
    return ensure_models(names=NAMES)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modelium(tmp_path_factory: pytest.TempPathFactory, models: Path, language_models: Path) -> AsyncIterator[System]:
    directory = tmp_path_factory.mktemp("neighbours")
    settings = {"load_on_discovery": False, "policies": HEAVY | {"evict_after_idle_seconds": 3600}}
    async with system(directory, devices={"host_memory": "12GiB"}, orchestration=settings) as running:
        folders = {LLAMA: language_models / LLAMA, "minilm": minilm()} | {name: models / name for name in NAMES}
        for name, folder in folders.items():
            beside = directory / name
            shutil.copytree(folder, beside)
            beside.rename(running.incoming / name)
        for name in folders:
            await running.becomes(name, "UNLOADED")
        yield running


# -- vLLM ----------------------------------------------------------------------------------------------------------


async def test_tokens_are_those_that_the_model_reads(modelium: System) -> None:
    """A chat's prompt has as many as the engine says that it read."""
    messages = CHATS[1][0]
    status, tokens = await modelium.post("/tokenize", {"model": LLAMA, "messages": messages})
    assert status == 200
    _, text = await modelium.post("/detokenize", {"model": LLAMA, "tokens": tokens["tokens"]})
    _, again = await modelium.post("/tokenize", {"model": LLAMA, "prompt": text["prompt"], "add_special_tokens": False})
    assert again["tokens"] == tokens["tokens"]
    assert (await modelium.get(f"/models/{LLAMA}"))["state"] == "UNLOADED", "to tokenize loads nothing"
    _, chat = await modelium.post("/v1/chat/completions", {"model": LLAMA, "messages": messages, "max_tokens": 2})
    assert chat["usage"]["prompt_tokens"] == tokens["count"] == len(tokens["tokens"])


async def test_a_ranker_scores_as_sentence_transformers(modelium: System, models: Path) -> None:
    case: Any = reference(models, "ranker")["cases"][0]
    query, documents, scores = case["inputs"]["QUERY"], case["inputs"]["DOCUMENTS"], case["answer"]
    status, ranked = await modelium.post("/v1/rerank", {"model": "ranker", "query": query, "documents": documents})
    assert status == 200, ranked
    found = {one["index"]: one["relevance_score"] for one in ranked["results"]}
    assert [found[index] for index in range(len(documents))] == pytest.approx(scores, abs=1e-5)
    assert [one["relevance_score"] for one in ranked["results"]] == sorted(found.values(), reverse=True)
    assert ranked["usage"]["prompt_tokens"] > 0
    _, pairs = await modelium.post("/v1/score", {"model": "ranker", "text_1": query, "text_2": documents})
    assert [one["score"] for one in pairs["data"]] == pytest.approx(scores, abs=1e-5)


async def test_a_model_that_embeds_scores_by_cosine(modelium: System) -> None:
    texts = ["A cat sits on the mat.", "A kitten lies on a rug.", "Interest rates rose again."]
    _, answer = await modelium.post("/score", {"model": "minilm", "text_1": texts[0], "text_2": texts})
    same, near, far = (one["score"] for one in answer["data"])
    assert same == pytest.approx(1, abs=1e-5) and near > 0.5 > far
    _, pooled = await modelium.post("/pooling", {"model": "minilm", "input": texts[0]})
    _, embedded = await modelium.post("/v1/embeddings", {"model": "minilm", "input": texts[0]})
    assert pooled["data"][0]["data"] == pytest.approx(embedded["data"][0]["embedding"], abs=1e-6)


async def test_a_classifier_gives_its_labels_in_order(modelium: System, models: Path) -> None:
    case: Any = reference(models, "classifier")["cases"][0]
    status, answer = await modelium.post("/classify", {"model": "classifier", "input": case["inputs"]["TEXT"]})
    assert status == 200, answer
    [one] = answer["data"]
    _, predicted = await modelium.post("/predict/classifier", {"inputs": case["inputs"]["TEXT"]})
    assert one["label"] == predicted[0][0]["label"]
    assert sorted(one["probs"], reverse=True) == pytest.approx([each["score"] for each in predicted[0]], abs=1e-6)

"""/score, /rerank and /pooling of Modelium and of vLLM's own server of the installed version, beside each other: the same
request, the same shape, the same values. One model that embeds; of such a model a score is the cosine.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.models import minilm
from tests.server.beside import vllm_server
from tests.server.systems import HEAVY, system

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

NAME = "minilm"
QUESTION, ANSWERS = "Which animal purrs?", ["A dog barks.", "A cat purrs.", "The stock market fell."]
OURS = frozenset({"id", "created"})


@dataclass
class Pair:
    """Two servers of one model."""

    http: aiohttp.ClientSession
    modelium: str
    vllm: str

    async def ask(self, path: str, body: dict[str, Any]) -> list[tuple[int, Any]]:
        """The status and the answer of Modelium, then of vLLM."""
        answers = []
        for url in (self.modelium, self.vllm):
            async with self.http.post(url + path, json={"model": NAME, **body}) as answer:
                answers.append((answer.status, await answer.json()))
        return answers

    async def agree(self, path: str, body: dict[str, Any]) -> Any:
        """Both answer the same; gives Modelium's answer."""
        (here, ours), (there, theirs) = await self.ask(path, body)
        assert (here, there) == (200, 200), (ours, theirs)
        check_alike(ours, theirs, "")
        return ours


def check_alike(ours: Any, theirs: Any, place: str) -> None:
    """The same names, the same words, numbers as far as two runtimes agree; what is null counts as not there."""
    match ours, theirs:
        case dict(), dict():
            both = [
                {name: value for name, value in one.items() if name not in OURS and value is not None} for one in (ours, theirs)
            ]
            assert both[0].keys() == both[1].keys(), place
            for name in both[0]:
                check_alike(both[0][name], both[1][name], f"{place}.{name}")
        case list(), list():
            assert len(ours) == len(theirs), place
            for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
                check_alike(one, other, f"{place}[{index}]")
        case float() | int(), float() | int():
            assert ours == pytest.approx(theirs, abs=2e-3), place
        case _:
            assert ours == theirs, place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    directory = tmp_path_factory.mktemp("pooling")
    settings = {"load_on_discovery": False, "policies": HEAVY | {"evict_after_idle_seconds": 3600}}
    async with (
        aiohttp.ClientSession() as http,
        vllm_server(http, minilm(), NAME, "--runner", "pooling", "--enforce-eager") as server,
        system(directory, devices={"host_memory": "6GiB"}, orchestration=settings) as running,
    ):
        shutil.copytree(minilm(), directory / NAME)
        (directory / NAME).rename(running.incoming / NAME)
        await running.becomes(NAME, "UNLOADED")
        await server.up()
        yield Pair(http=http, modelium=running.running.gateway_url, vllm=server.url)


@pytest.mark.parametrize(
    "body",
    [
        {"text_1": QUESTION, "text_2": ANSWERS},
        {"text_1": QUESTION, "text_2": ANSWERS[0]},
        {"queries": [QUESTION] * 3, "documents": ANSWERS},
        {"data_1": QUESTION, "data_2": ANSWERS},
        {"queries": QUESTION, "items": ANSWERS},
    ],
    ids=["one-and-many", "one-and-one", "many-and-many", "data", "items"],
)
async def test_scores(pair: Pair, body: dict[str, Any]) -> None:
    await pair.agree("/v1/score", body)


@pytest.mark.parametrize("more", [{}, {"top_n": 2}, {"top_n": 0}, {"top_n": 9}], ids=str)
async def test_rankings(pair: Pair, more: dict[str, Any]) -> None:
    answer = await pair.agree("/rerank", {"query": QUESTION, "documents": ANSWERS, **more})
    assert answer["results"][0]["document"]["text"] == "A cat purrs."


@pytest.mark.parametrize(
    "body",
    [{"input": QUESTION}, {"input": ANSWERS}, {"input": ANSWERS, "use_activation": False}],
    ids=["one", "three", "bare"],
)
async def test_vectors(pair: Pair, body: dict[str, Any]) -> None:
    await pair.agree("/pooling", {"task": "embed", **body})


async def test_token_ids(pair: Pair) -> None:
    """Those that /tokenize gives."""
    ids = [(await pair.agree("/tokenize", {"prompt": text}))["tokens"] for text in ANSWERS]
    for sent in (ids, ids[0]):
        await pair.agree("/pooling", {"task": "embed", "input": sent})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/score", {"text_1": QUESTION}),
        ("/v1/score", {"text_1": [QUESTION] * 2, "text_2": ANSWERS}),
        ("/rerank", {"query": QUESTION, "documents": ANSWERS, "top_n": -1}),
        ("/rerank", {"documents": ANSWERS}),
        ("/pooling", {"input": ANSWERS, "task": "classify"}),
        ("/pooling", {"input": ANSWERS, "task": "score"}),
        ("/pooling", {"input": ANSWERS, "encoding_format": "words"}),
    ],
    ids=str,
)
async def test_both_refuse(pair: Pair, path: str, body: dict[str, Any]) -> None:
    (here, ours), (there, theirs) = await pair.ask(path, body)
    assert (here, there) == (400, 400), (ours, theirs)

"""Other people's clients against a model that is loaded, is not, is being unloaded at that moment, and cannot be loaded: each
gets its answer or an error that says why, and none hangs.

These are some of those that ``make clients-matrix`` asks with, with small models alone; each runs in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.clients.asked import ADDER, CLIENTS, EMBEDS, At, Outcome
from tests.clients.matrix import Process, all_models
from tests.clients.states import State, asked_in, is_right, shows
from tests.server.systems import System

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

NAMES = (
    "tritonclient.http.aio infer",
    "tritonclient.grpc infer",
    "tritonclient.grpc stream_infer",
    "tritonclient.grpc.aio stream_infer",
    "huggingface_hub feature_extraction (async)",
    "openai embeddings",
    "ollama embed",
)
_NOBODYS_PAGE = 9  # no browser asks here


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modelium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with all_models(tmp_path_factory.mktemp("clients"), [ADDER, EMBEDS], _NOBODYS_PAGE) as (running, _):
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process() -> AsyncIterator[Process]:
    made = Process([sys.executable, "-m", "tests.clients.process"])
    yield made
    await made.end()


@pytest.mark.parametrize("name", NAMES)
async def test_a_client_gets_its_answer_or_the_right_error(
    modelium: System, process: Process, tmp_path: Path, name: str
) -> None:
    async def ask(model: str) -> Outcome:
        where = modelium.running
        at = At(http=where.gateway_url, grpc=where.grpc_url or "", model=model, files=str(tmp_path), page=_NOBODYS_PAGE)
        return await process.ask(name, at)

    for state in State:
        outcome = await asked_in(modelium, state, CLIENTS[name].model, ask)
        assert is_right(state, outcome) and not shows(outcome, modelium), (state, outcome)

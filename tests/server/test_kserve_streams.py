"""Streams over Triton's HTTP protocol, of a language model by vLLM: events pass as they come, and who hangs up is not waited
for."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.models.language import LLAMA
from tests.patience import PATIENCE_S
from tests.server.systems import HEAVY, System, system

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

TOKENS = 450  # more than are made before a hang-up is noticed


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modelium(tmp_path_factory: pytest.TempPathFactory, language_models: Path) -> AsyncIterator[System]:
    directory = tmp_path_factory.mktemp("streams")
    settings = {"load_on_discovery": False, "policies": HEAVY}
    async with system(directory, devices={"host_memory": "12GiB"}, orchestration=settings) as running:
        shutil.copytree(language_models / LLAMA, directory / LLAMA)
        (directory / LLAMA).rename(running.incoming / LLAMA)
        await running.becomes(LLAMA, "UNLOADED")
        yield running


def asked(tokens: int, *, stream: bool = True) -> dict[str, Any]:
    parameters = {"max_tokens": tokens, "min_tokens": tokens, "temperature": 0, "ignore_eos": True}
    return {"text_input": "Once upon a time", "stream": stream, "sampling_parameters": json.dumps(parameters)}


def url(modelium: System, verb: str, *, direct: bool = False) -> str:
    root = f"http://{modelium.running.server.http_url}" if direct else modelium.running.gateway_url
    return f"{root}/v2/models/{LLAMA}/{verb}"


async def test_events_are_tritons_own(modelium: System) -> None:
    """The first request loads the model."""
    found = []
    for direct in (False, True):
        async with modelium.http.post(url(modelium, "generate_stream", direct=direct), json=asked(8)) as answer:
            events = (await answer.read()).decode().split("\n\n")
            made = [json.loads(event.removeprefix("data: ")) for event in events if event]
            assert {tuple(event) for event in made} == {("model_name", "model_version", "text_output")}
            found.append((answer.status, answer.headers["Content-Type"], "".join(event["text_output"] for event in made)))
    assert found[0] == found[1]  # a busy engine puts two tokens into one event
    assert found[0][0] == 200 and found[0][1].startswith("text/event-stream") and found[0][2]
    async with modelium.http.post(url(modelium, "generate"), json=asked(8, stream=False)) as answer:
        assert (answer.status, (await answer.json(content_type=None))["model_name"]) == (200, LLAMA)
    async with modelium.http.post(url(modelium, "infer"), json={"inputs": []}) as answer:
        assert answer.status >= 400 and isinstance((await answer.json(content_type=None))["error"], str)


async def test_who_hangs_up_is_not_waited_for(modelium: System) -> None:
    """The lease is free at once, and the engine soon makes nothing more of it."""
    before = await counted(modelium, "generation_tokens_total")
    answer = await modelium.http.post(url(modelium, "generate_stream"), json=asked(TOKENS))
    assert answer.status == 200 and (await answer.content.readany()).startswith(b"data: ")
    assert (await modelium.get(f"/models/{LLAMA}"))["leases"] == 1
    answer.close()
    await modelium.becomes(LLAMA, "LOADED", lambda model: model["leases"] == 0)
    async with asyncio.timeout(PATIENCE_S):
        while await counted(modelium, "num_requests_running"):  # noqa: ASYNC110 — the truth lies in another process
            await asyncio.sleep(0.05)
    assert await counted(modelium, "generation_tokens_total") < before + TOKENS


async def counted(modelium: System, what: str) -> float:
    """What the engine's own metrics say."""
    async with modelium.http.get(f"http://{modelium.running.server.metrics_url}/metrics") as answer:
        found = re.findall(rf"^vllm:{what}{{.*}} (\S+)$", await answer.text(), re.MULTILINE)
    return sum(map(float, found))

"""A language model that is loaded anew beside its old revision, as when an adapter comes or goes: requests are answered all the
time, and what the old one takes with it is its own.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.models.language import ADAPTER, LLAMA, continuations
from tests.server.systems import HEAVY, System, system

pytestmark = pytest.mark.server

LOAD_S = 900.0
FLOAT32 = {"engine_args": {"dtype": "float32"}}


async def _asks(modelium: System, name: str, prompt: str, tokens: int) -> Any:
    body = {"inputs": prompt, "parameters": {"max_new_tokens": tokens}}
    status, answer = await modelium.post(f"/predict/{name}", body, headers={"X-Request-Timeout": str(LOAD_S)})
    assert status == 200, answer
    return answer[0]["generated_text"]


async def test_an_adapter_comes_and_goes_under_load(tmp_path: Path, language_models: Path) -> None:
    [of_base, *_] = continuations(language_models, LLAMA)
    [of_adapter, *_] = continuations(language_models, ADAPTER)
    folder = language_models / ADAPTER
    async with system(
        tmp_path, devices={"host_memory": "14GiB"}, models={LLAMA: FLOAT32}, orchestration={"policies": HEAVY}
    ) as modelium:
        server_pid = modelium.running.server.pid
        shutil.copytree(language_models / LLAMA, modelium.incoming / LLAMA)

        async def ask_until(loads: int) -> None:
            """The base answers, again and again, until that many loads are over and ten times more."""
            after = 0
            while after < 10:
                assert await _asks(modelium, LLAMA, of_base.prompt, of_base.max_new_tokens) == of_base.text
                seen = await modelium.get(f"/models/{LLAMA}")
                after += seen["loads"] >= loads
                # Without a pause the old engine takes the cores from the one that starts.
                await asyncio.sleep(0.05 if seen["loads"] >= loads else 1.0)

        await modelium.until(f"/models/{LLAMA}", lambda model: "state" in model, "the folder was seen")
        async with asyncio.timeout(LOAD_S):
            await ask_until(1)
        shutil.copytree(folder, modelium.incoming / ADAPTER)
        async with asyncio.timeout(LOAD_S):
            await ask_until(2)
        said = await _asks(modelium, f"{LLAMA}:{ADAPTER}", of_adapter.prompt, of_adapter.max_new_tokens)
        assert said == of_adapter.text
        shutil.rmtree(modelium.incoming / ADAPTER)
        async with asyncio.timeout(LOAD_S):
            await ask_until(3)
        assert modelium.running.server.pid == server_pid
        metrics = f"http://{modelium.running.server.metrics_url.removeprefix('http://')}/metrics"
        async with modelium.http.get(metrics) as response:
            lines = [line for line in (await response.text()).splitlines() if line.startswith("vllm:generation_tokens_total")]
        assert len(lines) == 1, lines  # of the revision that is here
        assert f'model="{LLAMA}"' in lines[0] and float(lines[0].split()[-1]) > 0

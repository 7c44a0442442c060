"""Language models in the whole loop: several engines and an embedding model side by side, one evicted and brought back, one
whose engine dies and is healed, one that is loaded anew beside its old revision when an adapter comes or goes.

Engines start one after the other, half a minute each where no nursery is warm yet, so these are two long stories of one
Modelium.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from modelium.devices import Devices, Process
from tests.models import minilm
from tests.models.language import ADAPTER, GPT2, LLAMA, Written, continuations
from tests.server.systems import HEAVY, System, system

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

PATIENCE_S = 900.0  # for an engine's start on a busy machine
PATIENT = {"X-Request-Timeout": str(PATIENCE_S)}


def _devices(modelium: System) -> Devices:
    """As that Modelium sees them, with who was born in its nurseries."""
    nursery = modelium.repository.parent / "state" / "nursery"
    return Devices(host_memory=None, gpu_memory_fraction=0.9, nursery=nursery)


def _processes(modelium: System, devices: Devices, name: str) -> tuple[Process, ...]:
    pid = modelium.running.server.pid
    assert pid is not None
    return devices.processes(pid).get(name, ())


def _command(process: Process) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modelium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    float32 = {"engine_args": {"dtype": "float32"}}
    async with system(
        tmp_path_factory.mktemp("loop"),
        devices={"host_memory": "14GiB"},
        models={LLAMA: float32, GPT2: float32},
        orchestration={
            "policies": HEAVY
            | {"evict_after_idle_seconds": 2, "unload_without_pressure": True, "always_loaded": [GPT2, "minilm"]}
        },
    ) as running:
        yield running


async def _writes(modelium: System, name: str, written: Written) -> None:
    body = {"inputs": written.prompt, "parameters": {"max_new_tokens": written.max_new_tokens}}
    answer = await modelium.post(f"/predict/{name}", body, headers=PATIENT)
    assert answer == (200, [{"generated_text": written.text}])


async def _recites(modelium: System, models: Path, name: str) -> None:
    await _writes(modelium, name, continuations(models, name)[0])


async def _embeds(modelium: System) -> None:
    status, answer = await modelium.post("/predict/minilm", {"inputs": "a cat"}, headers=PATIENT)
    assert status == 200 and len(answer) == 384


async def test_two_language_models_and_an_embedder_share_the_host(modelium: System, language_models: Path) -> None:
    for name, source in ((LLAMA, language_models / LLAMA), (GPT2, language_models / GPT2), ("minilm", minilm())):
        shutil.copytree(source, modelium.incoming / name)
    await modelium.until(f"/models/{LLAMA}", lambda model: "state" in model, "the folder was seen")
    await modelium.post(f"/models/{LLAMA}/pin")
    await asyncio.gather(
        _recites(modelium, language_models, LLAMA), _recites(modelium, language_models, GPT2), _embeds(modelium)
    )
    for name, runtime in ((LLAMA, "vllm"), (GPT2, "vllm"), ("minilm", "python")):
        seen = await modelium.get(f"/models/{name}")
        assert (seen["state"], seen["placement"]["runtime"]) == ("LOADED", runtime)

    # One idles too long: it goes, and all that it was.
    devices = _devices(modelium)
    engine = _processes(modelium, devices, LLAMA)
    assert any("EngineCore" in _command(process) for process in engine), [_command(p) for p in engine]
    held = devices.held_bytes([process.pid for process in engine], devices.fleet().devices[0])
    assert held > 100 * 2**20  # in a child of a nursery the cache, and little more
    await modelium.post(f"/models/{LLAMA}/unpin")
    evicted = await modelium.becomes(LLAMA, "UNLOADED")
    assert next(d for d in evicted["decisions"] if d["verb"] == "unload")["rule"] == "evict.5"
    assert not any(devices.alive(process) for process in engine)
    assert devices.held_bytes([process.pid for process in engine], devices.fleet().devices[0]) == 0
    assert (await modelium.get(f"/models/{GPT2}"))["state"] == "LOADED"
    await _recites(modelium, language_models, LLAMA)
    assert (await modelium.get(f"/models/{LLAMA}"))["loads"] == 2
    await modelium.post(f"/models/{LLAMA}/pin")  # it is to be there for the next test

    # The other's engine dies, with nobody asking: it is noticed, its remains are ended, and it answers again.
    remains = _processes(modelium, devices, GPT2)
    core = next(process for process in remains if "EngineCore" in _command(process))
    os.kill(core.pid, signal.SIGKILL)
    await modelium.becomes(GPT2, "LOADING")
    await _recites(modelium, language_models, GPT2)
    assert not any(devices.alive(process) for process in remains)


async def test_an_adapter_comes_and_goes_under_load(modelium: System, language_models: Path) -> None:
    """Requests are answered all the time, and what the old revision takes with it is its own."""
    server_pid = modelium.running.server.pid
    assert (await modelium.post(f"/models/{LLAMA}/pin"))[0] == 200  # or it is evicted between two requests
    await _recites(modelium, language_models, LLAMA)
    before = (await modelium.get(f"/models/{LLAMA}"))["loads"]

    async def ask_until(loads: int) -> None:
        """The base answers, again and again, until that many loads are over and ten times more."""
        after = 0
        while after < 10:
            await _recites(modelium, language_models, LLAMA)
            seen = await modelium.get(f"/models/{LLAMA}")
            after += seen["loads"] >= loads
            # Without a pause the old engine takes the cores from the one that starts.
            await asyncio.sleep(0.05 if seen["loads"] >= loads else 1.0)

    shutil.copytree(language_models / ADAPTER, modelium.incoming / ADAPTER)
    async with asyncio.timeout(PATIENCE_S):
        await ask_until(before + 1)
    await _writes(modelium, f"{LLAMA}:{ADAPTER}", continuations(language_models, ADAPTER)[0])
    shutil.rmtree(modelium.incoming / ADAPTER)
    async with asyncio.timeout(PATIENCE_S):
        await ask_until(before + 2)
    assert modelium.running.server.pid == server_pid
    metrics = f"http://{modelium.running.server.metrics_url.removeprefix('http://')}/metrics"
    async with modelium.http.get(metrics) as response:
        lines = [line for line in (await response.text()).splitlines() if line.startswith("vllm:generation_tokens_total")]
    of_base = [line for line in lines if f'model="{LLAMA}"' in line]
    assert len(of_base) == 1, lines  # of the revision that is here
    assert float(of_base[0].split()[-1]) > 0

"""Language models in the whole loop: several engines and an embedding model side by side, one evicted and brought back, one
whose engine dies and is healed. Engines start one after the other, half a minute each, so this is one long story.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path

import pytest

from modelium.devices import Devices, Process
from tests.models import minilm
from tests.models.language import GPT2, LLAMA, continuations
from tests.server.systems import HEAVY, System, system

pytestmark = pytest.mark.server

PATIENCE_S = 900.0  # for an engine's start on a busy machine
DEVICES = Devices(host_memory=None, gpu_memory_fraction=0.9)


def _processes(modelium: System, name: str) -> tuple[Process, ...]:
    pid = modelium.running.server.pid
    assert pid is not None
    return DEVICES.processes(pid).get(name, ())


def _command(process: Process) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


async def _recites(modelium: System, models: Path, name: str) -> None:
    [written, *_] = continuations(models, name)
    body = {"inputs": written.prompt, "parameters": {"max_new_tokens": written.max_new_tokens}}
    status, answer = await modelium.post(f"/predict/{name}", body, headers={"X-Request-Timeout": str(PATIENCE_S)})
    assert (status, answer) == (200, [{"generated_text": written.text}])


async def _embeds(modelium: System) -> None:
    status, answer = await modelium.post("/predict/minilm", {"inputs": "a cat"}, headers={"X-Request-Timeout": str(PATIENCE_S)})
    assert status == 200 and len(answer) == 384


async def test_two_language_models_and_an_embedder_share_the_host(tmp_path: Path, language_models: Path) -> None:
    float32 = {"engine_args": {"dtype": "float32"}}
    async with system(
        tmp_path,
        devices={"host_memory": "14GiB"},
        models={LLAMA: float32, GPT2: float32},
        orchestration={"policies": HEAVY | {"evict_after_idle_seconds": 2, "always_loaded": [GPT2, "minilm"]}},
    ) as modelium:
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
        engine = _processes(modelium, LLAMA)
        assert any("EngineCore" in _command(process) for process in engine), [_command(p) for p in engine]
        held = DEVICES.held_bytes([process.pid for process in engine], DEVICES.fleet().devices[0])
        assert held > 300 * 2**20
        await modelium.post(f"/models/{LLAMA}/unpin")
        evicted = await modelium.becomes(LLAMA, "UNLOADED")
        assert next(d for d in evicted["decisions"] if d["verb"] == "unload")["rule"] == "evict.5"
        assert not any(DEVICES.alive(process) for process in engine)
        assert DEVICES.held_bytes([process.pid for process in engine], DEVICES.fleet().devices[0]) == 0
        assert (await modelium.get(f"/models/{GPT2}"))["state"] == "LOADED"
        await _recites(modelium, language_models, LLAMA)
        assert (await modelium.get(f"/models/{LLAMA}"))["loads"] == 2

        # The other's engine dies, with nobody asking: it is noticed, its remains are ended, and it answers again.
        remains = _processes(modelium, GPT2)
        core = next(process for process in remains if "EngineCore" in _command(process))
        os.kill(core.pid, signal.SIGKILL)
        await modelium.becomes(GPT2, "LOADING")
        await _recites(modelium, language_models, GPT2)
        assert not any(DEVICES.alive(process) for process in remains)

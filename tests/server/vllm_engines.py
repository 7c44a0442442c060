"""What tests of the vLLM backend share: a Triton with engines, what is asked of them, and their processes.

Each engine is started once (half a minute).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil

from modelium.devices.nursery import Nursery
from modelium.resources import templates_directory
from modelium.triton.client import TritonClient
from tests.models.language import LLAMA
from tests.patience import PATIENCE_S
from tests.server.conftest import LOAD_S, Triton
from tests.server.language_plans import Planned, plan
from tests.server.loading import load

RUNNING = "vllm:num_requests_running"
WRITTEN = "vllm:generation_tokens_total"
ARRAYS = dict[str, Any]


@dataclass
class Engines:
    """A server and what a test does with its vLLM models."""

    triton: Triton
    repository: Path
    metrics_url: str
    http: aiohttp.ClientSession
    planned: dict[str, Planned] = field(default_factory=dict)
    logged: dict[str, str] = field(default_factory=dict)
    passing: list[str] = field(default_factory=list)

    @property
    def client(self) -> TritonClient:
        return self.triton.client

    async def run(self, name: str, parameters: str = "") -> Planned:
        """Load the model as Modelium plans it, with ``parameters`` added to its config.pbtxt; once."""
        if name not in self.planned:
            planned = plan(name, self.triton.models)
            entry = planned.write(self.triton.repository)
            with (entry / "config.pbtxt").open("a", encoding="utf-8") as config:
                config.write(parameters)
            log = self.triton.server.log_path
            before = log.stat().st_size
            await load(self.client, name, timeout_s=LOAD_S)
            self.logged[name] = log.read_bytes()[before:].decode(errors="replace")
            self.planned[name] = planned
        return self.planned[name]

    async def load_entry(self, name: str, arguments: Mapping[str, object]) -> None:
        """Load an entry of the template's with any ``model.json``."""
        directory = self.repository / name
        (directory / "1").mkdir(parents=True)
        shutil.copy(templates_directory() / "vllm" / "config.pbtxt", directory)
        (directory / "1" / "model.json").write_text(json.dumps(arguments), encoding="utf-8")
        await self.client.load(name, timeout_s=LOAD_S)

    def stream(self, name: str, inputs: dict[str, object]) -> AsyncGenerator[ARRAYS, None]:
        return self.client.stream(name, {key: tensor(value) for key, value in inputs.items()}, timeout_s=PATIENCE_S)

    async def ask(
        self, prompt: str, sampling: Mapping[str, object] | None = None, *, stream: bool = False, name: str = LLAMA
    ) -> list[ARRAYS]:
        inputs = {"text_input": prompt, "stream": stream, "sampling_parameters": json.dumps(sampling or {})}
        wanted = dict.fromkeys(RETURNS, True)
        return [answer async for answer in self.stream(name, {**inputs, "exclude_input_in_output": True, **wanted})]

    async def gauge(self, name: str, model: str = LLAMA) -> float:
        found = [line for line in await self.series(model) if line.startswith(f"{name}{{")]
        return float(found[0].rpartition(" ")[2])

    async def series(self, model: str) -> list[str]:
        """What Triton's /metrics shows of a model's engine."""
        async with self.http.get(f"{self.metrics_url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return [line for line in lines if line.startswith("vllm:") and f'model="{model}"' in line]

    async def until_running(self, count: int, name: str = LLAMA) -> None:
        await until(lambda: self.gauge(RUNNING, name), lambda value: value == count, f"{count} running")

    def processes(self, name: str) -> list[psutil.Process]:
        """The stub of a model, then who was born for it in a nursery, then its engine's processes."""
        place = str(self.repository / name)
        stubs = [one for one in psutil.process_iter() if "stub" in " ".join(cmdline(one)) and place in " ".join(cmdline(one))]
        nursery = Nursery(self.triton.server.nurseries.directory)
        born = [child.pid for child, stub in nursery.children().items() if stub.pid in [one.pid for one in stubs]]
        heads = [*stubs, *map(psutil.Process, born)]
        return [*heads, *(child for head in heads for child in head.children(recursive=True))]


RETURNS = (
    "return_finish_reason",
    "return_cumulative_logprob",
    "return_logprobs",
    "return_num_input_tokens",
    "return_num_output_tokens",
)


def tensor(value: object) -> Any:
    return np.array([value]) if isinstance(value, bool) else np.array([str(value).encode()], dtype=np.object_)


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def gone(processes: list[psutil.Process]) -> bool:
    return not any(map(lives, processes))


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it went between the two
        return False


def engine_process(processes: list[psutil.Process], title: str) -> psutil.Process:
    return next(one for one in processes if cmdline(one) and cmdline(one)[0].startswith(title))


async def until(look: Callable[[], Any], holds: Callable[[Any], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        seen = look()
        seen = await seen if asyncio.iscoroutine(seen) else seen
        if holds(seen):
            return
        assert time.monotonic() < deadline, f"never came true: {what}; last seen: {seen}"
        await asyncio.sleep(0.02)

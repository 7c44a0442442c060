"""A whole Modelium for one test: its own Triton, its own folders, free ports; spoken to as a user would, over HTTP.

The models are ONNX graphs of a few hundred bytes, so that a load takes as long as Triton and the runtime need and no longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import onnx
from onnx import TensorProto, helper

from modelium.app import Running, running
from modelium.config import Settings, TritonSettings
from tests import openapi
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parent.parent.parent
RUNTIME = Path(os.environ.get("MODELIUM_TEST_RUNTIME", ROOT / ".runtime"))
# Each check weighs the processes of all models, for which the kernel walks through their memory and holds up who maps more
# meanwhile: where torch is in them, five checks a second took a third of a core and slowed the loads that were waited for.
HEAVY = {"check_interval_seconds": 2.0}
_NEVER = aiohttp.ClientTimeout(total=None)  # a test has its own limit


def write_adder(path: Path, amount: float = 1.0, *, weight_floats: int = 1) -> Path:
    """``y = x + amount`` with dynamic batch, of as many weights as wanted, put into place by one rename."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])
    amount_tensor = helper.make_tensor("amount", TensorProto.FLOAT, [1], [amount])
    ballast = helper.make_tensor("ballast", TensorProto.FLOAT, [weight_floats], bytes(4 * weight_floats), raw=True)
    graph = helper.make_graph([helper.make_node("Add", ["x", "amount"], ["y"])], "adder", [x], [y], [amount_tensor, ballast])
    return save_graph(graph, path)


def write_counter(path: Path) -> Path:
    """``y`` = how often a loop turned, which ``x`` says: a request that takes as long as the test wants (some µs a turn)."""
    x = helper.make_tensor_value_info("x", TensorProto.INT64, [1])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, [1])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["goes_on"], ["still"]),
            helper.make_node("Add", ["count", "one"], ["more"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("count", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.INT64, [1]),
        ],
    )
    constants = [
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
        helper.make_tensor("scalar", TensorProto.INT64, [0], []),
    ]
    nodes = [
        helper.make_node("Reshape", ["x", "scalar"], ["turns"]),
        helper.make_node("Loop", ["turns", "yes", "zero"], ["y"], body=body),
    ]
    return save_graph(helper.make_graph(nodes, "counter", [x], [y], constants), path)


def write_unloadable(path: Path) -> Path:
    """A well-formed file whose only operator nobody has: it passes every look from outside, and its load fails."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])
    return save_graph(helper.make_graph([helper.make_node("NoSuchOperator", ["x"], ["y"])], "broken", [x], [y]), path)


def save_graph(graph: onnx.GraphProto, path: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(model.SerializeToString())
    beside.replace(path)
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A running Modelium and what a test does with it."""

    running: Running
    incoming: Path
    repository: Path
    http: aiohttp.ClientSession

    async def get(self, path: str) -> Any:
        async with self.http.get(self.running.gateway_url + path) as response:
            said = await response.read()
            openapi.check("get", path, response.status, response.content_type, said)
            return await response.json()

    async def post(self, path: str, body: object = None, *, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        async with self.http.post(self.running.gateway_url + path, json=body, headers=headers) as response:
            said = await response.read()
            openapi.check("post", path, response.status, response.content_type, said)
            return response.status, await response.json()

    async def add(self, name: str, x: float, *, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Ask an adder. Answers the status and ``y``, or the whole body of an error."""
        status, body = await self.post(f"/predict/{name}", {"inputs": {"x": [[x]]}}, headers=headers)
        return status, body["y"][0][0] if status == 200 else body

    async def becomes(self, name: str, state: str, holds: Callable[[Any], bool] = lambda model: True) -> Any:
        """Wait until a model is in ``state`` (and more holds), and return it as ``GET /models/NAME`` shows it."""
        return await self.until(
            f"/models/{name}", lambda model: model.get("state") == state and holds(model), f"{name} is {state}"
        )

    async def until(self, path: str, holds: Callable[[Any], bool], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            seen = await self.get(path)
            if holds(seen):
                return seen
            assert time.monotonic() < deadline, f"never came true: {what}; last seen: {seen}"
            await asyncio.sleep(0.05)

    def empty(self) -> None:
        """Take away all that was dropped."""
        for path in self.incoming.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    async def metrics(self) -> str:
        async with self.http.get(f"{self.running.metrics_url}/metrics") as response:
            return await response.text()


def _triton_in(directory: Path) -> dict[str, object]:
    """An embedded server with everything below ``directory`` and three free ports."""
    return {
        "http_url": "127.0.0.1:0",
        "grpc_url": "127.0.0.1:0",
        "metrics_url": "127.0.0.1:0",
        "model_repository": directory / "repository",
        "state_directory": directory / "state",
        "runtime_directory": RUNTIME,
    }


def settings_in(directory: Path, **changes: object) -> TritonSettings:
    """Those of such a server alone."""
    return TritonSettings.model_validate(_triton_in(directory) | changes)


def settings_of(directory: Path, **changes: Any) -> Settings:
    """Everything below ``directory``; ``changes`` are merged into the sections of the same names."""
    sections: dict[str, Any] = {
        "gateway": {"port": 0, "grpc_port": 0},
        "metrics": {"port": 0},
        "triton": _triton_in(directory),
        "devices": {"host_memory": "4GiB"},
        "orchestration": {
            "model_discovery": {"watch_directories": [directory / "incoming"], "scan_interval_seconds": 5},
            "policies": {"check_interval_seconds": 0.5, "retry_backoff_seconds": 0.05},
        },
    }
    for section, values in changes.items():
        _merge(sections.setdefault(section, {}), values)
    return Settings(**sections)


def _merge(target: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


@contextlib.asynccontextmanager
async def system(directory: Path, **changes: Any) -> AsyncIterator[System]:
    """A running system below ``directory``; with the same directory again, it is the same system after a restart."""
    settings = settings_of(directory, **changes)
    incoming = settings.orchestration.model_discovery.watch_directories[0]
    incoming.mkdir(parents=True, exist_ok=True)
    async with running(settings) as modelium, aiohttp.ClientSession(timeout=_NEVER) as http:
        made = System(running=modelium, incoming=incoming, repository=settings.triton.model_repository, http=http)
        await made.until("/health/ready", lambda health: bool(health["ready"]), "Modelium is ready")
        yield made

"""Devices against the real Triton: stubs and their offspring are found by model, weighed, and seen to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelium.devices import Devices, Process
from modelium.triton.client import TritonClient
from modelium.triton.embedded import EmbeddedServer
from tests.server.entries import write_model
from tests.server.loading import load
from tests.server.systems import settings_in

pytestmark = pytest.mark.server

ROOT = Path(__file__).parent.parent.parent
MIB = 2**20
# Each instance holds 100 MiB and has a child of its own.
HEAVY = """
import subprocess

class TritonPythonModel:
    def initialize(self, args):
        self.ballast = bytearray(b"x") * (100 * 2**20)
        self.child = subprocess.Popen(["sleep", "1000"])

    def execute(self, requests):
        raise RuntimeError("nobody asks this model")

    def finalize(self):
        self.child.kill()
        self.child.wait()
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
async def server(tmp_path: Path, repository: Path) -> AsyncIterator[EmbeddedServer]:
    """Two models whose names end like the names of instances do."""
    for name, count in (("bert_0", 2), ("bert_0_0", 1)):
        write_model(repository, name, HEAVY)
        config = repository / name / "config.pbtxt"
        config.write_text(config.read_text().replace("count: 1", f"count: {count}"))
    server = EmbeddedServer(settings_in(tmp_path, model_repository=repository))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server: EmbeddedServer) -> AsyncIterator[TritonClient]:
    client = TritonClient(http_url=server.http_url, grpc_url=server.grpc_url, headers=server.headers)
    yield client
    await client.close()


def end_of(devices: Devices, process: Process) -> asyncio.Event:
    ended = asyncio.Event()
    devices.watch_exit(process, ended.set)
    return ended


async def test_models_processes_are_found_weighed_and_seen_to_end(server: EmbeddedServer, client: TritonClient) -> None:
    devices = Devices(host_memory=None, gpu_memory_fraction=0.9)
    assert server.pid is not None
    assert devices.processes(server.pid) == {}
    for name in ("bert_0", "bert_0_0"):
        await load(client, name, timeout_s=240)

    found = devices.processes(server.pid)
    assert {name: len(processes) for name, processes in found.items()} == {"bert_0": 4, "bert_0_0": 2}
    host = devices.fleet().devices[0]
    held = {name: devices.held_bytes([p.pid for p in processes], host) for name, processes in found.items()}
    assert 200 * MIB < held["bert_0"] < 400 * MIB
    assert 100 * MIB < held["bert_0_0"] < 200 * MIB

    ends = [end_of(devices, process) for process in found["bert_0"]]
    await client.unload("bert_0")
    await asyncio.wait_for(asyncio.gather(*(ended.wait() for ended in ends)), 30)
    assert set(devices.processes(server.pid)) == {"bert_0_0"}
    assert all(map(devices.alive, found["bert_0_0"]))

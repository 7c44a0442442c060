"""What happens to a Ray of Modelium's own, each provoked: what the client sees, and that it heals.

Each a function that takes a running Modelium which has ``iris`` and ``greeter`` loaded: the module that loads them for its own
tests runs these too, for a Ray and its replicas take half a minute to start.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest

from modelium.devices import Devices
from tests.patience import PATIENCE_S
from tests.server.ray_apps import PATIENT, ROW, SETOSA, load
from tests.server.systems import System


def _replicas(name: str, modelium: System) -> list[int]:
    """The processes of a model's replicas, each one's first."""
    devices = Devices(host_memory=None, gpu_memory_fraction=0.9)
    owner = json.loads((modelium.repository.parent / "state" / "ledger.json").read_text())["owner"]
    return [replica.processes[0].pid for replica in devices.replicas(owner).get(name, ())]


def _ray_pid(state: Path, program: str) -> int:
    """Of the Ray that ``ray.json`` below ``state`` names: its GCS listens at that address."""
    port = int(json.loads((state / "ray.json").read_text())["address"].rpartition(":")[2])
    for process in psutil.process_iter(["name", "cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        if process.info["name"].startswith(program[:15]) and f"{port}" in words:
            return int(process.pid)
    raise AssertionError(f"no {program} with port {port}")


async def the_head_dies_its_models_say_so_and_come_back_with_every_request_answered(modelium: System) -> None:
    await load(modelium, "iris")
    await load(modelium, "greeter")
    gcs = _ray_pid(modelium.repository.parent / "state", "gcs_server")
    flying = [asyncio.create_task(modelium.post("/predict/iris", ROW, headers=PATIENT)) for _ in range(50)]
    await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
    os.kill(gcs, signal.SIGKILL)
    failed = await modelium.becomes("iris", "FAILED")
    assert "gcs_server" in failed["reason"] and not failed["quarantined"]
    asked = flying + [asyncio.create_task(modelium.post("/predict/iris", ROW, headers=PATIENT)) for _ in range(5)]
    assert await asyncio.gather(*asked) == [SETOSA] * 55
    await modelium.becomes("greeter", "LOADED")
    assert await modelium.post("/predict/greeter", {"name": "again"}) == (200, {"hello": "again"})
    seen = await modelium.get("/models")
    assert (seen["ray"]["state"], seen["ray"]["restarts"]) == ("up", 1)
    assert "modelium_ray_restarts_total 1.0" in await modelium.metrics()


async def a_replica_dies_and_no_request_is_lost(modelium: System) -> None:
    await load(modelium, "iris")
    (replica,) = _replicas("iris", modelium)
    asked = [asyncio.create_task(modelium.post("/predict/iris", ROW, headers=PATIENT)) for _ in range(100)]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    os.kill(replica, signal.SIGKILL)
    asked += [asyncio.create_task(modelium.post("/predict/iris", ROW, headers=PATIENT)) for _ in range(20)]
    assert await asyncio.gather(*asked) == [SETOSA] * 120
    seen = await modelium.get("/models/iris")
    assert (seen["state"], seen["failures"]) == ("LOADED", 0), "Ray has healed it, nobody loaded it again"
    assert _replicas("iris", modelium) != [replica]


async def a_replica_of_an_application_dies_and_its_client_is_told(modelium: System) -> None:
    await load(modelium, "greeter")
    (replica,) = _replicas("greeter", modelium)
    url = f"{modelium.running.gateway_url}/apps/greeter"
    here = await _here(modelium)
    waiting = asyncio.create_task(modelium.http.post(f"{url}/meet?99", headers=PATIENT))
    deadline = time.monotonic() + PATIENCE_S
    while await _here(modelium) == here:  # else it may come to the replica after this one
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
    async with modelium.http.get(f"{url}/words", headers=PATIENT) as response:
        assert await response.content.readany() == b"one "
        os.kill(replica, signal.SIGKILL)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    async with await waiting as response:
        status, answer = response.status, await response.text()
    assert status == 502 and "a replica of the application died while it answered" in answer, answer
    await _until_answered(modelium)


async def _here(modelium: System) -> int:
    """How many have come to meet."""
    async with modelium.http.get(f"{modelium.running.gateway_url}/apps/greeter/here", headers=PATIENT) as response:
        return int((await response.json())["here"])


async def _until_answered(modelium: System) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (await modelium.post("/predict/greeter", {"name": "x"}, headers=PATIENT)) != (200, {"hello": "x"}):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


async def the_process_in_triton_dies_and_its_application_goes_with_it(modelium: System) -> None:
    await load(modelium, "iris")
    (replica,) = _replicas("iris", modelium)
    pid = modelium.running.server.pid
    assert pid is not None
    (stub, *_) = Devices(host_memory=None, gpu_memory_fraction=0.9).processes(pid)["iris"]
    asked = [asyncio.create_task(modelium.post("/predict/iris", ROW, headers=PATIENT)) for _ in range(100)]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    os.kill(stub.pid, signal.SIGKILL)
    assert await asyncio.gather(*asked) == [SETOSA] * 100, "Triton never answers what its process had begun"
    deadline = time.monotonic() + PATIENCE_S
    while len(_replicas("iris", modelium)) != 1 or replica in _replicas("iris", modelium):
        assert time.monotonic() < deadline, "the replica of the dead process lives on"
        await asyncio.sleep(0.1)


async def a_broken_application_fails_with_its_cause_and_hurts_nobody(modelium: System) -> None:
    broken = modelium.incoming.parent / "broken"
    broken.mkdir()
    (broken / "serve_app.py").write_text("raise RuntimeError('no such café')\napp = 1\n", encoding="utf-8")
    broken.rename(modelium.incoming / "broken")
    await modelium.becomes("broken", "UNLOADED")
    status, said = await modelium.post("/models/broken/load", headers=PATIENT)
    assert status == 503 and "RuntimeError: no such café" in said["error"], said
    assert (await modelium.get("/models/broken"))["state"] == "FAILED"
    assert await modelium.post("/predict/iris", ROW, headers=PATIENT) == SETOSA


CHECKS: tuple[Callable[[System], Awaitable[None]], ...] = (
    the_head_dies_its_models_say_so_and_come_back_with_every_request_answered,
    a_replica_dies_and_no_request_is_lost,
    a_replica_of_an_application_dies_and_its_client_is_told,
    the_process_in_triton_dies_and_its_application_goes_with_it,
    a_broken_application_fails_with_its_cause_and_hurts_nobody,
)

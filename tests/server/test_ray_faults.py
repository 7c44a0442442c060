"""What happens to Ray, each provoked: what the client sees, and that it heals. The cluster of the second half is one that the
test starts, beside Modelium, as somebody else would.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio

from modelium.devices import Devices
from modelium.guarded.addresses import Address
from modelium.ray.launch import HeadLaunch, head_command, ray_environment
from modelium.runtime_env import inspect
from tests.models import ensure_models
from tests.server.ray_apps import GREETER
from tests.server.systems import HEAVY, PATIENCE_S, RUNTIME, System, system

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

PATIENT = {"X-Request-Timeout": "900"}
ROW = {"inputs": [[5.1, 3.5, 1.4, 0.2]]}
SETOSA = (200, ["setosa"])
SETTINGS: Any = {
    "devices": {"host_memory": "12GiB"},
    "orchestration": {"load_on_discovery": False, "policies": HEAVY | {"evict_after_idle_seconds": 3600}},
    "models": {"greeter": {"allow_custom_code": True}, "broken": {"allow_custom_code": True}},
}


@pytest.fixture(scope="module")
def iris() -> Path:
    return ensure_models(names=["iris"]) / "iris"


async def _drop(modelium: System, iris: Path, *names: str) -> None:
    for name in names:
        beside = modelium.incoming.parent / name
        if name == "greeter":
            beside.mkdir()
            (beside / "serve_app.py").write_text(GREETER, encoding="utf-8")
        else:
            shutil.copytree(iris, beside)
        beside.rename(modelium.incoming / name)
        await modelium.becomes(name, "UNLOADED")


async def _load(modelium: System, name: str) -> Any:
    status, seen = await modelium.post(f"/models/{name}/load", headers=PATIENT)
    assert status == 200, seen
    return seen


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


# -- a Ray of Modelium's own ---------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modelium(tmp_path_factory: pytest.TempPathFactory, iris: Path) -> AsyncIterator[System]:
    async with system(tmp_path_factory.mktemp("faults"), ray={"enabled": True}, **SETTINGS) as running:
        await _drop(running, iris, "iris", "greeter")
        yield running


async def test_the_head_dies_its_models_say_so_and_come_back_with_every_request_answered(modelium: System) -> None:
    await _load(modelium, "iris")
    await _load(modelium, "greeter")
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


async def test_a_replica_dies_and_no_request_is_lost(modelium: System) -> None:
    await _load(modelium, "iris")
    (replica,) = _replicas("iris", modelium)
    asked = [asyncio.create_task(modelium.post("/predict/iris", ROW, headers=PATIENT)) for _ in range(100)]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    os.kill(replica, signal.SIGKILL)
    asked += [asyncio.create_task(modelium.post("/predict/iris", ROW, headers=PATIENT)) for _ in range(20)]
    assert await asyncio.gather(*asked) == [SETOSA] * 120
    seen = await modelium.get("/models/iris")
    assert (seen["state"], seen["failures"]) == ("LOADED", 0), "Ray has healed it, nobody loaded it again"
    assert _replicas("iris", modelium) != [replica]


async def test_a_replica_of_an_application_dies_and_its_client_is_told(modelium: System) -> None:
    await _load(modelium, "greeter")
    (replica,) = _replicas("greeter", modelium)
    url = f"{modelium.running.gateway_url}/apps/greeter"
    waiting = asyncio.create_task(modelium.http.post(f"{url}/meet?99"))
    async with modelium.http.get(f"{url}/words") as response:
        assert await response.content.readany() == b"one "
        os.kill(replica, signal.SIGKILL)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    async with await waiting as response:
        status, answer = response.status, await response.text()
    assert status == 502 and "a replica of the application died while it answered" in answer, answer
    await _until_answered(modelium)


async def _until_answered(modelium: System) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (await modelium.post("/predict/greeter", {"name": "x"}, headers=PATIENT)) != (200, {"hello": "x"}):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


async def test_the_process_in_triton_dies_and_its_application_goes_with_it(modelium: System) -> None:
    await _load(modelium, "iris")
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


async def test_a_broken_application_fails_with_its_cause_and_hurts_nobody(modelium: System) -> None:
    broken = modelium.incoming.parent / "broken"
    broken.mkdir()
    (broken / "serve_app.py").write_text("raise RuntimeError('no such café')\napp = 1\n", encoding="utf-8")
    broken.rename(modelium.incoming / "broken")
    await modelium.becomes("broken", "UNLOADED")
    status, said = await modelium.post("/models/broken/load", headers=PATIENT)
    assert status == 503 and "RuntimeError: no such café" in said["error"], said
    assert (await modelium.get("/models/broken"))["state"] == "FAILED"
    assert await modelium.post("/predict/iris", ROW, headers=PATIENT) == SETOSA


# -- a cluster of somebody else's ----------------------------------------------------------------------------------------


@dataclass
class Cluster:
    """A head, and how to start it again at the same address."""

    launch: HeadLaunch
    log: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        report = inspect(RUNTIME)
        shutil.rmtree(self.launch.directory, ignore_errors=True)
        command = [word.replace("--num-cpus=64", "--num-cpus=4") for word in head_command(report, self.launch)]
        environment = ray_environment(report)
        with self.log.open("ab") as out:
            process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
        self.processes.append(process)

    def kill(self) -> None:
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                for each in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
            process.wait(10)
        self.processes.clear()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = Path(tempfile.mkdtemp(prefix="ray-test-", dir="/tmp"))  # short: sockets lie there
    ports = [_free_port() for _ in range(3)]
    gcs, dashboard, client = (Address(host="127.0.0.2", port=port) for port in ports)
    launch = HeadLaunch(gcs=gcs, dashboard=dashboard, client=client, directory=directory / "r", object_store_bytes=128 * 2**20)
    made = Cluster(launch=launch, log=directory / "head.log")
    made.start()
    yield made
    made.kill()
    shutil.rmtree(directory, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        return int(probe.getsockname()[1])


async def test_models_run_on_a_cluster_by_what_its_nodes_have_and_survive_its_end(
    tmp_path_factory: pytest.TempPathFactory, cluster: Cluster, iris: Path
) -> None:
    """The cluster is taken for one of other machines: its memory is a device, code travels there, replicas ask for
    resources."""
    directory = tmp_path_factory.mktemp("joined")
    chosen = {
        "enabled": True,
        "address": str(cluster.launch.gcs),
        "dashboard_url": f"http://{cluster.launch.dashboard}",
        "on_this_machine": False,
    }
    large: Any = {"ray": {"cpus_per_replica": 3}}
    settings: Any = SETTINGS | {
        "models": {"iris": large, "other": large, "greeter": {"allow_custom_code": True}},
        "orchestration": {"load_on_discovery": False, "policies": HEAVY | {"min_residence_seconds": 0}},
    }
    async with system(directory, ray=chosen, **settings) as modelium:
        await modelium.until("/models", lambda all: all["ray"]["state"] == "up", "the cluster was found")
        await _drop(modelium, iris, "iris", "other", "greeter")
        await _load(modelium, "iris")
        seen = await modelium.get("/models/iris")
        assert seen["placement"]["device"] == "ray" and seen["placement"]["replicas"]["cpus"] == 3
        # Two replicas of three CPUs do not fit on a node with four, however much memory it has.
        assert await modelium.post("/predict/other", ROW, headers=PATIENT) == SETOSA
        gone = await modelium.get("/models/iris")
        assert gone["state"] == "UNLOADED" and gone["decisions"][0]["rule"] == "evict.6"
        assert "Ray's nodes have no room for 3 CPU" in gone["decisions"][0]["reason"]
        assert (await modelium.post("/models/other/pin"))[0] == 200  # it is to be there when the cluster ends
        # Serve's proxy listens on the head alone: an application is asked from there.
        assert await modelium.post("/predict/greeter", {"name": "there"}, headers=PATIENT) == (200, {"hello": "there"})
        url = f"{modelium.running.gateway_url}/apps/greeter"
        async with modelium.http.get(f"{url}/words") as response:
            assert await response.content.readany() == b"one "
            async with modelium.http.post(f"{url}/go"):
                assert await response.content.read() == b"two "
        assert (await modelium.post("/models/greeter/unload"))[0] == 200

        cluster.kill()
        failed = await modelium.becomes("other", "FAILED")
        assert "Ray" in failed["reason"]
        waiting = asyncio.create_task(modelium.post("/predict/other", ROW, headers=PATIENT))
        cluster.start()
        assert await waiting == SETOSA
    # Nothing of ours stays on somebody else's cluster.
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://{cluster.launch.dashboard}/api/serve/applications/") as answer,
    ):
        assert (await answer.json())["applications"] == {}

"""A cluster that the test starts beside Modelium, as somebody else would: models run there, and survive its end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from modelium.guarded.addresses import claim_addresses
from modelium.ray.launch import HeadLaunch, head_command, ray_environment
from modelium.runtime_env import inspect
from tests.models import ensure_models
from tests.patience import PATIENCE_S
from tests.server.ray_apps import PATIENT, ROW, SETOSA, SETTINGS, drop, load
from tests.server.systems import HEAVY, RUNTIME, system

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def iris() -> Path:
    return ensure_models(names=["iris"]) / "iris"


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
            process.wait(PATIENCE_S)
        self.processes.clear()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = Path(tempfile.mkdtemp(prefix="ray-test-", dir="/tmp"))  # short: sockets lie there
    gcs, dashboard, client = claim_addresses(dict.fromkeys(("gcs", "dashboard", "client"), "127.0.0.2:0")).values()
    launch = HeadLaunch(gcs=gcs, dashboard=dashboard, client=client, directory=directory / "r", object_store_bytes=128 * 2**20)
    made = Cluster(launch=launch, log=directory / "head.log")
    made.start()
    yield made
    made.kill()
    shutil.rmtree(directory, ignore_errors=True)


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
        await drop(modelium, iris, "iris", "other", "greeter")
        await load(modelium, "iris")
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

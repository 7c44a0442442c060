"""What ``inspect``, ``render``, ``doctor`` and ``runtime show`` say of Ray: one of Modelium's own, and a cluster."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from modelium.cli import main, report
from modelium.cli.checks import Check, Outcome
from modelium.cli.ray_checks import ray_checks
from modelium.config import RaySettings
from modelium.repository.config import parse_config
from modelium.runtime_env import RuntimeReport
from tests.unit.cli.llama_folder import llama_8b
from tests.unit.ray.ray_stand_ins import GIB, VERSION, Json, StandInDashboard, dashboard, node

SERVE = {"ray": VERSION, "fastapi": "1", "uvicorn": "1", "aiohttp-cors": "1"}
LIBRARIES = {**SERVE, "lightgbm": "4.7.0", "scikit-learn": "1.9.1", "skops": "0.16.0"}
LEAVES = (
    "tree\nversion=v4\nnum_class=1\nobjective=regression\nfeature_names=age height\n\nTree=0\nx\n\n"
    "end of parameters\n\npandas_categorical:null\n"
)
APP = "from ray import serve\n\n\n@serve.deployment\nclass Greeter:\n    pass\n\n\napp = Greeter.bind()\n"


# -- a cluster's dashboard -----------------------------------------------------------------------------------------------


@pytest.fixture
def cluster() -> Iterator[StandInDashboard]:
    """Of a cluster with one node of 16 CPUs and 64 GiB. It answers beside the verbs, which have an event loop of their own."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        beside = threading.Thread(target=loop.run_forever)
        beside.start()
        running = dashboard(nodes=[machine("10.0.0.1")])
        try:
            yield asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result(10)
            asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result(10)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            beside.join()


def machine(address: str, *, memory: int = 64 * GIB, gpus: int = 0) -> Json:
    """A node a quarter of whose memory is taken; a GPU has 80 GiB."""
    return node(address, address, cpus=16, memory=memory, used=memory // 4, gpus=[(80 * 1024, 0)] * gpus)


def ray_at(cluster: StandInDashboard, **changes: object) -> dict[str, object]:
    """``ray:`` of a configuration that names it; its nodes are other machines."""
    named = {"enabled": True, "address": "10.0.0.1:6379", "dashboard_url": cluster.url, "on_this_machine": False}
    return {**named, **changes}


# -- this machine --------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)


@pytest.fixture
def leaves(tmp_path: Path) -> Path:
    """A whole model of LightGBM with two columns."""
    return _settled(tmp_path / "leaves", "model.txt", LEAVES)


def _settled(folder: Path, file: str, text: str) -> Path:
    """A folder in which nothing was written for an hour: so it is not taken for a copy under way."""
    folder.mkdir()
    (folder / file).write_text(text, encoding="utf-8")
    for path in (folder / file, folder):
        os.utime(path, (path.stat().st_mtime - 3600,) * 2)
    return folder


def configure(ray: object, *, packages: dict[str, str] | None = None, **others: object) -> None:
    """``modelium.yaml`` with ``ray:``. ``packages``: of the model runtime; None: Triton runs elsewhere."""
    triton: dict[str, object] = {"mode": "external", "backends": ["python", "vllm"]}
    if packages is not None:
        answer = {"version": [3, 11], "site_packages": "site", "library": "", "places": [], "packages": packages}
        python = Path("runtime/bin/python3")
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(answer)}\nEND\n", encoding="utf-8")
        python.chmod(0o755)
        triton = {"runtime_directory": "./runtime"}
    settings = {"ray": ray, "triton": triton, "devices": {"host_memory": "8GiB"}, **others}
    Path("modelium.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def inspected(capsys: pytest.CaptureFixture[str], path: Path, *, code: int = 0) -> Any:
    assert run("inspect", str(path), "--json") == code
    return json.loads(capsys.readouterr().out)


# -- inspect: a Ray of Modelium's own ------------------------------------------------------------------------------------


def test_inspect_says_why_a_model_goes_to_ray_and_what_it_would_take(leaves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure({"enabled": True, "max_replicas": 3, "cpus_per_replica": 0.5}, packages=LIBRARIES)
    assert run("inspect", str(leaves)) == 0
    shown = capsys.readouterr().out
    for words in (
        "2 (age, height)",
        "ray: LightGBM; no other runtime serves it",
        "host: 8.0 GiB free of 8.0 GiB for models",
        "for 3 replicas, each: weights",
        "Modelium's own, on this machine",
        "1 to 3, towards 2 requests at each",
        "0.5 CPU",
    ):
        assert words in shown


def test_inspect_as_json_has_the_replicas(leaves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure({"enabled": True}, packages=LIBRARIES, models={"leaves": {"ray": {"min_replicas": 2, "max_replicas": 2}}})
    found = inspected(capsys, leaves)
    assert (found["runtime"], found["runtime_rule"], found["device"], found["ray_address"]) == (
        "ray",
        "runtime.5",
        "host",
        "auto",
    )
    assert (found["replicas"]["min"], found["replicas"]["max"], found["replicas"]["ranks"]) == (2, 2, 1)
    assert found["columns"] == ["age", "height"]


def test_inspect_of_an_application_leaves_its_replicas_to_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure({"enabled": True}, packages=SERVE, models={"greeter": {"allow_custom_code": True}})
    assert run("inspect", str(_settled(tmp_path / "greeter", "serve_app.py", APP))) == 0
    shown = capsys.readouterr().out
    for words in ("serve_app:app", "bytes (89 B), its code", "an application of Ray Serve", "as its own deployments say"):
        assert words in shown
    assert "each asks for" not in shown


@pytest.mark.parametrize(
    ("ray", "packages", "words"),
    [
        ({}, LIBRARIES, "ray.enabled is false in the configuration: with `ray: {enabled: true}` Ray Serve would serve it"),
        ({"enabled": True}, {"torch": "2"}, "Ray is not in the model runtime: `modelium runtime install --with ray`"),
        ({"enabled": True}, {"ray": VERSION}, "without Ray Serve (fastapi is missing)"),
        ({"enabled": True}, SERVE, "the model runtime has no lightgbm: `modelium runtime install --with ray`"),
        ({"enabled": True}, None, "ray.address is auto, and Triton runs elsewhere"),
    ],
)
def test_inspect_says_what_keeps_a_model_from_ray(
    leaves: Path, capsys: pytest.CaptureFixture[str], ray: object, packages: dict[str, str] | None, words: str
) -> None:
    configure(ray, packages=packages)
    found = inspected(capsys, leaves, code=1)
    assert (found["runtime"], found["ray_address"], found["replicas"]) == (None, None, None)
    assert words in found["runtime_reason"]


# -- inspect and render: a cluster ---------------------------------------------------------------------------------------


def test_inspect_places_a_model_on_a_cluster_by_what_its_nodes_have(
    leaves: Path, cluster: StandInDashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(ray_at(cluster))
    assert run("inspect", str(leaves)) == 0
    shown = capsys.readouterr().out
    for words in ("the cluster at 10.0.0.1:6379", "ray: 48.0 GiB free of 64.0 GiB for models on Ray cluster, 1 node"):
        assert words in shown
    found = inspected(capsys, leaves)
    assert (found["device"], found["ray_address"]) == ("ray", "10.0.0.1:6379")
    assert found["replicas"]["cpus"] == 1 and found["replicas"]["memory_bytes"] == found["estimated_bytes"]


def test_a_share_of_a_clusters_gpu_is_told(leaves: Path, cluster: StandInDashboard, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.nodes = [machine("10.0.0.1"), machine("10.0.0.2", gpus=2)]
    configure(ray_at(cluster, gpus_per_replica=0.25))
    assert run("inspect", str(leaves)) == 0
    shown = capsys.readouterr().out
    assert "ray:cuda: 144.0 GiB free of 144.0 GiB for models on Ray cluster, 2 GPUs on 2 nodes" in shown
    assert "1 CPU, 0.25 GPU" in shown


def test_a_model_that_is_too_big_for_this_machine_goes_to_the_cluster(
    tmp_path: Path, cluster: StandInDashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    llama = llama_8b(tmp_path / "llama")
    cluster.nodes = [machine("10.0.0.1"), machine("10.0.0.2", gpus=1)]
    configure(ray_at(cluster))
    found = inspected(capsys, llama)
    assert (found["runtime"], found["runtime_rule"], found["device"]) == ("ray", "runtime.7", "ray:cuda")
    assert "larger than any device of this machine" in found["runtime_reason"]
    assert found["replicas"]["gpus"] > 0 and found["plan"]
    cluster.tokens.clear()
    assert run("inspect", str(llama), "--gpu", "80GiB", "--json") == 0
    assert json.loads(capsys.readouterr().out)["runtime"] == "vllm"
    assert cluster.tokens == [], "nobody is asked for what this machine can do"


def test_a_model_that_no_node_of_the_cluster_has_room_for_says_so(
    leaves: Path, cluster: StandInDashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.nodes = [machine("10.0.0.1", memory=GIB // 8), machine("10.0.0.2", memory=GIB // 8)]
    configure(ray_at(cluster))
    found = inspected(capsys, leaves, code=1)
    assert (found["runtime"], found["device"]) == ("ray", None)
    assert found["device_reason"] == "too big for any node of the Ray cluster: ray has 256 MiB for models"


def test_a_cluster_that_does_not_answer_is_said_in_place_of_a_device(
    leaves: Path, cluster: StandInDashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(ray_at(cluster))
    cluster.reaches_head = False
    found = inspected(capsys, leaves, code=1)
    assert found["device_reason"] == (
        "Ray is down: the head of the Ray cluster at 10.0.0.1:6379 does not answer its own dashboard"
    )
    assert run("render", str(leaves), "--out", "out") == 1
    assert "Ray is down" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_cluster_of_another_version_is_no_place(
    leaves: Path, cluster: StandInDashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.version = "2.55.1"
    configure(ray_at(cluster), packages=LIBRARIES)
    reason = inspected(capsys, leaves, code=1)["device_reason"]
    assert "runs Ray 2.55.1, the model runtime has 2.60.0; they have to be the same" in reason


def test_a_cluster_on_this_machine_is_this_machines_memory(
    leaves: Path, cluster: StandInDashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.nodes = [machine("127.0.0.2")]
    configure(ray_at(cluster, on_this_machine=None))
    assert inspected(capsys, leaves)["device"] == "host"


def test_render_writes_where_the_cluster_is(leaves: Path, cluster: StandInDashboard) -> None:
    configure(ray_at(cluster))
    assert run("render", str(leaves), "--out", "out") == 0
    parameters = parse_config(Path("out/leaves/config.pbtxt").read_text(encoding="utf-8")).parameters
    said = {name: parameters[name].string_value for name in ("way", "ray_address", "ray_dashboard")}
    assert said == {"way": "lightgbm", "ray_address": "10.0.0.1:6379", "ray_dashboard": cluster.url}
    assert json.loads(parameters["replicas"].string_value)["bundles"][0]["cpus"] == 1


# -- doctor --------------------------------------------------------------------------------------------------------------


def checked(ray: object, packages: dict[str, str] | None) -> list[Check]:
    found = None if packages is None else RuntimeReport(directory=Path("runtime"), packages=packages)
    return list(ray_checks(RaySettings.model_validate(ray), found))


def test_doctor_has_nothing_to_say_of_a_ray_that_is_not_used() -> None:
    for packages in ({}, LIBRARIES, None):
        assert checked({}, packages) == [
            Check(name="ray", outcome=Outcome.OK, found="ray.enabled is false in the configuration")
        ]


def test_doctor_names_the_version_and_the_libraries_of_the_runtime() -> None:
    (check,) = checked({"enabled": True}, LIBRARIES)
    assert check.outcome is Outcome.OK
    assert check.found == ("2.60.0 with scikit-learn, lightgbm; Modelium's own, which is started when a model first needs it")
    (bare,) = checked({"enabled": True}, SERVE)
    assert bare.found.startswith("2.60.0 with none of its libraries")


@pytest.mark.parametrize(
    ("packages", "found", "remedy"),
    [
        ({"torch": "2"}, "Ray is not in the model runtime", "`modelium runtime install --with ray`"),
        ({"ray": VERSION}, "2.60.0 without Ray Serve (fastapi is missing)", "`modelium runtime install --with ray`"),
        (None, "ray.address is auto, and Triton runs elsewhere", "name a cluster that Triton's machine is a node of"),
    ],
)
def test_doctor_says_what_ray_lacks_and_what_to_do(packages: dict[str, str] | None, found: str, remedy: str) -> None:
    (check,) = checked({"enabled": True}, packages)
    assert check.outcome is Outcome.FAIL
    assert found in check.found and remedy in check.remedy


def test_doctor_asks_the_clusters_dashboard(cluster: StandInDashboard) -> None:
    cluster.nodes = [machine("10.0.0.1"), machine("10.0.0.2", gpus=2)]
    runtime, there = checked(ray_at(cluster), LIBRARIES)
    assert (runtime.outcome, runtime.found) == (Outcome.OK, "2.60.0 with scikit-learn, lightgbm")
    assert (there.name, there.outcome, there.remedy) == ("ray cluster", Outcome.OK, "")
    assert there.found == (
        "2.60.0 at 10.0.0.1:6379, 2 nodes (10.0.0.1, 10.0.0.2): 32 of 32 CPUs, 2 of 2 GPUs free, "
        "32.0 GiB of 128.0 GiB memory taken"
    )
    (alone,) = checked(ray_at(cluster), None)
    assert alone == there, "of a Triton elsewhere only the cluster can be asked"


def test_doctor_tells_a_cluster_that_is_this_machine(cluster: StandInDashboard) -> None:
    cluster.nodes = [machine("127.0.0.1")]
    (check,) = checked(ray_at(cluster, on_this_machine=None), None)
    assert check.found == "2.60.0 at 10.0.0.1:6379, on this machine"


def test_doctor_compares_the_versions(cluster: StandInDashboard) -> None:
    cluster.version = "2.55.1"
    check = checked(ray_at(cluster), LIBRARIES)[-1]
    assert check.outcome is Outcome.FAIL
    assert check.found == "the cluster at 10.0.0.1:6379 runs Ray 2.55.1, the model runtime has 2.60.0"
    assert "they have to be the same" in check.remedy
    (unknown,) = checked(ray_at(cluster), None)
    assert unknown.outcome is Outcome.OK, "of a Triton elsewhere the version is not known"


def test_doctor_sends_the_token_and_asks_for_one(cluster: StandInDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.token = "secret"
    (check,) = checked(ray_at(cluster), None)
    assert (check.outcome, check.remedy) == (Outcome.FAIL, "set RAY_AUTH_TOKEN")
    assert check.found == f"Ray's dashboard at {cluster.url} wants its token"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    (check,) = checked(ray_at(cluster), None)
    assert check.outcome is Outcome.OK and "secret" not in check.found
    assert cluster.tokens[-1] == "Bearer secret"


def test_doctor_says_where_a_cluster_that_does_not_answer_was_looked_for(cluster: StandInDashboard) -> None:
    cluster.reaches_head = False
    (check,) = checked(ray_at(cluster), None)
    assert (check.outcome, check.found) == (
        Outcome.FAIL,
        "the head of the Ray cluster at 10.0.0.1:6379 does not answer its own dashboard",
    )
    (check,) = checked({"enabled": True, "address": "127.0.0.1:6379", "dashboard_url": "http://127.0.0.1:9"}, None)
    assert check.outcome is Outcome.FAIL
    assert "Ray's dashboard at http://127.0.0.1:9 does not answer" in check.found
    assert "--dashboard-host=0.0.0.0" in check.remedy and "ray.dashboard_url" in check.remedy


def test_doctor_has_the_cluster_in_its_list(cluster: StandInDashboard, capsys: pytest.CaptureFixture[str]) -> None:
    configure(ray_at(cluster))
    run("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["ray cluster"]["outcome"] == "ok"
    run("doctor")
    assert "ray cluster" in capsys.readouterr().out


# -- the model runtime ---------------------------------------------------------------------------------------------------


def test_the_runtime_shows_ray_and_what_only_ray_serves_with() -> None:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(report.runtime(RuntimeReport(directory=Path("runtime"), packages={**LIBRARIES, "diffusers": "0.42.1"})))
    assert "ray 2.60.0, scikit-learn 1.9.1, lightgbm 4.7.0, diffusers 0.42.1" in capture.get()

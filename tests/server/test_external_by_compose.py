"""``compose.yaml`` and ``infra/k8s/`` without an engine, with a real Triton: their command lines, files, variables and probes.

Triton is started by the image's entrypoint script, Modelium by the image's command, each with what compose (or the rendered
pod) gives its container. What a container brings besides (its root, its user, its network) is not here.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.deployment import tool
from tests.patience import PATIENCE_S
from tests.server.containers import KEY, Deployed, by_compose, by_kubernetes, deployed, end
from tests.server.systems import write_adder, write_counter

pytestmark = pytest.mark.server
RECIPES = {"compose": by_compose, "kubernetes": by_kubernetes}
SLOW_TURNS = 400_000  # of write_counter: some seconds on two cores


@pytest.fixture(params=list(RECIPES))
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployed]:
    keys = tmp_path / "api-keys"
    keys.write_text(f"# of this test\ntests: {KEY}\n", encoding="utf-8")
    keys.chmod(0o600)
    with deployed(tmp_path / "deployed", RECIPES[request.param](keys), keys) as made:
        yield made


def test_the_whole_life_of_a_deployment(deployment: Deployed) -> None:
    """One test, because it is one life: each step stands on the one before."""
    modelium = deployment.start_modelium()
    it_answers_before_triton_is_there(deployment)
    triton = deployment.start_triton()
    deployment.until(lambda: deployment.ask("/health/ready", key=None)[0] == 200, "Modelium is ready")
    probes_and_health_checks_are_content(deployment)
    a_model_that_is_dropped_answers_those_with_a_key(deployment)
    the_verbs_find_the_key_of_their_own_gateway(deployment)
    both_metrics_ports_answer_prometheus(deployment)
    nursery = models_are_born_of_a_nursery_of_their_server(deployment, triton)
    a_stop_lets_triton_finish_what_is_in_flight(deployment, triton)
    the_nursery_ends_with_its_server(deployment, nursery)
    modelium_waits_for_a_triton_that_comes_back(deployment)
    assert end(modelium) == 0, deployment.logs()
    assert KEY not in deployment.logs()


def it_answers_before_triton_is_there(deployment: Deployed) -> None:
    deployment.until(lambda: deployment.ask("/health/live", key=None)[0] == 200, "the gateway answers")
    status, health = deployment.ask("/health/ready", key=None)
    assert (status, health["triton"]["up"]) == (503, False)


def probes_and_health_checks_are_content(deployment: Deployed) -> None:
    for path in deployment.recipe.probes:
        assert deployment.ask(path, key=None)[0] == 200, path
    assert len(deployment.recipe.commands) == 2
    for command in deployment.recipe.commands:
        assert deployment.health(command) == 0, command


def a_model_that_is_dropped_answers_those_with_a_key(deployment: Deployed) -> None:
    write_adder(deployment.directory / "models" / "incoming" / "adder.onnx", 2.0)
    question = {"inputs": {"x": [[40.0]]}}
    deployment.until(lambda: deployment.ask("/predict/adder", question)[0] == 200, "the model answers")
    assert deployment.ask("/predict/adder", question) == (200, {"y": [[42.0]]})
    assert deployment.ask("/predict/adder", question, key=None)[0] == 401
    assert deployment.ask("/predict/adder", question, key=KEY + "0")[0] == 401
    status, reply = deployment.ask("/v1/models", key=None)
    assert (status, reply["error"]["code"]) == (401, "invalid_api_key")


def the_verbs_find_the_key_of_their_own_gateway(deployment: Deployed) -> None:
    """As ``docker compose exec modelium modelium list`` does, in whose container the configuration and the keys are."""
    command = [tool("modelium", "make setup"), "--config", str(deployment.directory / "modelium.yaml"), "list"]
    variables = deployment.modelium_environment()
    shown = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240, check=False)
    assert shown.returncode == 0 and "adder" in shown.stdout, shown.stderr


def both_metrics_ports_answer_prometheus(deployment: Deployed) -> None:
    assert 'modelium_model_state{model="adder",state="LOADED"} 1.0' in deployment.ask("/metrics", key=None, port=9090)[1]
    assert 'nv_inference_request_success{model="adder"' in deployment.ask("/metrics", key=None, port=8002)[1]


def a_stop_lets_triton_finish_what_is_in_flight(deployment: Deployed, triton: subprocess.Popen[bytes]) -> None:
    write_counter(deployment.directory / "models" / "incoming" / "counter.onnx")
    deployment.until(lambda: deployment.ask("/predict/counter", {"inputs": {"x": [1]}})[0] == 200, "the counter answers")
    answers = []
    slow = threading.Thread(target=lambda: answers.append(deployment.ask("/predict/counter", {"inputs": {"x": [SLOW_TURNS]}})))
    slow.start()
    deployment.until(lambda: deployment.ask("/models/counter")[1]["leases"] == 1, "the request is in flight")
    assert end(triton) == 0, deployment.logs()
    slow.join(PATIENCE_S)
    assert answers == [(200, {"y": [SLOW_TURNS]})]


def models_are_born_of_a_nursery_of_their_server(deployment: Deployed, triton: subprocess.Popen[bytes]) -> Path:
    """The first stub starts it: nobody else could, in a container of its own."""
    (server,) = [one.pid for one in psutil.Process(triton.pid).children() if one.name().startswith("tritonserver")]
    nursery = Path(tempfile.gettempdir()) / f"modelium-nursery-{os.getuid()}-{server}"
    deployment.until(lambda: any(nursery.glob("onnxruntime-*.sock")), "it listens")
    return nursery


def the_nursery_ends_with_its_server(deployment: Deployed, nursery: Path) -> None:
    deployment.until(lambda: not nursery.exists(), "nothing is left of it")
    deployment.until(lambda: not commands_that_name(nursery), "no process is left of it")


def commands_that_name(path: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [command for command in found if str(path) in command]


def modelium_waits_for_a_triton_that_comes_back(deployment: Deployed) -> None:
    """As after a crash, when the engine starts the container again."""
    deployment.until(lambda: deployment.ask("/health/ready", key=None)[0] == 503, "Modelium has noticed")
    assert deployment.ask("/health/live", key=None)[0] == 200, "which is no reason to restart Modelium"
    again = deployment.start_triton()
    assert deployment.ask("/predict/adder", {"inputs": {"x": [[1.0]]}}) == (200, {"y": [[3.0]]}), deployment.logs()
    assert end(again) == 0

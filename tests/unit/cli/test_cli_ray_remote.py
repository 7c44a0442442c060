"""What ``list`` and ``status`` say of Ray: how it is, how many replicas of a model run, what each of them asks for."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from modelium.cli import main, replies, show
from modelium.cli.ray import ray_line
from modelium.values import (
    Bundle,
    DeviceKind,
    Fleet,
    Footprint,
    ModelProfile,
    ModelStatus,
    Placement,
    Ray,
    RayNode,
    RayState,
    Replicas,
    Runtime,
    ServeApp,
    ServerStatus,
    Snapshot,
    State,
    Task,
)
from modelium.views import Status, written
from tests.unit.views import snapshot_view

GIB = 2**30
IRIS = ModelStatus(
    name="iris",
    label="iris",
    path=Path("incoming/iris"),
    state=State.LOADED,
    reason="scikit-learn; no other runtime serves it",
    profile=ModelProfile(
        name="iris",
        path=Path("incoming/iris"),
        task=Task.TABULAR_CLASSIFICATION,
        library="scikit-learn",
        architecture="Pipeline",
    ),
    placement=Placement(
        runtime=Runtime.RAY,
        device_id="host",
        device_kind=DeviceKind.HOST,
        device_index=-1,
        footprint=Footprint(estimated_bytes=GIB),
        max_batch_size=1024,
        replicas=Replicas(minimum=1, maximum=4, bundles=(Bundle(cpus=1, gpus=0.5, memory_bytes=GIB // 4),)),
    ),
    footprint=Footprint(estimated_bytes=GIB),
)
UP = Ray(state=RayState.UP, version="2.60.0")


def placed(status: ModelStatus, **changes: Any) -> ModelStatus:
    assert status.placement is not None
    return replace(status, placement=replace(status.placement, **changes))


def node(number: int, *, free: float, gpus: int = 0) -> RayNode:
    total = Bundle(cpus=16, gpus=gpus, memory_bytes=64 * GIB)
    left = Bundle(cpus=free, gpus=gpus / 2, memory_bytes=32 * GIB)
    return RayNode(id=f"n{number}", address=f"10.0.0.{number}", total=total, free=left, used_bytes=20 * GIB)


def snapshot(ray: Ray, *models: ModelStatus, restarts: int = 0) -> Snapshot:
    fleet = Fleet(devices=(), ray=ray)
    return Snapshot(now=50.0, models=models, fleet=fleet, server=ServerStatus(up=True), scanned=True, ray_restarts=restarts)


def reply_of(view: object) -> bytes:
    return json.dumps(view).encode()


def text_of(content: RenderableType) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(content)
    return capture.get()


def listed(found: Snapshot) -> str:
    return text_of(show.models(replies.models(reply_of(snapshot_view(found)))))


def shown(status: ModelStatus) -> dict[str, str]:
    """The rows of ``status``, by name."""
    lines = text_of(show.model(replies.model(reply_of(written(Status, status, 50.0))))).splitlines()[1:]
    pairs = [line.split("  ", 1) for line in lines if "  " in line]
    return {name.strip(): value.strip() for name, value in pairs}


# -- how Ray is ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ray", "restarts", "line"),
    [
        (
            Ray(state=RayState.ASLEEP, version="2.60.0"),
            0,
            "Ray 2.60.0 is asleep: Modelium's own, which is started when a model first needs it",
        ),
        (replace(UP, nodes=(node(1, free=3),)), 0, "Ray 2.60.0 is up on this machine"),
        (replace(UP, nodes=(node(1, free=3),)), 1, "Ray 2.60.0 is up on this machine (started again once)"),
        (
            replace(UP, here=False, nodes=(node(1, free=12), node(2, free=15.5))),
            0,
            "Ray 2.60.0 is up, 2 nodes (10.0.0.1, 10.0.0.2): 27.5 of 32 CPUs free, 40.0 GiB of 128.0 GiB memory taken",
        ),
        (
            replace(UP, version="", here=False, nodes=(node(1, free=0, gpus=4),)),
            0,
            "Ray is up, 1 node (10.0.0.1): 0 of 16 CPUs, 2 of 4 GPUs free, 20.0 GiB of 64.0 GiB memory taken",
        ),
        (
            Ray(state=RayState.DOWN, version="2.60.0", detail="Modelium's own Ray ended", here=False),
            3,
            "Ray 2.60.0 is down: Modelium's own Ray ended (started again 3 times)",
        ),
        (replace(UP, here=False), 0, "Ray 2.60.0 is up, without a node"),
    ],
)
def test_the_list_ends_with_how_ray_is(ray: Ray, restarts: int, line: str) -> None:
    assert listed(snapshot(ray, IRIS, restarts=restarts)).rstrip().splitlines()[-1] == line
    assert listed(snapshot(ray, restarts=restarts)).rstrip().splitlines()[-1] == line, "without models as well"


def test_a_cluster_of_many_nodes_is_one_line() -> None:
    ray = replace(UP, here=False, nodes=tuple(node(number, free=1) for number in range(30)))
    line = ray_line(replies.models(reply_of(snapshot_view(snapshot(ray)))).ray)
    assert "30 nodes (10.0.0.0, 10.0.0.1, 10.0.0.2, 10.0.0.3, …): 30 of 480 CPUs" in line


def test_where_ray_is_not_used_nothing_is_said_of_it() -> None:
    assert "Ray" not in listed(snapshot(Ray()))
    older = {name: value for name, value in snapshot_view(snapshot(UP)).items() if name != "ray"}
    assert "Ray" not in text_of(show.models(replies.models(reply_of(older))))


def test_a_node_uses_no_more_than_ray_was_told_it_has() -> None:
    full = replace(node(1, free=0), used_bytes=900 * GIB)
    assert "64.0 GiB of 64.0 GiB memory taken" in listed(snapshot(replace(UP, here=False, nodes=(full,))))


# -- a model on it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("running", "words"), [(2, "ray × 2"), (0, "ray  ")])
def test_the_list_counts_the_replicas_that_run_here(running: int, words: str) -> None:
    view = snapshot_view(snapshot(UP, IRIS))
    assert isinstance(view["models"], list)
    view["models"][0]["replicas"] = running
    (line,) = [line for line in text_of(show.models(replies.models(reply_of(view)))).splitlines() if line.startswith("iris")]
    assert words in line and "host" in line


def test_the_status_tells_the_replicas_and_what_each_asks_for() -> None:
    rows = shown(replace(IRIS, replicas=2))
    assert rows["runs on"] == "ray on host"
    assert rows["replicas"] == "2 of 1 to 4, towards 2 requests at each"
    assert rows["each asks for"] == "1 CPU, 0.5 GPU, 256 MiB"


def test_replicas_that_ask_for_nothing_or_are_not_counted_are_told_without() -> None:
    rows = shown(placed(IRIS, replicas=Replicas(minimum=2, maximum=2)))
    assert rows["replicas"] == "2"
    assert "each asks for" not in rows


def test_an_engine_of_several_ranks_says_so() -> None:
    ranks = Replicas(bundles=(Bundle(cpus=1, gpus=1),) * 4)
    assert shown(placed(IRIS, replicas=ranks))["each asks for"] == "4 ranks of 1 CPU, 1 GPU"


def test_an_application_has_the_replicas_of_its_own_deployments() -> None:
    assert IRIS.profile is not None
    profile = replace(IRIS.profile, task=Task.SERVE_APP, app=ServeApp(import_path="a:b"))
    assert shown(replace(IRIS, profile=profile, replicas=3))["replicas"] == "3, as its own deployments say"
    assert "each asks for" not in shown(replace(IRIS, profile=profile))


def test_a_model_in_triton_has_no_replicas() -> None:
    rows = shown(placed(IRIS, runtime=Runtime.PYTHON, replicas=None))
    assert not {"replicas", "each asks for", "Ray"} & rows.keys()


# -- the verbs -----------------------------------------------------------------------------------------------------------


@contextmanager
def gateway(pages: Mapping[str, object]) -> Iterator[tuple[str, list[str]]]:
    """A real HTTP server with these pages, and which of them it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = reply_of(pages[self.path])
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODELIUM_API_KEY", raising=False)


def test_the_status_of_a_model_on_ray_says_how_ray_is(capsys: pytest.CaptureFixture[str]) -> None:
    down = Ray(state=RayState.DOWN, detail="its head died")
    in_triton = placed(IRIS, runtime=Runtime.PYTHON, replicas=None)
    pages = {
        "/models": snapshot_view(snapshot(down, IRIS)),
        "/models/iris": written(Status, IRIS, 50.0),
        "/models/bert": written(Status, in_triton, 50.0),
    }
    with gateway(pages) as (url, asked):
        assert run("--url", url, "status", "iris") == 0
        assert "Ray is down: its head died" in capsys.readouterr().out
        assert run("--url", url, "status", "bert") == 0
        assert "Ray" not in capsys.readouterr().out
        assert asked == ["/models/iris", "/models", "/models/bert"], "nobody else is asked for"


def test_as_json_both_verbs_give_what_the_gateway_says(capsys: pytest.CaptureFixture[str]) -> None:
    pages = {"/models": snapshot_view(snapshot(UP, IRIS, restarts=2)), "/models/iris": written(Status, IRIS, 50.0)}
    with gateway(pages) as (url, asked):
        assert run("--url", url, "list", "--json") == 0
        found = json.loads(capsys.readouterr().out)["ray"]
        assert (found["state"], found["version"], found["restarts"]) == ("up", "2.60.0", 2)
        assert run("--url", url, "status", "iris", "--json") == 0
        assert json.loads(capsys.readouterr().out)["placement"]["replicas"]["max"] == 4
        assert asked == ["/models", "/models/iris"]

"""``/models``, ``/plan``, ``/health`` and the page: what is shown, and what reaches the controller."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelium.analysis.wire import encode
from modelium.simulation.traces import parse_trace
from modelium.trail import Trail
from modelium.values import Bundle, OnnxGraph, Ray, RayNode, RayState, Replicas, Runtime, Task, Tensor, Unsupported

from .ray_models import GREETER, IRIS
from .stand_in import Served, profile_of, served


async def get(gateway: Served, path: str) -> tuple[int, Any]:
    async with gateway.http.get(gateway.url + path) as response:
        return response.status, await response.json()


async def post(gateway: Served, path: str, **options: Any) -> tuple[int, Any]:
    async with gateway.http.post(gateway.url + path, **options) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("path", ["/models/NAME", "/predict/NAME", "/models/NAME/load"])
async def test_a_model_that_is_not_there_is_named_as_it_was_typed(gateway: Served, path: str) -> None:
    for sent, quoted in {"my+model@v2": "'my+model@v2'", "org/x": "'org/x'", "n" * 5000: f"'{'n' * 100} …'"}.items():
        ask = gateway.http.get if path == "/models/NAME" else gateway.http.post
        async with ask(gateway.url + path.replace("NAME", sent), json={"inputs": "x"}) as answer:
            assert answer.status == 404
            assert f"no model is called {quoted}; " in (await answer.json())["error"]


async def test_the_list_shows_models_devices_and_triton(gateway: Served) -> None:
    gateway.serve(profile_of(Task.FILL_MASK, name="a"))
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, name="b"))
    status, body = await get(gateway, "/models")
    assert status == 200
    assert [model["name"] for model in body["models"]] == ["a", "b"]
    first = body["models"][0]
    assert (first["state"], first["runtime"], first["device"], first["measured_bytes"]) == ("LOADED", "python", "host", 900)
    assert (first["promised_bytes"], first["held_bytes"]) == (950, 800)
    assert first["profile"]["task"] == "fill-mask"
    assert (body["devices"][0]["budget_bytes"], body["devices"][0]["leaked_bytes"]) == (75, 0)
    assert body["triton"] == {"up": True, "version": "2.51.0", "restarts": 0, "detail": ""}


async def test_one_model_shows_everything(gateway: Served) -> None:
    tensor = Tensor(name="x", datatype="FP32", dims=(-1, 2))
    onnx = OnnxGraph(inputs=(tensor,), outputs=(tensor,), dynamic_batch=True, opset=17)
    gateway.serve(profile_of(Task.TENSORS, onnx=onnx))
    status, body = await get(gateway, "/models/m")
    assert status == 200
    assert body["profile"]["inputs"] == [{"name": "x", "datatype": "FP32", "dims": [2], "optional": False}]
    assert body["placement"]["max_batch_size"] == 32
    (decision,) = body["decisions"]
    assert 10 <= decision.pop("age_s") < 60
    said = {"model": "m", "verb": "load", "rule": "plan.3", "reason": "fits", "device": "host"}
    assert decision == said | {"beneficiary": "", "moves_to": "", "weighed": []}
    status, body = await get(gateway, "/models/m/decisions")
    assert status == 200 and (body["name"], body["state"]) == ("m", "LOADED")
    assert [each["rule"] for each in body["decisions"]] == ["plan.3"]
    assert (await get(gateway, "/models/nobody/decisions"))[0] == 404


async def test_the_list_shows_ray_and_what_its_nodes_have_left(gateway: Served) -> None:
    gateway.serve(IRIS)
    assert (await get(gateway, "/models"))[1]["ray"]["state"] == "off"
    total = Bundle(cpus=16, gpus=2, memory_bytes=2**36)
    free = Bundle(cpus=3.5, gpus=0.5, memory_bytes=2**30)
    node = RayNode(id="a", address="10.0.0.7", total=total, free=free, used_bytes=2**31)
    gateway.controller.ray = Ray(state=RayState.UP, version="2.60.0", here=False, nodes=(node,))
    gateway.controller.ray_restarts = 2
    assert (await get(gateway, "/models"))[1]["ray"] == {
        "state": "up",
        "detail": "",
        "version": "2.60.0",
        "here": False,
        "restarts": 2,
        "nodes": [
            {
                "address": "10.0.0.7",
                "cpus": 16,
                "free_cpus": 3.5,
                "gpus": 2,
                "free_gpus": 0.5,
                "memory_bytes": 2**36,
                "used_bytes": 2**31,
            }
        ],
    }


async def test_a_model_on_ray_shows_its_columns_its_replicas_and_how_many_run(gateway: Served) -> None:
    gateway.serve(IRIS)
    gateway.serve(GREETER)
    status = gateway.controller.models["iris"]
    assert status.placement is not None
    replicas = Replicas(minimum=1, maximum=4, bundles=(Bundle(cpus=1, gpus=0.5, memory_bytes=2**30),))
    placed = replace(status.placement, runtime=Runtime.RAY, replicas=replicas)
    gateway.controller.models["iris"] = replace(status, placement=placed, replicas=2)
    _, body = await get(gateway, "/models/iris")
    assert (body["runtime"], body["replicas"], body["profile"]["columns"]) == ("ray", 2, ["length", "width"])
    assert body["placement"]["replicas"] == {
        "min": 1,
        "max": 4,
        "target_ongoing_requests": 2.0,
        "cpus": 1,
        "gpus": 0.5,
        "memory_bytes": 2**30,
        "ranks": 1,
    }
    _, body = await get(gateway, "/models/greeter")
    assert (body["profile"]["import_path"], body["profile"]["decoupled"]) == ("serve_app:app", True)


@pytest.mark.parametrize("verb", ["load", "unload"])
async def test_load_and_unload_wait_as_long_as_the_header_says(gateway: Served, verb: str) -> None:
    gateway.serve(profile_of(Task.FILL_MASK, name="org--name"))
    status, body = await post(gateway, f"/models/org%2Fname/{verb}", headers={"X-Request-Timeout": "2.5"})
    assert (status, body["name"]) == (200, "org--name")
    ((called, name, timeout_s),) = gateway.controller.calls
    assert (called, name) == (verb, "org--name")
    assert 2 < timeout_s <= 2.5


async def test_and_no_longer_than_the_configuration_lets_it() -> None:
    async with served(max_request_timeout_seconds=7, request_timeout_seconds=5) as gateway:
        gateway.serve(profile_of(Task.FILL_MASK))
        for asked, most_s in (("1e9", 7), ("6", 6), ("", 5)):
            await post(gateway, "/models/m/load", headers={"X-Request-Timeout": asked} if asked else {})
            assert most_s - 1 < gateway.controller.calls[-1][2] <= most_s
    async with served(
        max_request_timeout_seconds=7, request_timeout_seconds=9
    ) as gateway:  # what needs no header is no less with one
        gateway.serve(profile_of(Task.FILL_MASK))
        await post(gateway, "/models/m/load", headers={"X-Request-Timeout": "1e9"})
        assert 8 < gateway.controller.calls[-1][2] <= 9


async def test_pin_and_unpin(gateway: Served) -> None:
    gateway.serve(profile_of(Task.FILL_MASK))
    assert (await post(gateway, "/models/m/pin"))[1]["pinned"] is True
    assert (await post(gateway, "/models/m/unpin"))[1]["pinned"] is False


async def test_unknown_models_and_verbs(gateway: Served) -> None:
    gateway.serve(profile_of(Task.FILL_MASK, name="minilm"))
    for status, body in (await get(gateway, "/models/minilmm"), await post(gateway, "/models/nope/load")):
        assert (status, body["type"]) == (404, "unknown_model")
        assert "minilm" in body["error"]
    assert (await post(gateway, "/models/minilm/delete"))[0] == 405
    for verb in ("load", "unload", "pin", "unpin"):
        async with gateway.http.get(f"{gateway.url}/models/minilm/{verb}") as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")


async def test_the_plan(gateway: Served) -> None:
    gateway.serve(profile_of(Task.FILL_MASK))
    status, body = await get(gateway, "/plan")
    assert (status, body["pressure"]) == (200, {"host": "91 % taken"})
    assert body["actions"][0]["verb"] == "load"


async def test_health_is_the_controllers_account(gateway: Served) -> None:
    assert await get(gateway, "/health/live") == (200, {"alive": True})
    assert (await get(gateway, "/health/ready"))[0] == 200
    gateway.controller.is_alive = gateway.controller.is_ready = False
    assert await get(gateway, "/health/live") == (503, {"alive": False})
    status, body = await get(gateway, "/health/ready")
    assert (status, body["ready"], body["scanned"]) == (503, False, True)


async def test_the_page_loads_nothing_from_elsewhere(gateway: Served) -> None:
    async with gateway.http.get(gateway.url + "/") as response:
        assert response.content_type == "text/html"
        page = await response.text()
    assert "src=" not in page
    assert "@import" not in page
    assert "//" not in page.replace("http://<span", "")


async def test_watching_counts_as_no_request(gateway: Served) -> None:
    gateway.serve(profile_of(Task.FILL_MASK))
    for path in ("/models", "/models/m", "/plan", "/health/live", "/health/ready", "/"):
        async with gateway.http.get(gateway.url + path) as response:
            assert response.status == 200
    for url in (gateway.metrics_url, gateway.url):  # vLLM's is at the port of its API
        async with gateway.http.get(url + "/metrics") as response:
            text = await response.text()
            assert (response.status, response.content_type) == (200, "text/plain")
            assert "modelium_model_state" in text and "modelium_requests_total{" not in text


async def test_the_trace_is_what_simulate_reads(gateway: Served, tmp_path: Path) -> None:
    async with gateway.http.get(gateway.url + "/trace") as response:
        assert (response.status, await response.read()) == (200, b"time_s,model,duration_s\n"), "none is kept"
    trail = gateway.controller.trail = Trail(tmp_path, most_bytes=10_000)
    for name in ("a", "b", "a"):
        entry = trail.arrive(name)
        entry.begin()
        entry.end()
    async with gateway.http.get(gateway.url + "/trace") as response:
        assert response.content_type == "text/csv"
        trace = parse_trace(io.BytesIO(await response.read()), "the answer", duration_s=1.0)
    assert (trace.names, trace.models.tolist()) == (("a", "b"), [0, 1, 0])


async def test_what_a_drop_would_do_is_asked_with_what_the_verbs_made_of_the_folder(gateway: Served) -> None:
    gateway.serve(profile_of(Task.TEXT_CLASSIFICATION))
    new = encode(profile_of(Task.TEXT_CLASSIFICATION, "new"))
    json_body = {"Content-Type": "application/json"}
    status, body = await post(gateway, "/plan", data=new, headers=json_body)
    assert status == 200 and body["pressure"] == {"host": "new needs room"}
    status, body = await post(gateway, "/plan", data=encode(profile_of(Task.TEXT_CLASSIFICATION)), headers=json_body)
    assert status == 409 and "is here already" in str(body)
    unsupported = encode(Unsupported(name="x", path=Path("x"), why="no"))
    lacking = json.loads(new)
    del lacking["value"]["name"]
    for odd, words in (
        (b"", ""),
        (b"{}", "no object whose kind is one of ModelProfile"),
        (b"[1]", "no object whose kind is one of ModelProfile"),
        (b'{"kind": []}', "no object whose kind is one of ModelProfile"),
        (b'{"kind": "ModelProfile"}', "it has no value"),
        (b'{"kind": "ModelProfile", "value": [null]}', "a list stands where an object belongs"),
        (b"[" * 50_000, ""),
        (unsupported, ""),
        (new.replace(b'"labels"', b'"lables"'), "ModelProfile has no field lables"),
        (json.dumps(lacking).encode(), "ModelProfile lacks field name"),
    ):
        status, body = await post(gateway, "/plan", data=odd, headers=json_body)
        assert status == 422 and "modelium plan --with PATH" in str(body) and words in str(body), odd[:40]
        assert "Error" not in str(body["error"]["message"] if isinstance(body["error"], dict) else body["error"]), odd[:40]

"""The whole loop on the real Triton: drop, answer, change, remove, evict, bring back."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from modelium.devices import Devices
from modelium.triton.client import TritonClient
from tests.patience import PATIENCE_S
from tests.server.conftest import started
from tests.server.systems import System, save_graph, system, write_adder, write_counter

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]


async def test_a_dropped_model_answers_at_every_door(modelium: System) -> None:
    write_adder(modelium.incoming / "plus-one.onnx")
    seen = await modelium.becomes("plus-one", "LOADED")
    assert seen["profile"]["task"] == "tensors" and seen["placement"]["runtime"] == "onnxruntime"
    assert await modelium.add("plus-one", 41.0) == (200, 42.0)
    triton = modelium.running.server.http_url
    body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1.5]}]}
    async with modelium.http.post(f"http://{triton}/v2/models/plus-one/infer", json=body) as response:
        assert (await response.json())["outputs"][0]["data"] == [2.5]
    answer = await modelium.running.client.infer("plus-one", {"x": np.array([[2.0]], dtype=np.float32)})
    assert answer["y"].tolist() == [[3.0]]
    text = await modelium.metrics()
    assert 'modelium_requests_total{code="200",model="plus-one"} 1.0' in text


async def test_use_straight_at_triton_counts(modelium: System) -> None:
    write_adder(modelium.incoming / "straight.onnx")
    await modelium.becomes("straight", "LOADED")
    for _ in range(5):
        await modelium.running.client.infer("straight", {"x": np.array([[2.0]], dtype=np.float32)})
    seen = await modelium.becomes("straight", "LOADED", lambda m: m["requests"] >= 5)
    assert seen["qps"] > 0


async def test_requests_for_an_unloaded_model_share_one_load(tmp_path: Path) -> None:
    async with system(tmp_path, orchestration={"load_on_discovery": False}) as modelium:
        write_adder(modelium.incoming / "m.onnx")
        await modelium.becomes("m", "UNLOADED")
        answers = await asyncio.gather(*(modelium.add("m", float(x)) for x in range(20)))
        assert answers == [(200, x + 1.0) for x in range(20)]
        assert (await modelium.get("/models/m"))["loads"] == 1


@contextlib.asynccontextmanager
async def _room_for_one(tmp_path: Path, policies: dict[str, float]) -> AsyncIterator[System]:
    """``a`` adds 1 and ``b`` adds 2; one of them fits, and neither is loaded."""
    one = {"memory": "300MiB"}
    async with system(
        tmp_path,
        devices={"host_memory": "400MiB"},
        models={"a": one, "b": one},
        orchestration={"load_on_discovery": False, "policies": policies},
    ) as modelium:
        for name, amount in (("a", 1.0), ("b", 2.0)):
            write_adder(modelium.incoming / f"{name}.onnx", amount)
            await modelium.becomes(name, "UNLOADED")
        yield modelium


async def test_a_model_is_evicted_for_another_and_comes_back(tmp_path: Path) -> None:
    """Room for one; the one that is not in use goes at once when the other is asked for, with the rule in its decisions."""
    async with _room_for_one(tmp_path, {"min_residence_seconds": 0}) as modelium:
        for _ in range(2):
            assert await modelium.add("a", 1.0) == (200, 2.0)
            assert await modelium.add("b", 1.0) == (200, 3.0)
            evicted = await modelium.becomes("a", "UNLOADED")
            last = next(d for d in evicted["decisions"] if d["verb"] == "unload")
            assert last["rule"] == "evict.6" and "for b waits" in last["reason"] and "b needs" in last["reason"]
        assert 'modelium_evictions_total{rule="evict.6"}' in await modelium.metrics()


async def test_a_young_model_is_not_evicted_and_the_request_waits_until_its_deadline(tmp_path: Path) -> None:
    one = {"memory": "300MiB"}
    policies = {"min_residence_seconds": 3600}
    async with system(
        tmp_path, devices={"host_memory": "400MiB"}, models={"a": one, "b": one}, orchestration={"policies": policies}
    ) as modelium:
        write_adder(modelium.incoming / "a.onnx")
        await modelium.becomes("a", "LOADED")
        write_adder(modelium.incoming / "b.onnx")
        waiting = await modelium.becomes("b", "UNLOADED", lambda m: "no room" in m["reason"])
        assert "it is loaded when somebody asks for it" in waiting["reason"]
        status, body = await modelium.add("b", 1.0, headers={"X-Request-Timeout": "1"})
        assert (status, body["type"]) == (504, "deadline_exceeded")
        assert "nothing there may be evicted" in body["error"] and "it stays for 3600 s" in body["error"]
        assert (await modelium.get("/models/a"))["state"] == "LOADED"


async def test_two_models_that_are_always_in_use_take_turns(tmp_path: Path) -> None:
    """Room for one, and both are asked by several at a time without a pause: each is loaded again and again, each request is
    answered by its own model."""
    async with _room_for_one(tmp_path, {"min_residence_seconds": 0.2, "turn_seconds": 1}) as modelium:
        done = asyncio.Event()

        async def ask(name: str, amount: float) -> int:
            answered = 0
            while not done.is_set():
                assert await modelium.add(name, 1.0) == (200, 1.0 + amount)
                answered += 1
            return answered

        clients = [asyncio.create_task(ask(name, amount)) for name, amount in (("a", 1.0), ("b", 2.0)) * 3]
        for name in ("a", "b"):
            seen = await modelium.until(f"/models/{name}", lambda model: model.get("loads", 0) >= 3, f"{name} had three turns")
            assert any(d["rule"] in ("evict.6", "evict.7") for d in seen["decisions"] if d["verb"] == "unload")
        done.set()
        assert all(await asyncio.gather(*clients))
        assert "modelium_swaps_total" in await modelium.metrics()


async def test_a_long_request_holds_its_model_while_a_user_unloads_it(modelium: System) -> None:
    write_counter(modelium.incoming / "long.onnx")
    await modelium.becomes("long", "LOADED")
    request = asyncio.create_task(modelium.post("/predict/long", {"inputs": {"x": [300_000]}}))
    await modelium.becomes("long", "LOADED", lambda m: m["leases"] == 1)
    status, seen = await modelium.post("/models/long/unload")
    assert (status, seen["state"]) == (200, "UNLOADED")
    assert await request == (200, {"y": [300_000]})


async def test_unload_load_pin_and_unpin(modelium: System) -> None:
    write_adder(modelium.incoming / "pinned.onnx")
    await modelium.becomes("pinned", "LOADED")
    assert (await modelium.post("/models/pinned/pin"))[0] == 200
    status, body = await modelium.post("/models/pinned/unload")
    assert (status, body["type"]) == (409, "conflict") and "unpin it first" in body["error"]
    await modelium.post("/models/pinned/unpin")
    assert (await modelium.post("/models/pinned/unload"))[1]["state"] == "UNLOADED"
    assert (await modelium.post("/models/pinned/load"))[1]["state"] == "LOADED"


async def test_a_removed_folder_is_unloaded_and_its_entry_goes(modelium: System) -> None:
    file = write_adder(modelium.incoming / "removed.onnx")
    await modelium.becomes("removed", "LOADED")
    assert (modelium.repository / "removed").is_dir()
    file.unlink()
    gone = await modelium.until("/models/removed", lambda m: m.get("type") == "unknown_model", "it is forgotten")
    assert "no model is called 'removed'" in gone["error"]
    await modelium.until("/models", lambda _: not (modelium.repository / "removed").exists(), "the entry is removed")
    write_adder(file, 5.0)
    await modelium.becomes("removed", "LOADED")
    assert await modelium.add("removed", 1.0) == (200, 6.0)


async def test_a_changed_file_is_a_new_revision_without_a_gap(modelium: System) -> None:
    file = write_adder(modelium.incoming / "changed.onnx", 1.0)
    await modelium.becomes("changed", "LOADED")
    answers: set[float] = set()
    write_adder(file, 10.0)
    while 11.0 not in answers:
        status, y = await modelium.add("changed", 1.0)
        assert status == 200
        answers.add(y)
    assert answers <= {2.0, 11.0}
    # The old copy's process ends once it is drained: that is no crash, and nothing is loaded again for it.
    await _until_one_process(modelium, "changed")
    seen = await modelium.becomes("changed", "LOADED", lambda m: m["measured_bytes"] is not None)
    assert (seen["loads"], seen["failures"], seen["reason"].count("died")) == (2, 0, 0)


async def test_a_revision_that_comes_during_a_reload_waits(modelium: System, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_adder(modelium.incoming / "overtaken.onnx", 1.0)
    first = await modelium.becomes("overtaken", "LOADED")
    load, gate, called = modelium.running.client.load, asyncio.Event(), asyncio.Event()
    active: list[str] = []
    most = 0

    async def counted(name: str, *, timeout_s: float) -> None:
        nonlocal most
        active.append(name)
        most = max(most, len(active))
        called.set()
        try:
            await gate.wait()
            await load(name, timeout_s=timeout_s)
        finally:
            active.remove(name)

    monkeypatch.setattr(modelium.running.client, "load", counted)
    write_adder(file, 10.0)
    await called.wait()
    model = modelium.running.controller._models.get("overtaken")
    assert model is not None
    loading = model.record.reload
    assert loading is not None
    write_adder(file, 20.0)
    await modelium.until(
        "/models/overtaken", lambda _: model.record.folder.profile != loading.profile, "the second revision was analyzed"
    )
    assert (first["loads"], active) == (1, ["overtaken"])
    gate.set()
    seen = await modelium.becomes("overtaken", "LOADED", lambda m: m["loads"] >= 3)
    assert (seen["loads"], most) == (3, 1)
    assert await modelium.add("overtaken", 1.0) == (200, 21.0)


async def test_pins_and_what_was_loaded_survive_a_restart(tmp_path: Path) -> None:
    async with system(tmp_path) as first:
        for name in ("kept", "pinned", "left"):
            write_adder(first.incoming / f"{name}.onnx")
            await first.becomes(name, "LOADED")
        await first.post("/models/pinned/pin")
        await first.post("/models/left/unload")
    async with system(tmp_path, orchestration={"load_on_discovery": False}) as second:
        await second.becomes("kept", "LOADED")
        assert (await second.becomes("pinned", "LOADED"))["pinned"]
        assert (await second.get("/models/left"))["state"] == "UNLOADED"


async def test_an_external_triton_is_served_by_the_same_code(tmp_path: Path) -> None:
    """A Triton that somebody else started, which asks for a secret as Modelium's own does."""
    async with started(tmp_path / "elsewhere", tmp_path) as elsewhere:
        server = elsewhere.server
        shared = {
            "mode": "external",
            "http_url": server.http_url,
            "grpc_url": server.grpc_url,
            "metrics_url": server.metrics_url,
            "model_repository": tmp_path / "elsewhere" / "repository",
            "headers": dict(server.headers),
        }
        async with system(tmp_path / "guest", triton=shared) as guest:
            write_adder(guest.incoming / "theirs.onnx", 3.0)
            await guest.becomes("theirs", "LOADED")
            assert await guest.add("theirs", 1.0) == (200, 4.0)
        async with system(tmp_path / "guest", triton=shared) as guest:  # Triton went on serving meanwhile
            seen = await guest.becomes("theirs", "LOADED")
            assert seen["loads"] == 0 and "had it loaded already" in seen["reason"]
            assert await guest.add("theirs", 1.0) == (200, 4.0)
            assert (await guest.post("/models/theirs/unload"))[1]["state"] == "UNLOADED"


async def _until_one_process(modelium: System, name: str) -> None:
    devices, pid = Devices(host_memory=None, gpu_memory_fraction=0.9), modelium.running.server.pid
    assert pid is not None
    await modelium.until("/models", lambda _: len(devices.processes(pid).get(name, ())) == 1, "one process is left")


async def test_a_client_that_goes_away_gives_its_lease_back(modelium: System) -> None:
    write_counter(modelium.incoming / "abandoned.onnx")
    await modelium.becomes("abandoned", "LOADED")
    request = asyncio.create_task(modelium.post("/predict/abandoned", {"inputs": {"x": [100_000_000]}}))
    await modelium.becomes("abandoned", "LOADED", lambda m: m["leases"] == 1)
    request.cancel()
    await modelium.becomes("abandoned", "LOADED", lambda m: m["leases"] == 0)


async def triton_says(modelium: System, name: str, state: str) -> None:
    client: TritonClient = modelium.running.client
    async with asyncio.timeout(PATIENCE_S):
        while (await client.index())[name].state != state:  # noqa: ASYNC110 — the truth lies in another process
            await asyncio.sleep(0.02)


async def test_triton_has_no_model_left_after_an_unload(modelium: System) -> None:
    write_adder(modelium.incoming / "unloaded.onnx")
    await modelium.becomes("unloaded", "LOADED", lambda m: m["measured_bytes"] is not None)
    devices, pid = Devices(host_memory=None, gpu_memory_fraction=0.9), modelium.running.server.pid
    assert pid is not None and "unloaded" in devices.processes(pid)
    await modelium.post("/models/unloaded/unload")
    assert "unloaded" not in devices.processes(pid)
    await triton_says(modelium, "unloaded", "UNAVAILABLE")


# Appended to the onnxruntime backend: the model of that name answers only when it may.
ANSWERS_WHEN_IT_MAY = """
_execute = TritonPythonModel.execute
def _wait_and_execute(self, requests):
    import time
    if self._config["name"] == "slow":
        Path("PLACE/asked").touch()
        while not Path("PLACE/may-answer").exists():
            time.sleep(0.01)
    return _execute(self, requests)
TritonPythonModel.execute = _wait_and_execute
"""


def leaked(listing: Any) -> int:
    (host,) = listing["devices"]
    return int(host["leaked_bytes"])


async def test_what_triton_keeps_beyond_an_unload_marks_the_device_until_it_is_back(tmp_path: Path) -> None:
    """It keeps the memory through which another model got a large request, as long as that one is loaded (and some of its own
    for longer)."""
    size = 30_000_000
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [size])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    total = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)
    async with system(tmp_path) as modelium:
        backend = tmp_path / "state" / "backends" / "onnxruntime" / "instance.py"
        backend.write_text(backend.read_text() + ANSWERS_WHEN_IT_MAY.replace("PLACE", str(tmp_path)))
        save_graph(helper.make_graph([total], "large", [x], [y]), modelium.incoming / "large.onnx")
        await modelium.becomes("large", "LOADED")
        write_adder(modelium.incoming / "slow.onnx")
        await modelium.becomes("slow", "LOADED")
        assert leaked(await modelium.get("/models")) == 0

        client = modelium.running.client
        asked = asyncio.create_task(client.infer("slow", {"x": np.ones((1, 1), dtype=np.float32)}, timeout_s=PATIENCE_S))
        await modelium.until("/models", lambda _: (tmp_path / "asked").exists(), "it is asked, past the gateway")
        unload = asyncio.create_task(modelium.post("/models/slow/unload"))
        await triton_says(modelium, "slow", "UNLOADING")
        answer = await client.infer("large", {"x": np.ones(size, dtype=np.float32)}, timeout_s=PATIENCE_S)
        assert answer["y"].tolist() == [size]
        (tmp_path / "may-answer").touch()
        assert (await asked)["y"].tolist() == [[2.0]]
        await unload

        assert leaked(await modelium.get("/models")) > 4 * size * 0.9
        text = await modelium.metrics()
        (gauge,) = re.findall(r'^modelium_device_leaked_bytes\{device="host"\} (\S+)$', text, re.MULTILINE)
        assert float(gauge) > 4 * size * 0.9
        assert 'modelium_model_unload_kills_total{model="slow"} 0.0' in text

        await modelium.post("/models/large/unload")
        left = float(gauge) - 4 * size * 0.9
        await modelium.until("/models", lambda listing: leaked(listing) < left, "what is free again is leaked no more")

"""Accidents, each provoked on the real Triton: the broken thing is shown with its cause, the rest goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from modelium.app import running
from modelium.devices import Devices, find_process
from modelium.errors import TritonError
from modelium.guarded.processes import awaited_children
from tests.models import minilm
from tests.patience import PATIENCE_S
from tests.server.systems import System, settings_of, system, write_adder, write_counter, write_unloadable

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _server_pid(modelium: System) -> int:
    pid = modelium.running.server.pid
    assert pid is not None
    return pid


async def _stub_of(modelium: System, name: str, *, other_than: int = 0) -> int:
    """The process of a model's stub, once it is another than the one that was killed before."""
    devices = Devices(host_memory=None, gpu_memory_fraction=0.9)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = devices.processes(_server_pid(modelium)).get(name, ())
        if found and found[0].pid != other_than:
            return found[0].pid
        assert time.monotonic() < deadline, f"{name} has no new stub"
        await asyncio.sleep(0.02)


async def test_a_half_copy_is_shown_with_what_is_missing_and_completes_later(modelium: System, tmp_path: Path) -> None:
    whole = write_adder(tmp_path / "whole.onnx", 2.0, weight_floats=100_000).read_bytes()
    copy = modelium.incoming / "half.onnx"
    with copy.open("wb") as target:
        target.write(whole[:150_000])
        target.flush()
        seen = await modelium.becomes("half", "INCOMPLETE", lambda m: m["missing"])
        [part] = seen["missing"]
        assert part["present_bytes"] == 150_000 and 400_000 < part["expected_bytes"] <= len(whole)
        status, body = await modelium.add("half", 1.0)
        assert (status, body["type"]) == (503, "not_servable") and "INCOMPLETE" in body["error"]
        target.write(whole[150_000:])
    await modelium.becomes("half", "LOADED")
    assert await modelium.add("half", 1.0) == (200, 3.0)


async def test_a_broken_model_is_tried_with_pauses_then_quarantined_and_hurts_nobody(modelium: System) -> None:
    write_adder(modelium.incoming / "good.onnx")
    await modelium.becomes("good", "LOADED")
    file = write_unloadable(modelium.incoming / "bad.onnx")
    bad = await modelium.becomes("bad", "FAILED", lambda m: m["quarantined"])
    assert bad["failures"] == 4 and "NoSuchOperator" in bad["reason"]
    status, body = await modelium.add("bad", 1.0)
    assert (status, body["type"]) == (503, "not_servable") and "quarantine" in body["error"]
    assert await modelium.add("good", 1.0) == (200, 2.0)
    # Nobody can see from outside why a load failed; mended rights, for one, change no content.
    file.chmod(0o600)
    tried = 'modelium_model_loads_total{model="bad",outcome="failed"} 8.0'
    async with asyncio.timeout(PATIENCE_S):
        while tried not in await modelium.metrics():  # noqa: ASYNC110 — asked over HTTP, which tells nobody
            await asyncio.sleep(0.02)
    await modelium.becomes("bad", "FAILED", lambda m: m["quarantined"])
    write_adder(file, 7.0)
    await modelium.becomes("bad", "LOADED")
    assert await modelium.add("bad", 1.0) == (200, 8.0)


async def test_a_revision_that_does_not_load_leaves_the_old_one_serving(modelium: System) -> None:
    file = write_adder(modelium.incoming / "revised.onnx", 1.0)
    await modelium.becomes("revised", "LOADED")
    write_unloadable(file)
    seen = await modelium.becomes("revised", "LOADED", lambda m: m["revision_error"])
    assert "the old one goes on serving" in seen["revision_error"] and "NoSuchOperator" in seen["revision_error"]
    assert await modelium.add("revised", 1.0) == (200, 2.0)
    write_adder(file, 3.0)
    await modelium.becomes("revised", "LOADED", lambda m: m["loads"] == 2 and not m["revision_error"])
    assert await modelium.add("revised", 1.0) == (200, 4.0)


async def test_a_half_copied_revision_leaves_the_old_one_serving(modelium: System, tmp_path: Path) -> None:
    file = write_adder(modelium.incoming / "half-revised.onnx", 1.0)
    await modelium.becomes("half-revised", "LOADED")
    whole = write_adder(tmp_path / "next.onnx", 9.0, weight_floats=50_000).read_bytes()
    part = tmp_path / "part"
    part.write_bytes(whole[:90_000])
    part.replace(file)
    seen = await modelium.becomes("half-revised", "LOADED", lambda m: m["revision_error"])
    assert "not complete yet" in seen["revision_error"]
    assert await modelium.add("half-revised", 1.0) == (200, 2.0)


async def test_killed_triton_comes_back_with_its_models_and_every_request_is_answered(tmp_path: Path) -> None:
    async with system(tmp_path) as modelium:
        for name in ("a", "b"):
            write_adder(modelium.incoming / f"{name}.onnx")
            await modelium.becomes(name, "LOADED")
        sent = [asyncio.create_task(modelium.add("ab"[i % 2], float(i))) for i in range(50)]
        _kill(_server_pid(modelium))
        sent += [asyncio.create_task(modelium.add("ab"[i % 2], float(i))) for i in range(50, 100)]
        assert await asyncio.gather(*sent) == [(200, i + 1.0) for i in range(100)]
        assert (await modelium.get("/health/ready"))["triton"]["restarts"] == 1


async def test_a_body_of_too_many_chunks_ends_triton_and_is_no_models_fault(tmp_path: Path) -> None:
    """Triton lays out a list of all chunks on a thread's stack: some bytes each, until it is full."""
    async with system(tmp_path) as modelium:
        write_adder(modelium.incoming / "m.onnx")
        await modelium.becomes("m", "LOADED")
        await asyncio.to_thread(_send_chunks, modelium.running.server.http_url, "/v2/models/m/infer", 600_000)
        await modelium.until("/health/ready", lambda health: health["triton"]["restarts"] == 1, "Triton was started again")
        seen = await modelium.becomes("m", "LOADED")
        assert (seen["failures"], seen["quarantined"]) == (0, False)
        assert await modelium.add("m", 1.0) == (200, 2.0)


def _send_chunks(address: str, path: str, count: int) -> None:
    """One byte each, and wait for whatever comes."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(ConnectionError), socket.create_connection((host, int(port)), timeout=PATIENCE_S) as stranger:
        stranger.sendall(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        stranger.sendall(b"1\r\n \r\n" * count + b"0\r\n\r\n")
        stranger.recv(1)


async def test_triton_killed_during_a_load_loads_again(tmp_path: Path) -> None:
    async with system(tmp_path, orchestration={"load_on_discovery": False}) as modelium:
        write_adder(modelium.incoming / "m.onnx")
        await modelium.becomes("m", "UNLOADED")
        request = asyncio.create_task(modelium.add("m", 1.0))
        await modelium.becomes("m", "LOADING")
        _kill(_server_pid(modelium))
        assert await request == (200, 2.0)


async def test_a_dead_stub_is_noticed_without_a_request_and_healed(modelium: System) -> None:
    write_adder(modelium.incoming / "dead.onnx")
    await modelium.becomes("dead", "LOADED", lambda m: m["measured_bytes"] is not None)
    _kill(await _stub_of(modelium, "dead"))
    await modelium.becomes("dead", "LOADED", lambda m: m["loads"] == 2)
    assert await modelium.add("dead", 1.0) == (200, 2.0)


async def test_a_start_that_triton_gave_up_is_made_again_and_who_waits_is_answered(modelium: System) -> None:
    """Triton takes a process for dead that is silent for a second while it starts; here it is stopped for so long."""
    shutil.copytree(minilm(), modelium.incoming / "silent")
    await modelium.until("/models/silent", lambda model: "state" in model, "it is known")
    stub = 0
    while True:  # the start may end before it is stopped
        request = asyncio.create_task(modelium.post("/predict/silent", {"inputs": "hello"}))
        stub = await _stub_of(modelium, "silent", other_than=stub)
        async with asyncio.timeout(PATIENCE_S):
            while "_multiarray_umath" not in Path(f"/proc/{stub}/maps").read_text():  # noqa: ASYNC110, ASYNC240 — nothing tells us
                await asyncio.sleep(0.01)
            os.kill(stub, signal.SIGSTOP)
            try:
                while stub not in awaited_children(_server_pid(modelium)):
                    if (await modelium.get("/models/silent"))["state"] == "LOADED":
                        break
                    await asyncio.sleep(0.05)
                else:
                    break
            finally:
                os.kill(stub, signal.SIGCONT)
        await request
        await modelium.post("/models/silent/unload")
    status, vector = await request
    assert status == 200 and len(vector) == 384
    seen = await modelium.becomes("silent", "LOADED")
    assert (seen["failures"], seen["quarantined"], seen["loads"]) == (0, False, 1)


async def test_requests_of_a_dying_stub_are_answered_after_the_heal(modelium: System) -> None:
    write_counter(modelium.incoming / "dying.onnx")
    await modelium.becomes("dying", "LOADED", lambda m: m["measured_bytes"] is not None)
    requests = [asyncio.create_task(modelium.post("/predict/dying", {"inputs": {"x": [200_000]}})) for _ in range(4)]
    await modelium.becomes("dying", "LOADED", lambda m: m["leases"] == 4)
    _kill(await _stub_of(modelium, "dying"))
    assert await asyncio.gather(*requests) == [(200, {"y": [200_000]})] * 4


async def test_a_model_that_dies_again_and_again_is_quarantined(modelium: System) -> None:
    write_adder(modelium.incoming / "mortal.onnx")
    stub = 0
    for _ in range(4):
        stub = await _stub_of(modelium, "mortal", other_than=stub)
        await modelium.becomes("mortal", "LOADED")
        _kill(stub)
    seen = await modelium.becomes("mortal", "FAILED", lambda m: m["quarantined"])
    assert "the 4th time" in seen["reason"]
    status, body = await modelium.post("/models/mortal/load")
    assert (status, body["state"]) == (200, "LOADED")


async def test_the_unload_of_a_stub_that_hangs_ends_in_time_and_the_next_request_is_answered(tmp_path: Path) -> None:
    async with system(tmp_path, triton={"unload_timeout_seconds": 1}) as modelium:
        write_adder(modelium.incoming / "m.onnx")
        await modelium.becomes("m", "LOADED", lambda m: m["measured_bytes"] is not None)
        stub = find_process(await _stub_of(modelium, "m"))
        assert stub is not None
        os.kill(stub.pid, signal.SIGSTOP)
        status, body = await modelium.post("/models/m/unload")
        assert (status, body["state"]) == (200, "UNLOADED")
        assert not Devices(host_memory=None, gpu_memory_fraction=0.9).alive(stub)
        assert await modelium.add("m", 1.0) == (200, 2.0)


async def test_a_model_unloaded_behind_our_back_is_loaded_for_the_next_request(modelium: System) -> None:
    write_adder(modelium.incoming / "behind.onnx")
    await modelium.becomes("behind", "LOADED")
    await modelium.running.client.unload("behind")
    assert await modelium.add("behind", 1.0) == (200, 2.0)


async def test_a_folder_that_vanishes_while_it_loads_is_forgotten(modelium: System) -> None:
    file = write_adder(modelium.incoming / "vanishing.onnx", weight_floats=5_000_000)
    await modelium.becomes("vanishing", "LOADING")
    file.unlink()
    await modelium.until("/models/vanishing", lambda m: m.get("type") == "unknown_model", "it is forgotten")
    await modelium.until("/models", lambda _: not (modelium.repository / "vanishing").exists(), "its entry is removed")


async def test_the_later_of_two_folders_with_one_name_is_shown_as_the_culprit(tmp_path: Path) -> None:
    more = tmp_path / "more"
    directories = [tmp_path / "incoming", more]
    async with system(tmp_path, orchestration={"model_discovery": {"watch_directories": directories}}) as modelium:
        write_adder(modelium.incoming / "twin.onnx", 1.0)
        await modelium.becomes("twin", "LOADED")
        write_adder(more / "twin.onnx", 2.0)
        seen = await modelium.until("/models", lambda listing: len(listing["models"]) == 2, "both are shown")
        first, later = sorted(seen["models"], key=lambda m: len(m["name"]))
        assert (first["name"], first["state"]) == ("twin", "LOADED")
        assert later["state"] == "UNSUPPORTED" and "twin" in later["reason"]
        shown = await modelium.get(f"/models/{later['name']}")
        assert shown["path"].startswith(str(more)), shown
        assert await modelium.add("twin", 1.0) == (200, 2.0)


async def test_somebody_elses_entry_is_never_touched(tmp_path: Path) -> None:
    theirs = tmp_path / "repository" / "m"
    (theirs / "1").mkdir(parents=True)
    (theirs / "config.pbtxt").write_text("# mine\n")
    async with system(tmp_path) as modelium:
        write_adder(modelium.incoming / "m.onnx")
        seen = await modelium.becomes("m", "FAILED")
        assert "Modelium did not write it" in seen["reason"]
        assert (theirs / "config.pbtxt").read_text() == "# mine\n"


async def test_names_with_spaces_and_unicode_are_served_under_a_name_triton_can_take(modelium: System) -> None:
    write_adder(modelium.incoming / "größer als eins.onnx")
    seen = await _loaded_under_its_label(modelium, "größer als eins")
    assert seen["name"].isascii() and " " not in seen["name"]
    assert await modelium.add(seen["name"], 1.0) == (200, 2.0)
    assert await modelium.add("größer als eins", 1.0) == (200, 2.0)


async def _loaded_under_its_label(modelium: System, label: str) -> Any:
    def found(listing: Any) -> list[Any]:
        return [m for m in listing["models"] if (m["label"], m["state"]) == (label, "LOADED")]

    [seen] = found(await modelium.until("/models", lambda listing: bool(found(listing)), f"{label} is loaded"))
    return seen


async def test_a_transformers_folder_with_umlauts_is_loaded(modelium: System) -> None:
    """Triton's stub has ASCII file names for ever, whatever the locale."""
    shutil.copytree(minilm(), modelium.incoming / "mein größtes Modell")
    await _loaded_under_its_label(modelium, "mein größtes Modell")
    status, vector = await modelium.post("/predict/mein größtes Modell", {"inputs": "hello"})
    assert status == 200 and len(vector) == 384


async def test_early_requests_wait_for_the_first_scan(tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    write_adder(incoming / "m.onnx")
    async with (
        running(settings_of(tmp_path)) as modelium,
        aiohttp.ClientSession() as http,
        http.post(f"{modelium.gateway_url}/predict/m", json={"inputs": {"x": [[1.0]]}}) as response,
    ):
        assert (response.status, await response.json()) == (200, {"y": [[2.0]]})


async def test_who_waits_when_modelium_stops_is_told_so(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, devices={"host_memory": "1MiB"}, orchestration={"load_on_discovery": False})
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    write_adder(incoming / "m.onnx")
    server_down = settings.model_copy(
        update={"triton": settings.triton.model_copy(update={"mode": "external", "grpc_url": "127.0.0.1:9"})}
    )
    async with aiohttp.ClientSession() as http:
        async with running(server_down) as modelium:
            url, body = f"{modelium.gateway_url}/predict/m", {"inputs": {"x": [[1.0]]}}
            request = asyncio.create_task(http.post(url, json=body))
            deadline = time.monotonic() + PATIENCE_S
            while not any(model.waiting for model in (await modelium.controller.snapshot()).models):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
        response = await request
        assert response.status == 503 and "Modelium is stopping" in (await response.json())["error"]


async def test_a_taken_port_ends_the_start_with_who_has_it(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(TritonError, match=rf"port {port} .* is taken by .*triton.http_url"):
            async with running(settings_of(tmp_path, triton={"http_url": f"127.0.0.1:{port}"})):
                pass


async def test_every_kind_of_bad_folder_is_shown_with_its_reason(modelium: System, tmp_path: Path) -> None:
    write_adder(modelium.incoming / "good.onnx")
    (modelium.incoming / "empty").mkdir()
    for name, config in (("broken", '{"architectures": ['), ("wrong", '{"architectures" "BertModel"}'), ("list", "[]")):
        (modelium.incoming / name).mkdir()
        (modelium.incoming / name / "config.json").write_text(config)
    outside = tmp_path / "outside"
    outside.mkdir()
    (modelium.incoming / "escape").symlink_to(outside)
    lying = modelium.incoming / "lying"
    lying.mkdir()
    (lying / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
    (lying / "model.safetensors").write_bytes(b"\xff" * 64)
    await modelium.becomes("good", "LOADED")
    seen = await modelium.until(
        "/models",
        lambda listing: (
            len(listing["models"]) == 7
            and all(m["state"] in ("INCOMPLETE", "UNSUPPORTED", "LOADED") and m["reason"] for m in listing["models"])
            and not any(m["reason"] == "found, not looked at yet" for m in listing["models"])
        ),
        "each is shown with a reason",
    )
    assert {m["name"]: m["state"] for m in seen["models"]} == {
        "good": "LOADED",
        "empty": "INCOMPLETE",
        "broken": "INCOMPLETE",
        "wrong": "UNSUPPORTED",
        "list": "UNSUPPORTED",
        "escape": "UNSUPPORTED",
        "lying": "UNSUPPORTED",
    }
    assert await modelium.add("good", 1.0) == (200, 2.0)
    for name in ("broken", "lying"):
        shutil.rmtree(modelium.incoming / name)
    await modelium.until("/models", lambda listing: len(listing["models"]) == 5, "the removed ones are forgotten")


async def test_too_many_waiting_requests_are_told_to_come_back(tmp_path: Path) -> None:
    changes = {"gateway": {"max_waiting": 3}, "orchestration": {"load_on_discovery": False}}
    async with system(tmp_path, **changes) as modelium:
        write_adder(modelium.incoming / "m.onnx")
        await modelium.becomes("m", "UNLOADED")
        answers = await asyncio.gather(*(modelium.add("m", 1.0) for _ in range(10)))
        assert [status for status, _ in answers].count(200) == 3
        refused = [body for status, body in answers if status == 503]
        assert len(refused) == 7 and all(body["type"] == "queue_full" for body in refused)

"""A real Prometheus with the real rules beside a real Modelium and its Triton: targets up, rules evaluated, an alert fires, and
every query of every dashboard has data. One story for the whole module drives the system so that there is something to see.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests import metric_names
from tests.models import ensure_models
from tests.monitoring import Panel, names_in, panels, recorded, rules, substituted
from tests.patience import PATIENCE_S
from tests.server.prometheus import Prometheus, Series, prometheus
from tests.server.systems import System, system, write_adder, write_counter, write_unloadable

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

WRITER = "gpt2"

# Panels that have no data on a machine without a GPU, where the story's text is written by the python runtime.
NEEDS_A_GPU = "Triton exports it where there is an NVIDIA GPU"
NEEDS_VLLM = "our vllm backend exports it; an engine's start is too long for this story"
WITHOUT_DATA = {
    "Memory: GPU memory": NEEDS_A_GPU,
    "Memory: GPU utilization": NEEDS_A_GPU,
    "Memory: GPU power": NEEDS_A_GPU,
    "Model: Sequences": NEEDS_VLLM,
    "Model: KV cache": NEEDS_VLLM,
    "Model: Tokens of the engine": NEEDS_VLLM,
    "Model: Time to the first token, in the engine": NEEDS_VLLM,
    "Model: Time between tokens": NEEDS_VLLM,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A Modelium whose story is over, and the Prometheus that saw it."""

    modelium: System
    prometheus: Prometheus


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    writers = await asyncio.to_thread(ensure_models, names=[WRITER])
    directory = tmp_path_factory.mktemp("monitoring")
    policies = {"evict_after_idle_seconds": 2, "unload_without_pressure": True, "always_loaded": ["revised"]}
    async with system(directory, vllm={"enabled": False}, orchestration={"policies": policies}) as modelium:
        targets = {
            "modelium": modelium.running.metrics_url.removeprefix("http://"),
            "triton": modelium.running.server.metrics_url,
        }
        async with prometheus(directory / "prometheus", targets) as running:
            await _happens(modelium, running, writers / WRITER)
            yield Watched(modelium=modelium, prometheus=running)


async def _happens(modelium: System, running: Prometheus, writer: Path) -> None:
    """A model that fails, one whose new revision does, text, an eviction and a cold start, and a Triton that stays away."""
    await running.until('up{job="triton"} == 1')
    write_unloadable(modelium.incoming / "broken.onnx")
    file = write_adder(modelium.incoming / "revised.onnx")
    write_adder(modelium.incoming / "evicted.onnx")
    shutil.copytree(writer, modelium.incoming / WRITER)
    await modelium.becomes("broken", "FAILED", lambda model: model["quarantined"])
    for failed in (1, 2):  # a rate does not see what a series begins with
        assert (await modelium.add("broken", 1.0))[0] == 503
        await running.until(f'modelium_requests_total{{model="broken", code="503"}} == {failed}')
    await modelium.becomes("revised", "LOADED")
    write_unloadable(file)
    await modelium.becomes("revised", "LOADED", lambda model: model["revision_error"])
    await running.until('modelium_requests_total{model="revised", code="200"} == 0')
    await running.until('nv_inference_request_success{model="revised"} == 0')
    assert await modelium.add("revised", 1.0) == (200, 2.0)

    body = {"inputs": "a", "stream": True, "parameters": {"max_new_tokens": 5}}
    for written in (1, 2):
        async with modelium.http.post(f"{modelium.running.gateway_url}/predict/{WRITER}", json=body) as response:
            assert response.status == 200 and await response.text()
        await running.until(f"modelium_time_to_first_token_seconds_count == {written}")

    await modelium.becomes("evicted", "UNLOADED")
    await running.until('modelium_evictions_total{rule="evict.5"}')
    assert await modelium.add("evicted", 1.0) == (200, 2.0)

    write_counter(modelium.incoming / "slow.onnx")
    await modelium.becomes("slow", "LOADED", lambda model: model["measured_bytes"] is not None)
    request = asyncio.create_task(modelium.post("/predict/slow", {"inputs": {"x": [2_000_000]}}))
    await modelium.becomes("slow", "LOADED", lambda model: model["leases"] == 1)
    with await _keep_away(modelium):
        await running.until('ALERTS{alertname="TritonDown", alertstate="pending"}')
    assert await request == (200, {"y": [2_000_000]})
    await running.until("modelium_triton_up == 1 and modelium_triton_restarts_total >= 1")
    await running.until('modelium_infer_retries_total{model="slow"}')


async def _keep_away(modelium: System) -> socket.socket:
    """Kill Triton and take its port, so that it cannot come back until that is closed."""
    host, _, port = modelium.running.server.http_url.partition(":")
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        if (pid := modelium.running.server.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            taken.bind((host, int(port)))
            taken.listen()
            return taken
        assert time.monotonic() < deadline, "Triton's port never came free"
        await asyncio.sleep(0.02)


async def test_the_targets_are_up(watched: Watched) -> None:
    targets = (await watched.prometheus.get("targets"))["activeTargets"]
    assert {target["labels"]["job"]: (target["health"], target["lastError"]) for target in targets} == {
        "modelium": ("up", ""),
        "triton": ("up", ""),
        "prometheus": ("up", ""),
    }


async def test_the_recorded_names_of_triton_are_those_that_it_has(watched: Watched) -> None:
    seen = await watched.prometheus.get("label/__name__/values")
    triton = {name for name in seen if name.startswith("nv_")} - metric_names.TRITON_GPU
    assert triton == metric_names.TRITON
    assert {name for name in seen if name.startswith("process_")} >= metric_names.PROCESS


async def test_every_rule_is_evaluated_and_every_recorded_series_has_data(watched: Watched) -> None:
    groups = (await watched.prometheus.get("rules"))["groups"]
    seen = [rule for group in groups for rule in group["rules"]]
    assert len(seen) == len(rules())
    assert {(rule["name"], rule["health"], rule.get("lastError", "")) for rule in seen} == {
        (rule["name"], "ok", "") for rule in seen
    }
    assert {name for name in recorded() if not await watched.prometheus.ever(name)} == set()


async def test_a_model_that_fails_fires_its_alert_with_words(watched: Watched) -> None:
    """ALERTS tells since when; ``for`` is the rule's own, in real time."""
    await watched.prometheus.until('ALERTS{alertname="ModelFailed", model="broken", alertstate="firing"}')
    firing = [a for a in (await watched.prometheus.get("alerts"))["alerts"] if a["state"] == "firing"]
    [alert] = [a for a in firing if a["labels"]["alertname"] == "ModelFailed"]
    assert alert["annotations"]["summary"] == "broken cannot be served because its loads fail."
    assert "modelium why broken" in alert["annotations"]["description"]


async def test_a_triton_that_stayed_away_was_about_to_be_alerted(watched: Watched) -> None:
    """Pending only: promtool's tests show that it fires after its minute."""
    assert await watched.prometheus.ever('ALERTS{alertname="TritonDown", alertstate="pending"}')
    assert not await watched.prometheus.ever('ALERTS{alertname="TritonDown", alertstate="firing"}')


async def test_the_first_request_after_a_load_is_seen_by_rates(watched: Watched) -> None:
    assert await watched.prometheus.ever('increase(modelium_requests_total{model="revised", code="200"}[1m]) > 0')


async def test_what_a_model_holds_is_told_while_it_is_loaded(watched: Watched) -> None:
    held = 'modelium_model_memory_bytes{kind="held", model="evicted"}'
    assert await watched.prometheus.ever(held)
    assert await watched.prometheus.ever(f'modelium_model_state{{model="evicted", state="UNLOADED"}} unless on (model) {held}')
    [turn] = await watched.prometheus.now("max_over_time(modelium_loop_turn_age_seconds[1m])")
    assert float(turn["value"][1]) > 0
    [pause] = await watched.prometheus.now("max_over_time(modelium_loop_longest_pause_seconds[1m])")
    assert float(pause["value"][1]) > 0  # no timer comes before it is due


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel.id)
async def test_a_panel_has_data(watched: Watched, panel: Panel) -> None:
    for expr, legend in panel.queries:
        found = await watched.prometheus.ever(substituted(expr))
        if panel.id in WITHOUT_DATA:
            assert names_in(expr) <= metric_names.vllm() | metric_names.TRITON_GPU
            continue
        assert found, f"no data: {expr}"
        _fits(legend, found)


def _fits(legend: str, found: Series) -> None:
    for label in re.findall(r"\{\{(\w+)\}\}", legend):
        assert any(label in series["metric"] for series in found), f"{legend}: no {label} in {found[0]['metric']}"


async def test_the_panels_without_data_are_panels() -> None:
    assert WITHOUT_DATA.keys() <= {panel.id for panel in panels()}

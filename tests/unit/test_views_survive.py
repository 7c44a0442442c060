"""Whatever one folder says, every list, plan and scrape is answered, with that model in it and all others as they are."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, RenderableType

from modelium.analyzers import analyze
from modelium.cli import replies, show
from modelium.config import Settings
from modelium.controller.events import ServerUp
from modelium.gateway import build_app, build_metrics_app
from modelium.metrics import Recorder, collect
from modelium.values import Analysis, Candidate, Footprint, ModelOverride, ModelProfile, State
from tests import hostile
from tests.unit.controller.test_controller_adapters import Here, World, world
from tests.unit.controller.test_controller_revisions import Calls

SAID = (
    "json-surrogates",
    "label-surrogate",
    "label-count",
    "width-huge",
    "llm-layers",
    "llm-heads",
    "llm-context",
    "stages-huge",
    "parameters-huge",
    "name-not-utf8",
    "json-digits",
    "link-outside",
)
SIZES = (
    "num_hidden_layers",
    "num_key_value_heads",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "sliding_window",
    "num_local_experts",
    "num_experts_per_tok",
)
ODD_SIZES: tuple[object, ...] = (2**39, 2**63, -1, 0, 1.5, True, "8", 10**400, [], None)


@contextlib.asynccontextmanager
async def viewed(here: World, client: Calls) -> AsyncIterator[tuple[TestClient[Any, Any], TestClient[Any, Any]]]:
    settings, recorder = Settings(), Recorder()
    async with (
        TestClient(TestServer(build_app(here.controller, client, settings, recorder))) as gateway,
        TestClient(TestServer(build_metrics_app(here.controller, settings, recorder))) as metrics,
    ):
        yield gateway, metrics


def text_of(shown: RenderableType) -> None:
    """It can be printed, also where output is UTF-8 and nothing else."""
    with Console(file=io.StringIO(), width=200) as console:
        console.print(shown)
        cast("io.StringIO", console.file).getvalue().encode()


async def everything_answers(here: World, client: Calls, names: set[str]) -> dict[str, dict[str, Any]]:
    """Each view, and what ``modelium list`` and ``plan`` make of it; the rows of ``GET /models``."""
    async with viewed(here, client) as (gateway, metrics):
        answer = await gateway.get("/models")
        assert answer.status == 200
        listed = await answer.read()
        rows = {row["name"]: row for row in json.loads(listed)["models"]}
        assert rows.keys() == names
        text_of(show.models(replies.models(listed)))
        for path in ("/plan", "/v1/models", *(f"/models/{name}" for name in names)):
            assert (await gateway.get(path)).status == 200, path
        text_of(show.plan(replies.plan(await (await gateway.get("/plan")).read())))
        scraped = await metrics.get("/metrics")
        assert scraped.status == 200
        families = {family.name: family for family in text_string_to_metric_families(await scraped.text())}
        assert {sample.labels["model"] for sample in families["modelium_model_state"].samples} == names
    return rows


async def test_every_view_answers_whatever_folders_say(tmp_path: Path) -> None:
    triton = Calls()
    async with world(tmp_path, client=triton, orchestration={"load_on_discovery": True}) as here:
        here.controller.post(ServerUp(version="2.51.0", index={}, owned={}))
        hostile.lay(here.incoming / "good", hostile.model(hostile.BERT))
        for kind in SAID:
            hostile.KINDS[kind](here.incoming / kind, 1)
        for size in SIZES:
            for number, odd in enumerate(ODD_SIZES):
                hostile.lay(here.incoming / f"{size}-{number}", hostile.model({**hostile.LLAMA, size: odd}))
        names = {"good", *SAID, *(f"{size}-{number}" for size in SIZES for number in range(len(ODD_SIZES)))}
        await here.until_state("good", State.LOADED)
        await here.until(lambda: all(here.status(name).reason != "found, not looked at yet" for name in names))
        rows = await everything_answers(here, triton, names)
        assert rows["good"]["state"] == "LOADED"
        assert not [row for row in rows.values() if "defect of Modelium" in row["reason"]]


class Odd(Here):
    """Finds in one folder what no analyzer should let through."""

    async def analyze(self, candidate: Candidate, override: ModelOverride, *, soon: bool = False) -> Analysis:
        found = analyze(candidate, override)
        if candidate.name == "odd" and isinstance(found, ModelProfile):
            return replace(found, parameters=cast("int", "many"), weight_bytes=cast("int", None))
        return found


async def test_a_profile_that_makes_no_sense_is_refused_and_the_others_are_served(tmp_path: Path) -> None:
    triton = Calls()
    async with world(tmp_path, client=triton, analysts=Odd(), orchestration={"load_on_discovery": True}) as here:
        here.controller.post(ServerUp(version="2.51.0", index={}, owned={}))
        for name in ("good", "odd"):
            hostile.lay(here.incoming / name, hostile.model(hostile.BERT))
        await here.until_state("good", State.LOADED)
        odd = await here.until_state("odd", State.UNSUPPORTED)
        assert "a defect of Modelium: TypeError" in odd.reason
        await everything_answers(here, triton, {"good", "odd"})


@pytest.mark.parametrize("bytes_said", [10**400, "many"], ids=["huge", "words"])
async def test_a_series_that_cannot_be_written_costs_that_series_alone(tmp_path: Path, bytes_said: Any) -> None:
    async with world(tmp_path) as here:
        for name in ("good", "odd"):
            hostile.lay(here.incoming / name, hostile.model(hostile.BERT))
            await here.until_state(name, State.UNLOADED)
        whole = await here.controller.snapshot()
        size = Footprint(estimated_bytes=bytes_said, measured_bytes=None)
        broken = replace(whole, models=tuple(replace(m, footprint=size) if m.name == "odd" else m for m in whole.models))
        samples = [sample for family in collect(broken, Recorder()) for sample in family.samples]
        assert {s.labels["model"] for s in samples if s.name == "modelium_model_state"} == {"good", "odd"}
        assert {s.labels["model"] for s in samples if s.name == "modelium_model_memory_bytes"} == {"good"}
        assert all(isinstance(s.value, int | float) for s in samples)

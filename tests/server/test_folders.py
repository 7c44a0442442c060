"""Folders that are left alone by nobody: what lies about beside models, and what is done to them while they serve."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelium.app import running
from modelium.errors import ConfigError, TritonError
from tests.patience import PATIENCE_S
from tests.server.conftest import find_model
from tests.server.systems import System, settings_of, system, write_adder


async def test_stray_files_take_no_model_out_of_service(tmp_path: Path) -> None:
    async with system(tmp_path, orchestration={"model_discovery": {"scan_interval_seconds": 0.2}}) as modelium:
        judge = modelium.incoming / "acme" / "judge"
        judge.mkdir(parents=True)
        write_adder(judge / "model.onnx")
        before = await modelium.becomes("acme--judge", "LOADED")
        for stray in ("download.log", "desktop.ini", "checksums.txt", "CACHEDIR.TAG", "x.tmp", "config.json"):
            (modelium.incoming / "acme" / stray).write_text("x")
            (modelium.incoming / "acme" / "old.zip").write_bytes(b"PK")
            assert (await modelium.add("acme--judge", 1.0))[0] == 200
        found = await modelium.until("/models", lambda found: bool(found["unclaimed"]), "the archive is named")
        assert [one["path"] for one in found["unclaimed"]] == [str(modelium.incoming / "acme" / "old.zip")]
        assert "acme--judge" in [model["name"] for model in found["models"]]
        after = await modelium.get("/models/acme--judge")
        assert (after["state"], after["loads"], after["unloads"]) == ("LOADED", before["loads"], 0)


async def test_a_watch_directory_that_is_lost_takes_no_model_away(tmp_path: Path) -> None:
    async with system(tmp_path, orchestration={"model_discovery": {"scan_interval_seconds": 0.2}}) as modelium:
        write_adder(modelium.incoming / "adder.onnx")
        await modelium.becomes("adder", "LOADED")
        modelium.incoming.rename(tmp_path / "elsewhere")
        lost = await modelium.until("/models", lambda found: bool(found["directories"][0]["suspended"]), "it is suspended")
        assert [model["state"] for model in lost["models"]] == ["LOADED"]
        assert (await modelium.add("adder", 1.0))[0] == 200
        assert f'modelium_watch_directory_up{{path="{modelium.incoming}"}} 0.0' in await modelium.metrics()
        (tmp_path / "elsewhere").rename(modelium.incoming)
        await modelium.until("/models", lambda found: not found["directories"][0]["suspended"], "it is back")
        assert (await modelium.get("/models/adder"))["loads"] == 1


async def test_a_second_modelium_is_refused_at_once_and_the_first_goes_on(tmp_path: Path) -> None:
    async with system(tmp_path) as modelium:
        write_adder(modelium.incoming / "adder.onnx")
        await modelium.becomes("adder", "LOADED")
        port = int(modelium.running.gateway_url.rpartition(":")[2])
        triton = {"state_directory": tmp_path / "another"}
        with pytest.raises(ConfigError, match="another Modelium"):
            async with asyncio.timeout(PATIENCE_S), running(settings_of(tmp_path, triton=triton)):
                pass
        triton["model_repository"] = tmp_path / "another-repository"
        with pytest.raises(TritonError, match=f"port {port} for Modelium is taken"):
            async with asyncio.timeout(PATIENCE_S), running(settings_of(tmp_path, triton=triton, gateway={"port": port})):
                pass
        assert (await modelium.add("adder", 1.0))[0] == 200


# -- written in place while it serves --------------------------------------------------------------------------------

TEXT = {"inputs": "a model that is replaced while it serves"}


async def ask(modelium: System, deadline_s: float = PATIENCE_S) -> tuple[int, Any]:
    return await modelium.post("/predict/tiny", TEXT, headers={"X-Request-Timeout": str(deadline_s)})


def near(left: Any, right: Any) -> bool:
    return np.allclose(np.asarray(left, dtype=np.float32), np.asarray(right, dtype=np.float32), atol=1e-4)


async def test_weights_that_are_cut_and_copied_over_cost_neither_the_model_nor_a_wrong_answer(
    tmp_path: Path, test_models: Path
) -> None:
    """What ``cp`` does: the file is cut to nothing, half of it is written, then the rest."""
    async with system(tmp_path, orchestration={"model_discovery": {"scan_interval_seconds": 0.5}}) as modelium:
        folder = modelium.incoming / "tiny"
        shutil.copytree(find_model(test_models, "minilm"), folder)
        loaded = await modelium.becomes("tiny", "LOADED")
        status, right = await ask(modelium)
        assert status == 200
        weights = folder / "model.safetensors"
        content = weights.read_bytes()
        half = len(content) // 2
        with weights.open("r+b", buffering=0) as file:
            file.truncate(0)
            await modelium.becomes("tiny", "LOADED", lambda model: "not complete yet" in model["revision_error"])
            file.write(content[:half])
            # What was loaded is its own copy, whatever becomes of the file.
            for _ in range(3):
                status, answer = await ask(modelium)
                assert status == 200 and near(answer, right), (status, answer)
            # Unloaded meanwhile, it would have to be loaded from half a file.
            await modelium.post("/models/tiny/unload")
            status, answer = await ask(modelium, deadline_s=1)
            assert status in (503, 504), answer
            model = await modelium.becomes("tiny", "INCOMPLETE")
            assert not model["failures"] and model["loads"] == loaded["loads"], model
            file.write(content[half:])
        await modelium.until("/models/tiny", lambda model: model["state"] != "INCOMPLETE", "it is whole again")
        status, answer = await ask(modelium)
        assert status == 200 and near(answer, right), (status, answer)
        model = await modelium.becomes("tiny", "LOADED")
        assert not model["failures"] and model["loads"] == loaded["loads"] + 1, model


async def test_a_folder_that_changed_unseen_is_looked_at_before_it_is_loaded(tmp_path: Path, test_models: Path) -> None:
    """What ``rsync --inplace`` does: other contents of the same length, in the same file. No scan has seen it."""
    async with system(tmp_path, orchestration={"model_discovery": {"scan_interval_seconds": 600}}) as modelium:
        folder = modelium.incoming / "tiny"
        shutil.copytree(find_model(test_models, "minilm"), folder)
        before = await modelium.becomes("tiny", "LOADED")
        status, first = await ask(modelium)
        assert status == 200
        await modelium.post("/models/tiny/unload")
        await modelium.becomes("tiny", "UNLOADED")
        weights = folder / "model.safetensors"
        with weights.open("r+b", buffering=0) as file:  # not closed before the request: no file event comes of this
            file.seek(-(2**24), 2)
            file.write(bytes(2**23))
            status, second = await ask(modelium)
        assert status == 200 and not near(first, second)
        after = await modelium.becomes("tiny", "LOADED")
        assert after["profile"]["fingerprint"] != before["profile"]["fingerprint"]
        assert not after["failures"]


async def test_a_model_whose_runtime_is_off_is_refused_before_anybody_asks(tmp_path: Path) -> None:
    """What was there before Triton was up as well as what comes later."""
    asleep = {"load_on_discovery": False, "model_discovery": {"scan_interval_seconds": 0.2}}
    (tmp_path / "incoming").mkdir()
    write_adder(tmp_path / "incoming" / "early.onnx")
    async with system(tmp_path, onnx={"enabled": False}, orchestration=asleep) as modelium:
        write_adder(modelium.incoming / "late.onnx")
        for name in ("early", "late"):
            seen = await modelium.becomes(name, "UNSUPPORTED")
            assert "onnx.enabled is false" in seen["reason"]
            assert [decision["verb"] for decision in seen["decisions"]] == ["refuse"]
            status, answer = await modelium.add(name, 1.0)
            assert (status, answer["type"]) == (503, "not_servable")
        listed = await modelium.get("/v1/models")
        assert listed["data"] == []

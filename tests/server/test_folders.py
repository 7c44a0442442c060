"""Folders that are left alone by nobody: what lies about beside models, and what is done to them while they serve."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from modelium.app import running
from modelium.errors import ConfigError, TritonError
from tests.server.systems import settings_of, system, write_adder


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
            async with asyncio.timeout(60), running(settings_of(tmp_path, triton=triton)):
                pass
        triton["model_repository"] = tmp_path / "another-repository"
        with pytest.raises(TritonError, match=f"port {port} for Modelium is taken"):
            async with asyncio.timeout(60), running(settings_of(tmp_path, triton=triton, gateway={"port": port})):
                pass
        assert (await modelium.add("adder", 1.0))[0] == 200

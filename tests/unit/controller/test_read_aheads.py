"""Weights that are read before anybody asks: whose, which files, how much, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from modelium.brain.arrivals import learned
from modelium.brain.preload import spare_bytes
from modelium.controller.background import Background
from modelium.controller.page_cache import read_ahead, weight_files
from modelium.controller.read_aheads import ReadAheads
from modelium.metrics import Recorder
from modelium.metrics.families import READ_AHEAD_BYTES, READ_AHEADS
from modelium.simulation.simulator import Conditions, Simulator
from modelium.values import Arrivals, OnnxGraph, Policies, WeightFormat
from tests.patience import PATIENCE_S
from tests.unit.brain.worlds import GIB, MIB, host, profile
from tests.unit.simulation.small import fleet_of, models_of

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "incoming" / "m").mkdir(parents=True)
    return tmp_path / "incoming" / "m"


def write(path: Path, size: int = 1000) -> Path:
    path.write_bytes(os.urandom(size))
    return path


def names(folder: Path, **changes: object) -> list[str]:
    model = replace(profile("m"), path=folder, **changes)  # type: ignore[arg-type]
    return [path.name for path in weight_files(model, folder.parent)]


def test_of_a_folder_the_files_are_read_that_a_load_reads(folder: Path) -> None:
    for name in (*SHARDS, "model-of-somebody-else.safetensors", "pytorch_model.bin"):
        write(folder / name)
    assert names(folder) == []
    index = {"weight_map": {"a": SHARDS[1], "b": SHARDS[0], "c": SHARDS[0], "d": "not-there.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert names(folder) == list(SHARDS)
    assert names(folder, weight_format=WeightFormat.PICKLE) == ["pytorch_model.bin"]
    write(folder / "model.safetensors")
    assert names(folder) == ["model.safetensors"]


def test_of_a_file_that_is_a_model_it_is_that_file(folder: Path) -> None:
    model = replace(profile("m"), path=write(folder / "m.gguf", 77), weight_format=WeightFormat.GGUF)
    assert weight_files(model, folder.parent) == {folder / "m.gguf": 77}
    (folder / "onnx").mkdir()
    write(folder / "onnx" / "model.onnx")
    graph = OnnxGraph(inputs=(), outputs=(), dynamic_batch=True, opset=17)
    assert names(folder, weight_format=WeightFormat.ONNX, onnx=graph, onnx_file="onnx/model.onnx") == ["model.onnx"]


@pytest.mark.parametrize("index", ["", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 3, "b": "../../secret"}}'])
def test_what_is_no_index_names_no_files(folder: Path, index: str) -> None:
    write(folder.parent.parent / "secret")
    (folder / "model.safetensors.index.json").write_text(index)
    assert names(folder) == []


def test_links_are_followed_inside_the_watched_directory_and_nothing_but_files_is_read(folder: Path) -> None:
    blob = write(folder.parent / "blob")
    (folder / "model.safetensors").symlink_to(blob)
    assert names(folder) == ["blob"]
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(write(folder.parent.parent / "elsewhere"))
    assert names(folder) == []
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    assert names(folder) == []


async def test_what_is_read_ahead_is_in_the_page_cache(folder: Path) -> None:
    path = write(folder / "model.safetensors", 40 * MIB + 5)
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    await read_ahead({path: 40 * MIB + 5, folder / "gone": 3})
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not all(is_cached(descriptor, at) for at in range(0, 40 * MIB, MIB)):  # noqa: ASYNC110 — the kernel tells nobody
                await asyncio.sleep(0.01)
    finally:
        os.close(descriptor)


def is_cached(descriptor: int, at: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(4096)], at, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False


def test_only_memory_that_nobody_needs_is_read_into() -> None:
    machine = host(total=100 * GIB, used=20 * GIB)
    assert spare_bytes(machine, promised=0, pressure_fraction=0.9) == 70 * GIB
    assert spare_bytes(machine, promised=30 * GIB, pressure_fraction=0.9) == 40 * GIB
    assert spare_bytes(machine, promised=80 * GIB, pressure_fraction=0.9) == 0


class Expecting:
    """A model that is asked each minute, and was asked the last time when its clock is at 0."""

    def __init__(self, folder: Path) -> None:
        self._simulator = Simulator(models_of(12), fleet_of(40), Policies(), Conditions())
        model = self._simulator.models.get("m0")
        assert model is not None
        self.model, self.recorder = model, Recorder()
        self.read_aheads = ReadAheads(self._simulator.models, Background(), self.recorder, Policies())
        candidate = replace(model.record.folder.candidate, path=folder, root=folder.parent)
        found = replace(profile("m0"), path=folder)
        model.record = replace(
            model.record, folder=replace(model.record.folder, candidate=candidate, profile=found, plain=found)
        )
        arrivals = Arrivals()
        for minute in range(9):
            arrivals = learned(arrivals, 60.0, now=minute * 60.0)
        self._arrivals = arrivals
        self.ask(0.0)

    def ask(self, at: float) -> None:
        window = replace(self.model.record.use.window, asked_at=1e6 + at, ended_at=1e6 + at, arrivals=self._arrivals)
        self.model.record = replace(self.model.record, use=replace(self.model.record.use, window=window))

    def load(self, at: float) -> None:
        self.model.record = replace(self.model.record, past=replace(self.model.record.past, loaded_at=1e6 + at))

    async def look(self, at: float, *, used: int = 0) -> dict[str, int]:
        """What is counted so many seconds after the first request."""
        if (reading := self.read_aheads.look(1e6 + at, host(total=100 * GIB, used=used), promised=0)) is not None:
            await reading
        counted = {labels[0]: int(value) for labels, value in self.recorder.counted(READ_AHEADS)}
        return counted | {"bytes": int(sum(value for _, value in self.recorder.counted(READ_AHEAD_BYTES)))}


async def test_it_is_read_shortly_before_it_is_expected_and_once(folder: Path) -> None:
    write(folder / "model.safetensors", 5000)
    world = Expecting(folder)
    assert await world.look(1.0) == {"bytes": 0}
    assert await world.look(50.0) == {"begun": 1, "bytes": 5000}
    assert await world.look(56.0) == {"begun": 1, "bytes": 5000}
    world.load(60.0)
    assert await world.look(62.0) == {"begun": 1, "used": 1, "bytes": 5000}
    world.ask(61.0)
    assert await world.look(111.0) == {"begun": 2, "used": 1, "bytes": 10000}
    assert await world.look(2000.0) == {"begun": 2, "used": 1, "wasted": 1, "bytes": 10000}


async def test_what_has_no_room_is_not_read(folder: Path) -> None:
    write(folder / "model.safetensors", 5000)
    assert await Expecting(folder).look(50.0, used=90 * GIB - 4999) == {"bytes": 0}
    assert await Expecting(folder).look(50.0, used=90 * GIB - 5000) == {"begun": 1, "bytes": 5000}

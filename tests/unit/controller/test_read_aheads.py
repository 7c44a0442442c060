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
from modelium.controller.page_cache import find_files, read_ahead
from modelium.controller.read_aheads import ReadAheads
from modelium.metrics import Recorder
from modelium.metrics.families import READ_AHEAD_BYTES, READ_AHEADS
from modelium.simulation.simulator import Conditions, Simulator
from modelium.values import Arrivals, Policies
from tests.patience import PATIENCE_S
from tests.unit.brain.worlds import GIB, MIB, host, profile
from tests.unit.simulation.small import fleet_of, models_of

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "incoming" / "m").mkdir(parents=True)
    return tmp_path / "incoming" / "m"


def write(path: Path, size: int = 1000) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(os.urandom(size))
    return path


def names(folder: Path, *named: str) -> list[str]:
    model = replace(profile("m"), path=folder, weight_files=named)
    return [path.name for path in find_files(model, folder.parent)]


def test_of_a_folder_those_files_are_read_that_its_analysis_named(folder: Path) -> None:
    for name in (*SHARDS, "model-of-somebody-else.safetensors", "onnx/model.onnx"):
        write(folder / name)
    assert names(folder) == []
    assert names(folder, *reversed(SHARDS), "not-there.safetensors") == [*reversed(SHARDS)]
    assert names(folder, "onnx/model.onnx", "onnx") == ["model.onnx"]


def test_an_index_is_read_by_the_analysis_alone(folder: Path) -> None:
    """It may be anything by now: its names come with the profile."""
    write(folder / SHARDS[0])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": SHARDS[0]}}))
    assert names(folder) == []
    assert names(folder, SHARDS[0]) == [SHARDS[0]]


def test_of_a_file_that_is_a_model_it_is_that_file_and_those_beside_it(folder: Path) -> None:
    write(folder / "m-2.gguf", 78)
    model = replace(profile("m"), path=write(folder / "m-1.gguf", 77), weight_files=("m-1.gguf", "m-2.gguf"))
    assert find_files(model, folder.parent) == {folder / "m-1.gguf": 77, folder / "m-2.gguf": 78}


def test_a_worker_that_was_taken_over_names_no_files_elsewhere(folder: Path) -> None:
    """What is said to be an analysis is bounded, but its names may be any."""
    for place in (folder.parent.parent, folder.parent / "another"):
        write(place / "secret")
    odd = ("../../secret", "../another/secret", str(folder.parent / "another" / "secret"), "a\0b", "", ".", "x" * 5000, "/")
    assert names(folder, *odd) == []


def test_links_are_followed_inside_the_watched_directory_and_nothing_but_files_is_read(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.symlink_to(write(folder.parent / "blob"))
    assert names(folder, weights.name) == ["blob"]
    for target in (write(folder.parent.parent / "elsewhere"), weights, folder / "nothing"):  # the second leads to itself
        weights.unlink()
        weights.symlink_to(target)
        assert names(folder, weights.name) == []
    weights.unlink()
    os.mkfifo(weights)
    assert names(folder, weights.name) == []


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
        found = replace(profile("m0"), path=folder, weight_files=("model.safetensors",))
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

"""Memory that unloads leave behind, from the readings to the device as users see it. The devices are a list of what is read."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from modelium.controller.background import Background
from modelium.controller.events import About, Event, Measured, MemoryLeft, ServerDown, ServerUp
from modelium.controller.life.effects import Unload
from modelium.controller.life.events import HasUnloaded
from modelium.controller.residues import Residues
from modelium.controller.server import Server
from modelium.controller.work import Work
from modelium.devices import Devices, Process, find_process
from modelium.errors import TritonUnavailable
from modelium.ray import RayService
from modelium.repository import ModelRepository
from modelium.sizes import GIB, MIB
from modelium.triton.client import ModelStatistics
from modelium.values import Device, RayFacts, State, VllmFacts
from tests.patience import PATIENCE_S
from tests.unit.controller.test_controller_adapters import Here, World, llama, world
from tests.unit.controller.test_controller_revisions import Calls

PID = 4711


class Levels(Devices):
    """What Triton itself, or nobody, holds. ``to_come``: what the next readings find, then ``now``."""

    def __init__(self, **now: int) -> None:
        super().__init__(host_memory=8 * GIB, gpu_memory_fraction=0.9)
        self.now = now
        self.to_come: list[dict[str, int]] = []
        self.broken = False

    def residues(self, server_pid: int) -> dict[str, int]:
        if self.broken:
            raise OSError("/proc is not what it was")
        return self.to_come.pop(0) if self.to_come else dict(self.now)

    def processes(self, server_pid: int) -> dict[str, tuple[Process, ...]]:
        return {}


class Seen:
    """Residues, and what they say. ``pid`` is Triton's."""

    def __init__(self, levels: Levels) -> None:
        self.said: list[Event] = []
        self.pid: int | None = PID
        self.residues = Residues(self.said.append, levels, lambda: self.pid)

    def left(self) -> dict[str, dict[str, int]]:
        return {event.model: dict(event.grown) for event in self.said if isinstance(event, MemoryLeft)}

    async def loads(self, name: str, *devices: str) -> None:
        await self.residues.end(await self.residues.load(name, devices))

    async def goes(self, name: str, *, died: bool = False) -> None:
        window = await self.residues.unload(name, died=died)
        await self.residues.end(window, back_by=time.monotonic() + PATIENCE_S)
        self.residues.settle(name)


async def test_what_grew_over_a_load_and_an_unload_is_left_and_what_grew_between_is_not() -> None:
    levels = Levels(host=100 * MIB)
    seen = Seen(levels)
    levels.to_come = [{"host": 100 * MIB}, {"host": 130 * MIB}]
    await seen.loads("bert", "host")
    levels.to_come = [{"host": 500 * MIB}, {"host": 480 * MIB}]  # it answered meanwhile, with Triton's help
    await seen.goes("bert")
    assert seen.left() == {"bert": {"host": 10 * MIB}}


async def test_on_a_gpu_memory_that_is_late_is_waited_for_and_what_never_comes_is_left() -> None:
    levels = Levels(**{"host": 0, "cuda:0": GIB, "cuda:1": GIB})
    seen = Seen(levels)
    await seen.loads("late", "cuda:0")
    levels.to_come = [dict(levels.now), *[{"host": 0, "cuda:0": 5 * GIB, "cuda:1": GIB}] * 3]
    await seen.goes("late")
    assert not levels.to_come
    assert seen.left() == {"late": {"host": 0, "cuda:0": 0}}

    await seen.loads("never", "cuda:0", "cuda:1")
    window = await seen.residues.unload("never")
    levels.now = {"host": 0, "cuda:0": 5 * GIB, "cuda:1": 4 * GIB}
    await seen.residues.end(window, back_by=time.monotonic())
    seen.residues.settle("never")
    assert seen.left()["never"] == {"host": 0, "cuda:0": 4 * GIB, "cuda:1": 3 * GIB}


async def test_where_others_come_or_go_meanwhile_nobody_is_judged() -> None:
    levels = Levels(**{"host": 0, "cuda:0": 0, "cuda:1": 0})
    seen = Seen(levels)
    await asyncio.gather(seen.loads("one", "cuda:0"), seen.loads("two", "cuda:1"))
    levels.now = {"host": GIB, "cuda:0": GIB, "cuda:1": 0}
    await seen.loads("three", "cuda:1")
    for name in ("one", "two", "three"):
        await seen.goes(name)
    assert seen.left() == {"one": {"cuda:0": 0}, "two": {"cuda:1": 0}, "three": {"host": 0, "cuda:1": 0}}


async def test_of_a_model_that_died_the_reading_before_says_what_was_there() -> None:
    levels = Levels(**{"host": 0, "cuda:0": GIB})
    seen = Seen(levels)
    await seen.loads("llama", "cuda:0")
    seen.residues.note(PID, {"host": 0, "cuda:0": GIB + MIB})
    levels.now = {"host": 0, "cuda:0": 3 * GIB + MIB}  # its process is gone, its memory is not
    window = await seen.residues.unload("llama", died=True)
    await seen.residues.end(window, back_by=time.monotonic())
    seen.residues.settle("llama")
    assert seen.left() == {"llama": {"host": 0, "cuda:0": 2 * GIB}}


async def test_a_load_of_another_triton_says_nothing_and_a_broken_reading_breaks_nothing() -> None:
    levels = Levels(host=0)
    seen = Seen(levels)
    await seen.loads("bert", "host")
    seen.pid = PID + 1
    await seen.goes("bert")
    await seen.loads("bert", "host")
    levels.broken = True
    await seen.goes("bert")
    seen.pid, levels.broken = None, False
    await seen.loads("bert", "host")
    assert not seen.said


@pytest.fixture
def stubborn() -> Iterator[Process]:
    """A process that ends only when it is killed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        found = find_process(running.pid)
        assert found is not None
        yield found
        running.kill()


async def test_an_unload_that_had_to_kill_says_so_and_what_it_left_is_counted(tmp_path: Path, stubborn: Process) -> None:
    levels, background, events = Levels(**{"host": 0, "cuda:0": 0}), Background(), asyncio.Queue[Event]()
    triton = Calls()
    server = Server(
        client=triton,
        repository=ModelRepository(tmp_path / "repository"),
        devices=levels,
        backends=frozenset,
        vllm=VllmFacts,
        pid=lambda: PID,
        owner="",
    )
    residues = Residues(events.put_nowait, levels, server.pid)
    work = Work(
        events.put_nowait,
        background,
        server,
        overrides={},
        ray=RayService(None, RayFacts()),
        analysts=Here(),
        load_timeout_s=PATIENCE_S,
        unload_timeout_s=0.01,
        residues=residues,
    )
    await residues.end(await residues.load("llama", ["cuda:0"]))
    levels.to_come, levels.now = [{"host": 0, "cuda:0": 0}], {"host": 0, "cuda:0": 3 * GIB}
    try:
        work.unload("llama", Unload(number=1, processes=(stubborn,), remove=False), current=lambda: True)
        async with asyncio.timeout(PATIENCE_S):
            left, about = await events.get(), await events.get()
    finally:
        await background.close()
        await triton.close()
    assert isinstance(about, About) and isinstance(about.event, HasUnloaded) and about.event.killed
    assert left == MemoryLeft(model="llama", grown={"host": 0, "cuda:0": 3 * GIB}, residues={"host": 0, "cuda:0": 3 * GIB})


# -- with the whole controller -----------------------------------------------------------------------------------------


class Unread(Calls):
    """It is never measured by itself: a reading is what the test says."""

    async def statistics(self) -> dict[str, ModelStatistics]:
        raise TritonUnavailable("not now")


def reading(**residues: int) -> Measured:
    return Measured(generation=1, started_at=0.0, statistics={}, index={}, processes=None, held={}, residues=residues)


@contextlib.asynccontextmanager
async def served(top: Path, levels: Levels) -> AsyncIterator[World]:
    settings = {"orchestration": {"load_on_discovery": True}, "triton": {"state_directory": top}}
    async with world(top, client=Unread(), analysts=None, devices=levels, server_pid=PID, **settings) as here:
        here.controller.post(ServerUp(version="2.51.0", index={}, owned={}))
        llama(here.incoming / "llama")
        await here.until_state("llama", State.LOADED)
        yield here


async def _host(here: World) -> Device:
    (host,) = (await here.controller.snapshot()).fleet.hosts()
    return host


async def _no_leak(here: World) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await _host(here)).leaked_bytes:  # noqa: ASYNC110 - the queue has no event for its being empty
            await asyncio.sleep(0.005)


async def test_the_device_is_marked_until_the_memory_comes_back_and_its_budget_is_what_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    levels = Levels(host=GIB)
    async with served(tmp_path, levels) as here:
        before = await _host(here)
        assert (before.leaked_bytes, before.budget_bytes) == (0, min(8 * GIB, before.total_bytes))
        leaked = before.total_bytes - 4 * GIB
        levels.to_come = [{"host": GIB}]
        levels.now = {"host": GIB + leaked}
        await here.controller.unload("llama", timeout_s=PATIENCE_S)
        host = await _host(here)
        assert (host.leaked_bytes, host.budget_bytes) == (leaked, 4 * GIB)
        assert "llama" in caplog.text and "did not come back" in caplog.text

        here.controller.post(reading(host=GIB))
        await _no_leak(here)
        assert (await _host(here)).budget_bytes == before.budget_bytes


async def test_a_new_triton_has_no_leaks(tmp_path: Path) -> None:
    levels = Levels(host=GIB)
    async with served(tmp_path, levels) as here:
        levels.to_come, levels.now = [{"host": GIB}], {"host": 3 * GIB}
        await here.controller.unload("llama", timeout_s=PATIENCE_S)
        assert (await _host(here)).leaked_bytes == 2 * GIB
        here.controller.post(ServerDown(detail="ended"))
        await _no_leak(here)

"""What is done with the effects of a step, and by whom: no effect that cannot be done keeps another from being done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from modelium.controller.events import About, Event
from modelium.controller.life import events as happens
from modelium.controller.life.effects import Check, Load, Unload, Watch
from modelium.controller.model import Model
from modelium.controller.models import Models
from modelium.controller.state import ControllerState
from modelium.ledger import Ledger
from modelium.metrics import Recorder
from modelium.values import Candidate, Capabilities, Device, Fleet, State
from tests.unit.brain.worlds import GIB, host
from tests.unit.controller.histories import ARRIVED, CONTEXT, SEEN_AT_WORK, folder_found, load


class Exhausted:
    """Both ports, on a machine that has no file descriptor left for the methods named in ``breaks``."""

    def __init__(self) -> None:
        self.breaks: set[str] = set()
        self.asked: list[str] = []

    def _do(self, what: str) -> None:
        self.asked.append(what)
        if what in self.breaks:
            raise OSError(24, "Too many open files")

    def analyze(self, candidates: Sequence[tuple[str, Candidate]], *, soon: bool) -> None:
        self._do("analyze")

    def load(self, key: str, order: Load) -> None:
        self._do("load")

    def unload(self, key: str, order: Unload, *, current: Callable[[], bool]) -> None:
        self._do("unload")

    def bury(self, key: str, number: int) -> None:
        self._do("bury")

    def end(self, key: str) -> None:
        self._do("end")

    def discard(self, key: str) -> None:
        self._do("discard")

    def remove(self, key: str) -> None:
        self._do("remove")

    def fleet(self) -> Fleet:
        return Fleet(devices=(host(8 * GIB),))

    def capabilities(self) -> Capabilities:
        return Capabilities(backends=frozenset({"python"}))

    def check(self, key: str, order: Check) -> None:
        self._do("check")

    def watch(self, key: str, order: Watch) -> Iterator[Callable[[], None]]:
        for process in order.processes:
            yield partial(self._do, f"stop watching {process.pid}")

    def measure(self, generation: int, places: Callable[[], Mapping[str, Device]]) -> None:
        self._do("measure")


@pytest.fixture
def world(tmp_path: Path) -> tuple[Exhausted, list[Event], Models]:
    ports, posted = Exhausted(), list[Event]()
    models = Models(
        ports,
        ports,
        ledger=Ledger.load(tmp_path / "ledger.json"),
        recorder=Recorder(),
        context=lambda: CONTEXT,
        post=posted.append,
        state=ControllerState(),
    )
    return ports, posted, models


def tell(models: Models, *events: happens.LifeEvent) -> Model:
    model = models.get("m") or models.add(folder_found())
    for event in events:
        models.apply(model, event)
    return model


async def test_a_load_that_cannot_begin_has_failed(
    world: tuple[Exhausted, list[Event], Models], caplog: pytest.LogCaptureFixture
) -> None:
    ports, posted, models = world
    ports.breaks = {"load"}
    model = tell(models, *ARRIVED, load())
    (ended,) = [event.event for event in posted if isinstance(event, About)]
    assert isinstance(ended, happens.NotLoaded) and "Too many open files" in str(ended.error)
    assert tell(models, ended).record.state is State.FAILED and model.record.memory.held == 0
    assert "failed once: " in caplog.text


async def test_what_cannot_be_stopped_keeps_the_next_load_from_nothing(world: tuple[Exhausted, list[Event], Models]) -> None:
    ports, _, models = world
    tell(models, *SEEN_AT_WORK)
    ports.breaks = {"stop watching 77"}
    tell(models, happens.ProcessDied(number=1, pid=77))
    assert ports.asked[-2:] == ["stop watching 77", "load"]


async def test_who_waits_is_answered_when_it_is_loaded_and_told_when_it_is_removed(
    world: tuple[Exhausted, list[Event], Models],
) -> None:
    _, _, models = world
    model = tell(models, *ARRIVED)
    waiting = asyncio.create_task(models.requests.wait(model, 600))
    await asyncio.sleep(0)
    assert model.record.use.waiting == 1
    tell(models, load(), happens.HasLoaded(number=1, seconds=1.0))
    with await waiting as lease:
        assert (lease.cold, model.record.use.leases) == (True, 1)
    assert model.record.use.leases == 0


async def test_a_model_that_is_found_anew_is_not_taken_for_the_one_before(world: tuple[Exhausted, list[Event], Models]) -> None:
    _, _, models = world
    tell(models, *ARRIVED, load(), happens.HasLoaded(number=1, seconds=1.0), happens.FolderGone(), happens.PassEnds())
    tell(models, happens.HasUnloaded(number=2, seconds=1.0), happens.PassEnds())
    assert models.get("m") is None
    again = tell(models, *ARRIVED, load(), happens.HasLoaded(number=1, seconds=1.0))
    assert again.record.state is State.LOADING, "the end of a load of the model that was removed"

"""Analysis in processes of its own: the same answers, and a folder that takes too much costs nobody else anything."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from modelium.analysis import Analysts, Notebook
from modelium.analysis.line import Line
from modelium.analysis.notebook import mark_of
from modelium.analysis.process import Ended, Worker
from modelium.analysis.wire import BadAnswer, decode, encode
from modelium.analyzers import analyze
from modelium.values import Candidate, Incomplete, MissingPart, ModelOverride, ModelProfile, Unsupported
from modelium.watcher.survey import Surveyor
from tests import hostile
from tests.unit.analyzers.folders import safetensors
from tests.unit.brain.worlds import profile

ALLOWED = ModelOverride(allow_custom_code=True)
TOO_MUCH = "app=[" + "[]," * 340_000 + "]\n"  # a megabyte of Python, which takes more than half a gigabyte to parse
PATIENT_S = 300.0


def candidate(folder: Path, signature: str = "as it is") -> Candidate:
    return Candidate(
        name=folder.name,
        label=folder.name,
        path=folder,
        root=folder.parent,
        signature=signature,
        newest_mtime=time.time() - 3600,
    )


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENT_S
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return hostile.lay(tmp_path / "good", hostile.model(hostile.BERT))


@pytest.fixture
def greedy(tmp_path: Path) -> Path:
    return hostile.lay(tmp_path / "greedy", {"serve_app.py": TOO_MUCH})


@pytest_asyncio.fixture
async def analysts(tmp_path: Path) -> AsyncIterator[Analysts]:
    pool = Analysts(Notebook(tmp_path / "state"), wall_s=PATIENT_S)
    yield pool
    await pool.close()


async def test_a_worker_answers_as_the_analyzers_do(analysts: Analysts, good: Path, tmp_path: Path) -> None:
    language = hostile.lay(tmp_path / "language", hostile.model(hostile.LLAMA))
    for folder in (good, language):
        found = await analysts.analyze(candidate(folder), ModelOverride())
        assert found == analyze(candidate(folder))
        assert isinstance(found, ModelProfile)


async def test_what_was_read_of_a_growing_copy_is_not_read_again_and_is_told_to_nobody_else(
    analysts: Analysts, tmp_path: Path
) -> None:
    shards = {f"model-0000{number}-of-00002.safetensors": safetensors({f"t{number}": ("F32", [4], 16)}) for number in (1, 2)}
    index = json.dumps({"weight_map": {f"t{number}": shard for number, shard in enumerate(shards, start=1)}})
    files = {**hostile.model(hostile.BERT), "model.safetensors.index.json": index}
    files.pop("model.safetensors")
    first, second = shards
    folders = [hostile.lay(tmp_path / name, {**files, first: shards[first]}) for name in ("one", "other")]
    assert isinstance(await analysts.analyze(candidate(folders[0]), ModelOverride()), Incomplete)
    for folder in folders:
        times = (folder / first).stat()
        (folder / first).write_bytes(shards[first].replace(b"[4]", b"[5]"))  # who reads it again sees it
        os.utime(folder / first, ns=(times.st_atime_ns, times.st_mtime_ns))
        (folder / second).write_bytes(shards[second])
    assert isinstance(await analysts.analyze(candidate(folders[0]), ModelOverride()), ModelProfile)
    assert isinstance(await analysts.analyze(candidate(folders[1]), ModelOverride()), Unsupported)


async def test_a_folder_that_takes_too_much_memory_is_unsupported(analysts: Analysts, good: Path, greedy: Path) -> None:
    found = await analysts.analyze(candidate(greedy), ALLOWED)
    assert isinstance(found, Unsupported)
    assert found.why == "to look at it took more than 512 MiB of memory"
    assert isinstance(await analysts.analyze(candidate(good), ModelOverride()), ModelProfile)


async def test_a_folder_that_takes_too_long_is_not_looked_at_again_until_it_changes(
    analysts: Analysts, good: Path, tmp_path: Path
) -> None:
    """Whatever it does: here the worker is stopped while it looks."""
    other = hostile.lay(tmp_path / "other", hostile.model(hostile.BERT))
    analysts._first_s = PATIENT_S  # the worker is kept, however slowly it says that it is done
    assert isinstance(await analysts.analyze(candidate(other), ModelOverride()), ModelProfile)
    await until(lambda: bool(analysts._idle))
    os.kill(analysts._idle[0].pid, signal.SIGSTOP)
    analysts._wall_s = 0.1
    found = await analysts.analyze(candidate(good), ModelOverride())
    assert isinstance(found, Unsupported)
    assert found.why == "to look at it took more than 0.1 s"
    analysts._wall_s = PATIENT_S
    assert await analysts.analyze(candidate(good), ModelOverride()) == found
    assert isinstance(await analysts.analyze(candidate(other), ModelOverride()), ModelProfile)  # by another worker
    later = Analysts(Notebook(tmp_path / "state"), wall_s=PATIENT_S)  # after a restart
    assert await later.analyze(candidate(good), ModelOverride()) == found
    assert isinstance(await later.analyze(candidate(good, "changed"), ModelOverride()), ModelProfile)
    await later.close()


async def test_what_served_before_is_looked_at_first_and_what_modelium_ended_over_last(tmp_path: Path) -> None:
    folders = [hostile.lay(tmp_path / f"f{number}", hostile.model(hostile.BERT)) for number in range(60)]
    before = Notebook(tmp_path / "state")
    for suspect in folders[:2]:
        before.begin(mark_of(candidate(suspect)))
    analysts = Analysts(Notebook(tmp_path / "state"), wall_s=PATIENT_S, first_s=PATIENT_S, at_once=1)
    order: list[Path] = []

    async def look(folder: Path) -> None:
        await analysts.analyze(candidate(folder), ModelOverride(), soon=folder == folders[-1])
        order.append(folder)

    await asyncio.gather(*map(look, folders))
    assert order[0] == folders[-1] and {*order[-2:]} == {*folders[:2]} and len(order) == len(folders)
    await analysts.close()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_whoever_is_among_the_first_in_any_order_is_soon_next(sizes: list[int]) -> None:
    line = Line[int]()
    for came, size in enumerate(sizes):
        line.push(came, (False,), came=came, reading_bytes=size)
    places = [line.pop() for _ in sizes]
    assert sorted(places) == list(range(len(sizes))) and not len(line) and line.best() is None
    by_size = sorted(range(len(sizes)), key=lambda came: (sizes[came], came))
    for one in range(len(sizes)):
        best = min(one, len(sizes) - 1 - one, by_size.index(one))
        assert places.index(one) < 3 * (best + 1)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 9)), min_size=1, max_size=60))
def test_a_better_class_goes_first_whatever_its_size(looks: list[tuple[bool, bool, int]]) -> None:
    line = Line[tuple[bool, bool]]()
    for came, (slow, later, size) in enumerate(looks):
        line.push((slow, later), (slow, later), came=came, reading_bytes=size)
    assert line.best() == min((slow, later) for slow, later, _ in looks)
    assert [line.pop() for _ in looks] == sorted((slow, later) for slow, later, _ in looks)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.lists(st.booleans(), max_size=60))
def test_whoever_comes_back_keeps_its_number(sizes: list[int], back: list[bool]) -> None:
    line, left = Line[int](), set(range(len(sizes)))
    for came, size in enumerate(sizes):
        line.push(came, (False,), came=came, reading_bytes=size)
    for comes_back in back:
        if not left:
            break
        one = line.pop()
        assert one in left
        if comes_back:
            line.push(one, (False,), came=one, reading_bytes=sizes[one])
        else:
            left.remove(one)
        assert len(line) == len(left)


async def test_a_small_folder_does_not_wait_for_a_crowd_of_heavy_ones(tmp_path: Path) -> None:
    """Whether it came first, last or between them."""
    analysts = Analysts(wall_s=PATIENT_S, first_s=PATIENT_S, at_once=1)
    heavy = {"config.json": b'{"a": [' + b"0," * 200_000 + b"0]}"}
    folders = [hostile.lay(tmp_path / f"heavy{number}", heavy) for number in range(40)]
    good = [hostile.lay(tmp_path / f"good{number}", hostile.model(hostile.BERT)) for number in range(3)]
    dropped = [good[0], *folders[:20], good[1], *folders[20:], good[2]]
    order: list[Path] = []

    async def look(found: Candidate) -> None:
        await analysts.analyze(found, ModelOverride())
        order.append(found.path)

    found = {one.path: one for one in Surveyor(tmp_path).survey(time.time_ns())}
    await asyncio.gather(*(look(found[folder]) for folder in dropped))
    assert {*good} < {*order[:12]}
    await analysts.close()


async def test_a_slow_folder_goes_behind_those_that_wait_for_it(tmp_path: Path) -> None:
    """It is not condemned for its first second: here its worker is stopped, and another one looks at it later."""
    analysts = Analysts(Notebook(tmp_path / "state"), wall_s=PATIENT_S, first_s=0.2)
    folders = [hostile.lay(tmp_path / f"f{number}", hostile.model(hostile.BERT)) for number in range(6)]
    analysts.warm()
    await until(lambda: bool(analysts._idle))
    [stopped] = analysts._idle
    os.kill(stopped.pid, signal.SIGSTOP)
    found = await asyncio.gather(*(analysts.analyze(candidate(folder), ModelOverride()) for folder in folders))
    assert all(isinstance(each, ModelProfile) for each in found)
    await until(lambda: not stopped.is_alive)
    await analysts.close()


async def test_an_orderly_end_amid_a_look_says_nothing_about_the_folder(good: Path, tmp_path: Path) -> None:
    mark = mark_of(candidate(good))
    for _ in range(4):
        analysts = Analysts(Notebook(tmp_path / "state"), wall_s=PATIENT_S)
        analysts.warm()
        await until(lambda here=analysts: bool(here._idle))  # type: ignore[misc]
        os.kill(analysts._idle[0].pid, signal.SIGSTOP)
        looking = asyncio.create_task(analysts.analyze(candidate(good), ModelOverride()))
        await until(lambda here=analysts: mark in here._notebook._under_way)  # type: ignore[misc]
        await analysts.close()
        looking.cancel()
    after = Notebook(tmp_path / "state")
    assert after.why_not(mark) is None and not after.is_suspect(mark)


async def test_a_worker_that_somebody_ended_is_replaced(analysts: Analysts, good: Path) -> None:
    for _ in range(2):
        assert isinstance(await analysts.analyze(candidate(good), ModelOverride()), ModelProfile)
        await until(lambda: bool(analysts._idle))
        os.kill(analysts._idle[0].pid, signal.SIGKILL)
    assert isinstance(await analysts.analyze(candidate(good), ModelOverride()), ModelProfile)


async def test_a_folder_that_took_too_much_costs_no_new_start(analysts: Analysts, greedy: Path, good: Path) -> None:
    await analysts.analyze(candidate(greedy), ALLOWED)
    await until(lambda: bool(analysts._idle))
    [worker] = analysts._idle
    assert isinstance(await analysts.analyze(candidate(good), ModelOverride()), ModelProfile)
    await until(lambda: bool(analysts._idle))
    assert analysts._idle == [worker]


async def test_a_look_that_is_broken_off_leaves_the_worker_for_the_next(greedy: Path, good: Path) -> None:
    worker = await Worker.start()
    await worker.ask(pickle.dumps([(candidate(greedy), ALLOWED, "")]))
    await until(lambda: bool(psutil.Process(worker.pid).children()))
    assert await worker.break_off(PATIENT_S)
    await worker.ask(pickle.dumps([(candidate(good), ModelOverride(), "")]))
    assert decode(await worker.answer()) == analyze(candidate(good))
    with pytest.raises(Ended, match="exit code 0"):
        await worker.answer()
    await worker.end()


def test_a_folder_that_modelium_ended_over_comes_last_and_then_not_at_all(good: Path, tmp_path: Path) -> None:
    mark = mark_of(candidate(good))
    for died_before in range(3):
        notebook = Notebook(tmp_path / "state")
        assert notebook.is_suspect(mark) == bool(died_before)
        assert notebook.why_not(mark) is None
        notebook.begin(mark)  # and no end
    assert Notebook(tmp_path / "state").why_not(mark) == "Modelium was killed 3 times while it looked at it"


def test_a_folder_that_was_looked_at_is_no_suspect(good: Path, tmp_path: Path) -> None:
    mark = mark_of(candidate(good))
    Notebook(tmp_path / "state").begin(mark)
    again = Notebook(tmp_path / "state")
    again.begin(mark)
    again.end(mark)
    after = Notebook(tmp_path / "state")
    assert not after.is_suspect(mark)
    assert after.why_not(mark) is None


def test_an_answer_is_built_from_its_types_alone(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    whole = Incomplete(name="a", path=odd, why="b", missing=(MissingPart(file="c", present_bytes=1),))
    assert decode(encode(whole)) == whole
    for broken in (
        b"",
        b"[]",
        b'{"kind": "Path", "value": {}}',
        encode(whole).replace(b'"present_bytes": 1', b'"present_bytes": "1"'),
    ):
        with pytest.raises(BadAnswer):
            decode(broken)
    large = json.loads(encode(whole))
    large["value"]["missing"][0]["present_bytes"] = 2**70
    assert isinstance(decode(json.dumps(large).encode()), Unsupported)


def test_the_names_of_weight_files_are_bounded_in_length_and_number() -> None:
    whole = replace(profile("m"), weight_files=("model.safetensors",))
    assert decode(encode(whole)) == whole
    for names in (("x" * 1_025,), ("x",) * 65_537, ("x" * 1_000,) * 1_100):
        told = decode(encode(replace(whole, weight_files=names)))
        assert isinstance(told, Unsupported) and "weight files" in told.why, told

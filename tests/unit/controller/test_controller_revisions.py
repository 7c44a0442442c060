"""Revisions, loads and unloads that cross each other: a Triton that is only a list of calls, and gates to hold them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from modelium.controller.background import Background
from modelium.controller.events import About, Event, ServerDown, ServerUp
from modelium.controller.life.effects import How, Load
from modelium.controller.life.events import HasLoaded, NotLoaded, ProcessDied, UnloadDecided
from modelium.controller.life.phases import AdapterFolder, Loaded
from modelium.controller.life.record import Record
from modelium.controller.residues import Residues
from modelium.controller.server import Server
from modelium.controller.work import Work
from modelium.devices import Devices, Process, find_process
from modelium.errors import DeadlineExceeded, FolderChanged, LoadFailed, MachineTrouble, NotServable
from modelium.ray import RayService
from modelium.repository import ModelRepository
from modelium.triton.client import IndexEntry, ModelStatistics, TritonClient
from modelium.triton.faults import load_error
from modelium.values import (
    Candidate,
    Decision,
    Demand,
    DeviceKind,
    ModelProfile,
    Placement,
    RayFacts,
    State,
    Verb,
    VllmFacts,
)
from modelium.watcher.survey import Surveyor
from tests.unit.analyzers.folders import TOKENIZER, drop, lay, safetensors
from tests.unit.analyzers.test_adapters import adapter
from tests.unit.controller.test_controller_adapters import LLAMA, Here, World, llama, world

EAGER = {"load_on_discovery": True}


class Calls(TritonClient):
    """Triton as the controller sees it. While ``gate`` is clear, loads wait."""

    def __init__(self) -> None:
        super().__init__(http_url="127.0.0.1:1", grpc_url="127.0.0.1:1")
        self.gate = asyncio.Event()
        self.gate.set()
        self.made: list[str] = []
        self.ready: set[str] = set()

    async def version(self) -> str:
        return "2.51.0"

    async def index(self) -> dict[str, IndexEntry]:
        return {name: IndexEntry(name=name, state="READY", reason="") for name in self.ready}

    async def statistics(self) -> dict[str, ModelStatistics]:
        return {}

    async def load(self, name: str, *, timeout_s: float) -> None:
        self.made.append(f"load {name}")
        await self.gate.wait()
        self.ready.add(name)
        self.made.append(f"loaded {name}")

    async def unload(self, name: str, *, timeout_s: float = 1.0) -> None:
        self.made.append(f"unload {name}")
        self.ready.discard(name)


@contextlib.asynccontextmanager
async def served(
    top: Path, *, up: bool = True, triton: Calls | None = None, **settings: object
) -> AsyncIterator[tuple[World, Calls]]:
    triton = triton or Calls()
    async with world(
        top, client=triton, analysts=None, devices=None, server_pid=None, **{"orchestration": EAGER, **settings}
    ) as here:
        if up:
            here.controller.post(ServerUp(version="2.51.0", index={}, owned={}))
        yield here, triton


class Live:
    """A model's record as it is at each moment, by the short names that these tests use."""

    def __init__(self, here: World, name: str) -> None:
        self._here = here
        self._name = name

    @property
    def now(self) -> Record:
        model = self._here.controller._models.get(self._name)
        assert model is not None
        return model.record

    @property
    def state(self) -> State:
        return self.now.state

    @property
    def profile(self) -> ModelProfile | None:
        return self.now.folder.profile

    @property
    def serving(self) -> ModelProfile | None:
        return self.now.serving.profile if self.now.serving is not None else None

    @property
    def reloading(self) -> bool:
        return self.now.reload is not None

    @property
    def analyzing(self) -> bool:
        return self.now.folder.analyzing


def record(here: World, name: str) -> Live:
    return Live(here, name)


async def reloads(here: World, name: str) -> Live:
    """``name`` is loaded, and gets an adapter whose load does not end."""
    model = record(here, name)
    await here.until(lambda: model.state is State.LOADED)
    adapter(here.incoming / "poet")
    await here.until(lambda: model.reloading)
    return model


async def looked_at_again(here: World, model: Live, file: Path) -> None:
    """The controller has analyzed ``model`` anew, after one of its files was touched."""
    before, now = model.now.folder.analyzed_signature, time.time()
    os.utime(file, (now, now - 50))
    await here.until(lambda: model.now.folder.analyzed_signature != before and not model.analyzing)


@pytest.mark.parametrize("case", ["one name twice", "two bases", "plain"])
async def test_a_touched_base_is_not_loaded_again(tmp_path: Path, case: str) -> None:
    async with served(tmp_path) as (here, triton):
        bases, adapters, waits = {
            "one name twice": (["llama"], ["poet", "llama:poet"], State.UNSUPPORTED),
            "two bases": (["a/llama", "b/llama"], ["poet"], State.INCOMPLETE),
            "plain": (["llama"], ["poet"], State.LOADED),
        }[case]
        for name in bases:
            llama(here.incoming / name)
            await here.until_state(name.replace("/", "--"), State.LOADED)
        for name in adapters:
            adapter(here.incoming / name)
        await here.until_state("poet", waits)
        model = record(here, bases[0].replace("/", "--"))
        await here.until(lambda: model.state is State.LOADED and model.serving == model.profile and not model.reloading)
        loads = Counter(triton.made)
        await looked_at_again(here, model, here.incoming / bases[0] / "tokenizer.json")
        assert (model.state, model.reloading, Counter(triton.made)) == (State.LOADED, False, loads)
        assert here.status("poet").state is waits


async def test_what_triton_had_already_is_written_anew_before_the_next_load(tmp_path: Path) -> None:
    def cache_bytes() -> int:
        return int(json.loads((tmp_path / "repository/llama/1/model.json").read_text())["kv_cache_memory_bytes"])

    async with served(tmp_path, vllm={"kv_cache_floor": "512MiB"}) as (here, _):
        llama(here.incoming / "llama")
        known = (await here.until_state("llama", State.LOADED)).profile
        assert known is not None
    before = cache_bytes()
    async with served(tmp_path, up=False, vllm={"kv_cache_floor": "16MiB"}) as (here, triton):
        triton.ready.add("llama")
        here.controller.post(ServerUp(version="2.51.0", index=await triton.index(), owned={"llama": known.fingerprint}))
        assert "had it loaded already" in (await here.until_state("llama", State.LOADED)).reason
        assert cache_bytes() == before
        await here.controller.unload("llama", timeout_s=300)
        placement = (await here.controller.load("llama", timeout_s=300)).placement
        assert placement is not None and placement.engine is not None
        assert cache_bytes() == placement.engine.engine_args["kv_cache_memory_bytes"] != before


async def test_an_unload_waits_for_the_reload_under_way(tmp_path: Path) -> None:
    async with served(tmp_path) as (here, triton):
        llama(here.incoming / "llama")
        await here.until_state("llama", State.LOADED)
        triton.gate.clear()
        model = await reloads(here, "llama")
        asked = asyncio.create_task(here.controller.unload("llama", timeout_s=300))
        await here.until(lambda: model.state is State.DRAINING)
        lay(here.incoming / "other", {"README.md": "x"})
        await here.until(lambda: "other" in here.controller.names())  # passes went by
        assert model.state is State.DRAINING
        waits = asyncio.create_task(here.controller.lease("llama", timeout_s=300))
        triton.gate.set()
        assert (await asked).name == "llama"
        assert triton.made[:5] == ["load llama", "loaded llama", "load llama", "loaded llama", "unload llama"]
        (await waits).release()  # it asked meanwhile: loaded again, and not by a lease on what drains
        await here.until(lambda: model.state is State.LOADED and "llama" in triton.ready)
        assert triton.made.count("load llama") == 3


async def test_a_revision_that_came_while_a_model_drained_is_loaded_when_it_is_called_back(tmp_path: Path) -> None:
    async with served(tmp_path) as (here, _):
        llama(here.incoming / "llama")
        await here.until_state("llama", State.LOADED)
        model = record(here, "llama")
        lease = await here.controller.lease("llama", timeout_s=300)
        evict(here, "llama")
        adapter(here.incoming / "poet")
        await here.until(lambda: model.serving != model.profile)
        assert model.state is State.DRAINING
        second = await here.controller.lease("llama", timeout_s=300)
        await here.until(lambda: model.state is State.LOADED and model.serving == model.profile)
        lease.release()
        second.release()
        assert here.status("poet").state is State.LOADED


async def test_an_adapters_folder_that_becomes_a_model_is_loaded(tmp_path: Path) -> None:
    async with served(tmp_path) as (here, _):
        adapter(here.incoming / "m")
        await here.until(lambda: "m" in here.controller.names() and isinstance(record(here, "m").now.phase, AdapterFolder))
        drop(here.incoming / "m", LLAMA, {"tokenizer.json": TOKENIZER, "model.safetensors": safetensors()})
        await here.until_state("m", State.LOADED)


async def test_a_restart_beside_a_triton_that_serves_a_base_without_the_adapter_it_cannot_take(tmp_path: Path) -> None:
    async with served(tmp_path) as (here, _):
        here.backends = frozenset({"python"})
        adapter(here.incoming / "poet")
        llama(here.incoming / "llama")
        known = (await here.until_state("llama", State.LOADED)).profile
        await here.until_state("poet", State.UNSUPPORTED)
        assert known is not None
    async with served(tmp_path, up=False) as (here, triton):
        here.backends = frozenset({"python"})
        await here.until_state("llama", State.UNLOADED)
        await here.until_state("poet", State.UNLOADED)  # nobody knows yet that it is refused
        triton.ready.add("llama")
        here.controller.post(ServerUp(version="2.51.0", index=await triton.index(), owned={"llama": known.fingerprint}))
        assert "had it loaded already" in (await here.until_state("llama", State.LOADED)).reason
        assert here.status("poet").state is State.UNSUPPORTED and not triton.made
        here.controller.server_down("gone")
        await here.until_state("llama", State.UNLOADED)
        await looked_at_again(here, record(here, "llama"), here.incoming / "llama/tokenizer.json")
        assert here.status("poet").state is State.UNSUPPORTED


async def test_an_engine_that_died_on_an_accelerator_is_started_by_the_plan(tmp_path: Path) -> None:
    async with served(tmp_path) as (here, triton):
        llama(here.incoming / "llama")
        await here.until_state("llama", State.LOADED)
        live, model = record(here, "llama"), here.controller._models.get("llama")
        assert model is not None
        phase = model.record.phase
        assert isinstance(phase, Loaded)
        on_gpu = replace(phase.serving, placement=replace(phase.serving.placement, device_kind=DeviceKind.CUDA))
        model.record = replace(model.record, phase=replace(phase, serving=on_gpu))
        here.controller._models.apply(model, ProcessDied(number=phase.serving.number, pid=7))
        now = live.now
        assert (now.state, now.past.entry, now.wish.want) == (State.DRAINING, None, Demand.RESTORE)
        loaded_again = (await here.until_state("llama", State.LOADED)).decisions[0]
        assert (loaded_again.verb, live.now.past.loads) == (Verb.LOAD, 2)
        assert triton.made == ["load llama", "loaded llama"] * 2


class Hanging(Calls):
    """Each load starts a process, and never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.started.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

    async def load(self, name: str, *, timeout_s: float) -> None:
        self.start()
        raise DeadlineExceeded("it did not answer")


class TheirProcesses(Devices):
    def __init__(self, triton: Hanging) -> None:
        super().__init__(host_memory=None, gpu_memory_fraction=0.9)
        self._triton = triton

    def processes(self, server_pid: int) -> dict[str, tuple[Process, ...]]:
        found = [find_process(each.pid) for each in self._triton.started]
        return {"llama": tuple(one for one in found if one is not None)}


def work_with(triton: Hanging, background: Background, events: asyncio.Queue[Event], top: Path) -> Work:
    server = Server(
        client=triton,
        repository=ModelRepository(top / "repository"),
        devices=TheirProcesses(triton),
        backends=frozenset,
        vllm=VllmFacts,
        pid=lambda: 1,
        owner="",
    )
    return Work(
        events.put_nowait,
        background,
        server,
        overrides={},
        ray=RayService(None, RayFacts()),
        analysts=Here(),
        load_timeout_s=300,
        unload_timeout_s=300,
        residues=Residues(lambda _: None, server.devices, server.pid),  # test_residues.py reads what they say
    )


def order(profile: ModelProfile, placement: Placement, source: Candidate | None = None) -> Load:
    return Load(number=1, profile=profile, placement=placement, write=False, how=How.PLAIN, source=source)


def evict(here: World, name: str) -> None:
    """By policy."""
    model = here.controller._models.get(name)
    assert model is not None
    reason = "another needs its place"
    decision = Decision(at=time.monotonic(), model=name, verb=Verb.UNLOAD, rule="evict.5", reason=reason)
    here.controller._models.apply(model, UnloadDecided(decision))


@pytest.mark.parametrize("serving", [False, True])
async def test_a_load_past_its_deadline_leaves_no_process(tmp_path: Path, serving: bool) -> None:
    async with served(tmp_path) as (here, _):
        llama(here.incoming / "llama")
        known = await here.until_state("llama", State.LOADED)
    assert known.profile is not None and known.placement is not None
    triton, background, events = Hanging(), Background(), asyncio.Queue[Event]()
    if serving:
        triton.start()
    work = work_with(triton, background, events, tmp_path)
    try:
        work.load("llama", order(known.profile, known.placement))
        async with asyncio.timeout(300):
            ended = await events.get()
        assert isinstance(ended, About) and isinstance(ended.event, NotLoaded)
        assert [each.poll() for each in triton.started] == [None, -signal.SIGKILL][0 if serving else 1 :]
        assert triton.made == ([] if serving else ["unload llama"])
    finally:
        for each in triton.started:
            each.kill()
            each.communicate()
        await background.close()
        await triton.close()


FULL = "OSError: [Errno 28] No space left on device"


class Scarce(Calls):
    """Out of shared memory, or of what is said: the last first."""

    def __init__(self, causes: list[str]) -> None:
        super().__init__()
        self.causes = causes

    async def load(self, name: str, *, timeout_s: float) -> None:
        if self.causes:
            self.made.append(f"load {name}")
            raise load_error(name, AioRpcError(StatusCode.INTERNAL, Metadata(), Metadata(), details=self.causes.pop()), None)
        await super().load(name, timeout_s=timeout_s)


async def test_the_machines_trouble_puts_no_model_into_quarantine(tmp_path: Path) -> None:
    quick = {**EAGER, "policies": {"load_retries": 1, "retry_backoff_seconds": 0.001}}
    async with served(tmp_path, triton=Scarce([FULL] * 5), orchestration=quick) as (here, _):
        llama(here.incoming / "llama")
        await here.until_state("llama", State.LOADED)


@pytest.mark.parametrize(
    ("cause", "loads"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 MiB.", 5),
        ("MemoryError: ", 5),
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 1125899906842624 bytes.", 3),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8.00 PiB for an array with shape (1,)", 3),
    ],
)
async def test_want_of_memory_is_the_models_own_when_it_stays(tmp_path: Path, cause: str, loads: int) -> None:
    """Two tries are the machine's, and so many as it has are the model's own: at once, where it asks for what nobody has."""
    quick = {**EAGER, "policies": {"load_retries": 2, "retry_backoff_seconds": 0.001}}
    async with served(tmp_path, triton=Scarce([cause] * 1000), orchestration=quick) as (here, triton):
        weights = llama(here.incoming / "llama") / "model.safetensors"
        await here.until_state("llama", State.FAILED)
        model = record(here, "llama")
        await here.until(lambda: model.now.tries.retry_at is None)
        assert (triton.made.count("load llama"), here.status("llama").quarantined) == (loads, True)
        assert isinstance(triton, Scarce)
        triton.causes.clear()
        weights.chmod(0o600)
        await here.until_state("llama", State.LOADED)


async def test_the_machines_failures_are_not_counted_against_the_model(tmp_path: Path) -> None:
    quick = {**EAGER, "policies": {"load_retries": 1, "retry_backoff_seconds": 0.001}}
    causes = ["RuntimeError: size mismatch", *[FULL] * 4]
    async with served(tmp_path, triton=Scarce(causes), orchestration=quick) as (here, _):
        llama(here.incoming / "llama")
        await here.until(lambda: not causes)
        await here.until_state("llama", State.LOADED)


async def test_a_folder_that_changes_while_it_is_loaded_is_unloaded_looked_at_and_loaded_as_it_is_then(tmp_path: Path) -> None:
    async with served(tmp_path) as (here, triton):
        triton.gate.clear()
        weights = llama(here.incoming / "llama") / "model.safetensors"
        await here.until(lambda: "load llama" in triton.made)
        before = here.status("llama").profile
        assert before is not None
        with weights.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\xff")
        triton.gate.set()
        model = record(here, "llama")
        await here.until(lambda: model.state is State.LOADED and model.profile != before and not model.reloading)
        assert triton.made == ["load llama", "loaded llama", "unload llama", "load llama", "loaded llama"]
        assert (model.serving, model.now.tries.failures, model.now.past.loads) == (model.profile, 0, 1)


class Meanwhile(Calls):
    """Something is done to a file during each load whose turn it is."""

    def __init__(self, *, during: range, fails: bool = False) -> None:
        super().__init__()
        self.during, self.fails = during, fails
        self.do: Callable[[], object] = lambda: None

    async def load(self, name: str, *, timeout_s: float) -> None:
        await super().load(name, timeout_s=timeout_s)
        if self.made.count(f"load {name}") in self.during:
            self.do()
            if self.fails:
                raise LoadFailed("size mismatch")


def change(weights: Path) -> None:
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([(last + 1) % 256]))


@pytest.mark.parametrize("error", ["its folder is touched", "the disk is full"])
async def test_a_revision_that_meets_a_passing_trouble_is_loaded_later(tmp_path: Path, error: str) -> None:
    triton = Meanwhile(during=range(2, 3), fails=error == "its folder is touched")
    async with served(tmp_path, triton=triton) as (here, _):
        weights = llama(here.incoming / "llama") / "model.safetensors"
        first = (await here.until_state("llama", State.LOADED)).profile
        if triton.fails:
            triton.do = lambda: weights.chmod(0o600)
        else:
            triton.do = full_disk
        change(weights)
        model = record(here, "llama")
        await here.until(lambda: model.serving is not None and model.serving != first)
        assert model.serving == model.profile and not model.now.revision_error
        assert triton.made.count("load llama") == 3


def full_disk() -> None:
    raise MachineTrouble("No space left on device")


async def test_what_serves_is_never_unloaded_for_a_change_that_its_next_revision_meets(tmp_path: Path) -> None:
    """Also where no process tells that it serves: onnxruntime runs inside Triton."""
    triton = Meanwhile(during=range(2, 3))
    async with served(tmp_path, triton=triton) as (here, _):
        weights = llama(here.incoming / "llama") / "model.safetensors"
        first = (await here.until_state("llama", State.LOADED)).profile
        triton.do = lambda: change(weights)
        change(weights)
        model = record(here, "llama")
        await here.until(lambda: model.serving not in (None, first) and model.now.past.loads == 3 and not model.reloading)
        assert triton.made == ["load llama", "loaded llama"] * 3
        assert model.serving == model.profile


async def test_a_revision_that_failed_is_tried_again_when_its_files_are_touched_and_only_then(tmp_path: Path) -> None:
    triton = Meanwhile(during=range(2, 3))
    triton.do = broken
    async with served(tmp_path, triton=triton) as (here, _):
        weights = llama(here.incoming / "llama") / "model.safetensors"
        first = (await here.until_state("llama", State.LOADED)).profile
        change(weights)
        model = record(here, "llama")
        await here.until(lambda: bool(model.now.revision_error))
        (here.incoming / "llama/train.log").write_text("step 1")
        await looked_at_again(here, model, here.incoming / "llama/train.log")
        assert not model.reloading and model.now.reload_is_due_at is None and model.serving == first
        weights.chmod(0o600)
        await here.until(lambda: model.serving is not None and model.serving != first)
        assert not model.now.revision_error and triton.made.count("load llama") == 3


async def test_a_quarantine_ends_with_rights_that_were_mended_while_modelium_was_off(tmp_path: Path) -> None:
    quick = {**EAGER, "policies": {"load_retries": 1, "retry_backoff_seconds": 0.001}}
    async with served(tmp_path, triton=Scarce(["RuntimeError: permission denied"] * 2), orchestration=quick) as (here, _):
        weights = llama(here.incoming / "llama") / "model.safetensors"
        await here.until_state("llama", State.FAILED)
        await here.until(lambda: here.status("llama").quarantined)
    async with served(tmp_path, orchestration=quick) as (here, triton):
        assert "in quarantine until its folder changes: " in (await here.until_state("llama", State.FAILED)).reason
        assert not triton.made
    weights.chmod(0o600)
    async with served(tmp_path, orchestration=quick) as (here, triton):
        await here.until_state("llama", State.LOADED)


async def test_who_waits_for_a_folder_that_is_cut_is_told_as_who_comes_then(tmp_path: Path) -> None:
    """One waited until its time was over, while the next was refused at once."""
    async with served(tmp_path, up=False) as (here, _):
        weights = llama(here.incoming / "llama") / "model.safetensors"
        await here.until_state("llama", State.UNLOADED)
        waiting = asyncio.create_task(here.controller.lease("llama", timeout_s=3600))
        await here.until(lambda: here.status("llama").waiting == 1)
        weights.write_bytes(weights.read_bytes()[:-10])
        await here.until(waiting.done)
        told = waiting.exception()
        with pytest.raises(NotServable, match="is INCOMPLETE: ") as refused:
            await here.controller.lease("llama", timeout_s=3600)
        assert repr(told) == repr(refused.value)


def broken() -> None:
    raise LoadFailed("size mismatch")


async def test_a_folder_that_changes_without_pause_is_tried_ever_less_often(tmp_path: Path) -> None:
    triton = Meanwhile(during=range(1, 3))
    rarely = {**EAGER, "policies": {"retry_backoff_seconds": 600}}
    async with served(tmp_path, triton=triton, orchestration=rarely) as (here, _):
        weights = llama(here.incoming / "llama") / "model.safetensors"
        triton.do = lambda: change(weights)
        await here.until(lambda: triton.made.count("unload llama") == 2)
        model, waits = record(here, "llama"), time.monotonic() + 30
        await here.until(lambda: model.now.tries.put_off == 2 and not model.analyzing)
        seal = model.now.folder.seal
        change(weights)
        await here.until(lambda: model.now.folder.seal != seal and not model.analyzing)
        assert (model.now.tries.retry_at or 0.0) > waits, "a new revision ends no wait"
        assert (model.state, model.now.tries.failures, triton.made.count("load llama")) == (State.UNLOADED, 0, 2)
        assert "written to" in model.now.phase.reason
        await here.controller.load("llama", timeout_s=120)  # who asks for it knows better
        assert model.serving == model.profile and not model.now.tries.put_off


class Beside(Hanging):
    """Loads beside a copy that serves, and notes how long the file had been left alone then."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.ages_s: list[float] = []

    async def load(self, name: str, *, timeout_s: float) -> None:
        self.ages_s.append(time.time() - self.file.stat().st_mtime)


@pytest.mark.parametrize("goes_on", [False, True])
async def test_beside_the_copy_that_serves_only_what_is_left_alone_is_loaded(tmp_path: Path, goes_on: bool) -> None:
    """What is written over in place looks whole at every moment, and a new copy takes the old one's place at once."""
    async with served(tmp_path) as (here, _):
        weights = llama(here.incoming / "llama") / "model.safetensors"
        known = await here.until_state("llama", State.LOADED)
    assert known.profile is not None and known.placement is not None
    triton, background, events = Beside(weights), Background(), asyncio.Queue[Event]()
    triton.start()
    work = work_with(triton, background, events, tmp_path)
    try:
        os.utime(weights)
        source = Surveyor(tmp_path / "incoming").look_again(str(weights.parent))
        if goes_on:
            weights.touch()
        work.load("llama", order(known.profile, known.placement, source))
        async with asyncio.timeout(300):
            about = await events.get()
        assert isinstance(about, About)
        ended = about.event
        if goes_on:
            assert isinstance(ended, NotLoaded) and isinstance(ended.error, FolderChanged) and not triton.ages_s
        else:
            assert isinstance(ended, HasLoaded) and ended.older and triton.ages_s[0] >= 1.0
    finally:
        for each in triton.started:
            each.kill()
            each.communicate()
        await background.close()
        await triton.close()


async def test_a_users_load_that_times_out_while_triton_is_down_leaves_the_model_to_be_restored(tmp_path: Path) -> None:
    async with served(tmp_path) as (here, triton):
        llama(here.incoming / "llama")
        await here.until_state("llama", State.LOADED)
        triton.ready.clear()
        here.controller.post(ServerDown(detail="killed"))
        await here.until_state("llama", State.UNLOADED)
        with pytest.raises(DeadlineExceeded):
            await here.controller.load("llama", timeout_s=0.01)
        model = record(here, "llama")
        assert model.now.demand is Demand.RESTORE
        here.controller.post(ServerUp(version="2.51.0", index={}, owned={}))
        await here.until_state("llama", State.LOADED)
        assert record(here, "llama").now.demand is Demand.NONE


async def test_a_users_load_is_a_wish_for_as_long_as_the_user_waits(tmp_path: Path) -> None:
    async with served(tmp_path, up=False, orchestration={"load_on_discovery": False}) as (here, _):
        llama(here.incoming / "llama")
        await here.until_state("llama", State.UNLOADED)
        model = record(here, "llama")
        short, long = (asyncio.create_task(here.controller.load("llama", timeout_s=s)) for s in (0.01, 600.0))
        with pytest.raises(DeadlineExceeded):
            await short
        assert model.now.wish.user_loads == 1
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)
        assert record(here, "llama").now.demand is Demand.NONE

"""Models that are born of a nursery, on the real Triton: what is shared, who ends with whom, and that it shows in no answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from modelium.devices import Devices
from modelium.errors import ModeliumError
from modelium.values import Runtime
from tests.models import minilm
from tests.patience import PATIENCE_S
from tests.server.conftest import Triton, on_host, profile_of, started, warm
from tests.server.loading import load
from tests.server.systems import System, system, write_adder

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

TEXT = {"TEXT": "a sentence"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def born(tmp_path_factory: pytest.TempPathFactory, test_models: Path) -> AsyncIterator[Triton]:
    """A server whose models are born of a nursery that knows BERT."""
    async with started(tmp_path_factory.mktemp("born"), test_models) as server:
        await warm(server.server, Runtime.PYTHON, "transformers.models.bert")
        yield server


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 — the truth lies in other processes
            await asyncio.sleep(0.01)


def children(state: Path) -> dict[int, int]:
    """Each living child with its stub."""
    entries = [path for path in (state / "nursery" / "children").iterdir() if path.name.isdigit()]
    found = {int(path.name): int(path.read_text().split()[1]) for path in entries}
    return {child: stub for child, stub in found.items() if lives(child)}


def generations(state: Path) -> set[int]:
    """The nursery's processes that have imported torch."""
    own = {int(path.name) for path in (state / "nursery" / "nurseries").iterdir() if path.name.isdigit()}
    return {pid for pid in own if lives(pid) and "libtorch_cpu" in maps(pid)}


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def maps(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""


def weights_in_memory(pid: int) -> set[str]:
    """The files in memory that it maps."""
    return set(re.findall(r" (\d+) +/memfd:modelium-weights", maps(pid)))


def weights_opened(pid: int) -> set[str]:
    """The files in memory that it has open."""
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if "memfd:modelium-weights" in str(path.readlink()):
                found.add(str(path.stat().st_ino))
    return found


def state_of(triton: Triton) -> Path:
    return triton.server.nurseries.directory.parent


async def child_of(triton: Triton, name: str) -> tuple[int, int]:
    """The child and the stub of a model."""
    found = {child: stub for child, stub in children(state_of(triton)).items() if f"/{name}/1/" in command_line(stub)}
    ((child, stub),) = found.items()
    return child, stub


def command_line(pid: int) -> str:
    return words(pid, "cmdline")


def words(pid: int, file: str) -> str:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


async def test_a_child_has_what_its_stub_does_not(born: Triton) -> None:
    await born.load("minilm")
    child, stub = await child_of(born, "minilm")
    assert "libtorch_cpu" in maps(child)
    assert "libtorch_cpu" not in maps(stub)
    assert (await born.ask("minilm", TEXT))["EMBEDDING"].shape == (384,)
    assert len(os.listdir(f"/proc/{child}/task")) > 1 or os.cpu_count() == 1  # torch computes by its own threads  # noqa: PTH208
    assert "ORT_DISABLE_TELEMETRY=1" in words(stub, "environ")


async def test_a_nursery_has_one_thread_no_gpu_and_no_model(born: Triton) -> None:
    await born.load("minilm")
    for pid in generations(state_of(born)):
        assert len(os.listdir(f"/proc/{pid}/task")) == 1  # noqa: PTH208
        mapped = maps(pid)
        assert "/dev/nvidia" not in mapped
        assert "memfd:modelium-weights" not in mapped
        assert str(minilm()) not in mapped


async def test_copies_of_one_file_share_its_weights(born: Triton, tmp_path: Path) -> None:
    names = ("copy-one", "copy-two", "copy-three")
    shutil.copytree(minilm(), tmp_path / "copy-one")
    shutil.copytree(tmp_path / "copy-one", tmp_path / "copy-two", copy_function=os.link)
    shutil.copytree(tmp_path / "copy-one", tmp_path / "copy-three")
    await asyncio.gather(*(born.load(name, tmp_path / name) for name in names))
    inodes = {inode for name in names for inode in weights_in_memory((await child_of(born, name))[0])}
    assert len(inodes) == 1
    answers = [await born.ask(name, TEXT) for name in names]
    assert all(np.array_equal(answers[0]["EMBEDDING"], other["EMBEDDING"]) for other in answers[1:])
    for name in names:
        await born.unload(name)


async def test_a_copy_with_one_other_number_has_weights_of_its_own(born: Triton, tmp_path: Path) -> None:
    names = ("first", "second")
    for number, name in enumerate(names):
        shutil.copytree(minilm(), tmp_path / name)
        (weights,) = (tmp_path / name).glob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:-4] + np.float32(number / 2).tobytes())
        await born.load(name, tmp_path / name)
    one, other = [weights_in_memory((await child_of(born, name))[0]) for name in names]
    assert len(one) == len(other) == 1
    assert one != other
    await born.unload("first")  # with which the other one was compared
    pids = [*generations(state_of(born)), (await child_of(born, "second"))[0]]
    await until(lambda: not any(one & weights_opened(pid) for pid in pids))
    await born.unload("second")


async def test_a_file_that_is_written_over_does_not_change_the_model_that_serves(born: Triton, tmp_path: Path) -> None:
    folder = tmp_path / "written-over"
    shutil.copytree(minilm(), folder)
    await born.load("written-over", folder)
    before = await born.ask("written-over", TEXT)
    for weights in folder.glob("*.safetensors"):
        weights.write_bytes(b"\0" * 1000)
    assert np.array_equal((await born.ask("written-over", TEXT))["EMBEDDING"], before["EMBEDDING"])
    await born.unload("written-over")


async def test_a_child_and_its_stub_end_together(born: Triton) -> None:
    for victim in (0, 1):
        await born.load("minilm")
        pair = await child_of(born, "minilm")
        os.kill(pair[victim], signal.SIGKILL)
        await until(lambda: not any(map(lives, pair)))  # noqa: B023
        await born.unload("minilm")
    await born.load("minilm")
    assert (await born.ask("minilm", TEXT))["EMBEDDING"].shape == (384,)


async def test_a_child_that_hangs_ends_with_its_stub(born: Triton) -> None:
    await born.load("minilm")
    child, stub = await child_of(born, "minilm")
    os.kill(child, signal.SIGSTOP)
    os.kill(stub, signal.SIGKILL)
    await until(lambda: not lives(child))
    await born.unload("minilm")


async def test_a_child_that_hangs_though_it_is_asked_is_ended(born: Triton, tmp_path: Path) -> None:
    profile = profile_of("stuck", shutil.copytree(minilm(), tmp_path / "stuck"))
    config = born.repository.write(profile, on_host(profile)) / "config.pbtxt"
    config.write_text(config.read_text() + 'parameters { key: "hang_seconds" value: { string_value: "2" } }\n')
    await load(born.client, "stuck")
    child, stub = await child_of(born, "stuck")
    os.kill(child, signal.SIGSTOP)
    with pytest.raises(ModeliumError):
        await born.ask("stuck", TEXT)
    await until(lambda: not lives(child) and not lives(stub))


STUCK = """

class TritonPythonModel(TritonPythonModel):
    def initialize(self, args):
        import time
        time.sleep(1_000_000)
"""


async def test_a_child_that_hangs_while_it_loads_is_ended(born: Triton) -> None:
    profile = profile_of("never", minilm())
    entry = born.repository.write(profile, on_host(profile))
    code, config = entry / "1" / "instance.py", entry / "config.pbtxt"
    code.write_text(code.read_text() + STUCK)
    config.write_text(config.read_text() + 'parameters { key: "hang_seconds" value: { string_value: "2" } }\n')
    with pytest.raises(ModeliumError, match="it hangs: it has computed nothing for 2 seconds while it loads"):
        await load(born.client, "never")
    assert not [pid for pid in processes() if "/never/1/" in words(pid, "cmdline")]


STRAY = """

class TritonPythonModel(TritonPythonModel):
    def initialize(self, args):
        super().initialize(args)
        import subprocess
        subprocess.Popen(["sleep", "1000000.5"])
"""


async def test_what_a_model_started_ends_after_it(born: Triton) -> None:
    """Nobody but the nursery's keeper would know of it."""
    profile = profile_of("strays", minilm())
    code = born.repository.write(profile, on_host(profile)) / "1" / "instance.py"
    code.write_text(code.read_text() + STRAY)
    await load(born.client, "strays")
    child, stub = await child_of(born, "strays")
    strays = [pid for pid in processes() if words(pid, "cmdline") == "sleep 1000000.5 " and parent_of(pid) == child]
    assert len(strays) == 1
    os.kill(stub, signal.SIGKILL)
    await until(lambda: not lives(child) and not lives(strays[0]))
    await born.client.unload("strays")


def processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


async def test_models_go_on_when_the_nursery_is_killed_and_another_one_comes(born: Triton) -> None:
    await born.load("minilm")
    pair = await child_of(born, "minilm")
    killed = generations(state_of(born)) - set(pair)
    server = born.server
    assert server.pid is not None
    devices = Devices(host_memory=None, gpu_memory_fraction=0.9, nursery=server.nurseries.directory)
    devices.processes(server.pid)
    assert not devices.orphans()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not any(map(lives, killed)))
    assert devices.orphans() == {pair[0]}
    assert (await born.ask("minilm", TEXT))["EMBEDDING"].shape == (384,)
    assert all(map(lives, pair))
    await until(lambda: bool(generations(state_of(born)) - killed))
    await born.unload("minilm")
    await until(lambda: not lives(pair[0]))
    for _ in range(2):  # the first may come before the new one listens
        await born.load("minilm")
        assert (await born.ask("minilm", TEXT))["EMBEDDING"].shape == (384,)
        devices.processes(server.pid)
        assert not devices.orphans()
        await born.unload("minilm")


async def test_models_go_on_when_the_keeper_is_killed_and_another_nursery_comes(born: Triton) -> None:
    await born.load("minilm")
    pair = await child_of(born, "minilm")
    before = generations(state_of(born)) - set(pair)
    keepers = {parent_of(pid) for pid in before} - before
    for pid in keepers:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not any(map(lives, keepers | before)))
    assert (await born.ask("minilm", TEXT))["EMBEDDING"].shape == (384,)
    await until(lambda: bool(generations(state_of(born)) - before - set(pair)))
    assert all(map(lives, pair))
    await born.unload("minilm")
    await until(lambda: not (state_of(born) / "nursery" / "children" / str(pair[0])).exists())
    for _ in range(2):  # the first may come before the new one listens
        await born.load("minilm")
        assert (await born.ask("minilm", TEXT))["EMBEDDING"].shape == (384,)
        await born.unload("minilm")


async def test_a_folder_that_cannot_be_loaded_says_why_and_leaves_no_child(born: Triton, tmp_path: Path) -> None:
    folder = tmp_path / "torn"
    shutil.copytree(minilm(), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 768}))
    before = children(state_of(born))
    with pytest.raises(ModeliumError, match=r"RuntimeError: \S+ is 384 in the weights of .*, but 768 by its config.json"):
        await born.load("torn", folder)
    await until(lambda: children(state_of(born)) == before)


async def test_without_a_nursery_the_model_lives_in_its_stub(tmp_path: Path, test_models: Path) -> None:
    async with started(tmp_path, test_models, nursery=False) as triton:
        await triton.load("minilm")
        assert (await triton.ask("minilm", TEXT))["EMBEDDING"].shape == (384,)
        assert not (tmp_path / "state" / "nursery").exists()


async def test_a_killed_triton_leaves_no_child_and_the_models_come_back(tmp_path: Path) -> None:
    async with system(tmp_path) as modelium:
        await _born_adder(modelium)
        state = tmp_path / "state"
        before = children(state)
        assert before
        pid = modelium.running.server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not any(map(lives, before)))
        assert await modelium.add("adder", 1.0) == (200, 2.0)
        assert (await modelium.get("/health/ready"))["triton"]["restarts"] == 1
        await until(lambda: len(children(state)) == 1)
        await modelium.until("/models", lambda seen: (seen["nursery"] or {}).get("children") == 1, "the child is counted")
    assert not children(state)
    assert not [pid for pid in processes() if str(state / "nursery") in command_line(pid)]


async def test_a_model_that_outlives_its_nursery_is_promised_more_only_until_it_is_loaded_anew(tmp_path: Path) -> None:
    async with system(tmp_path) as modelium:
        await _born_adder(modelium)
        state = tmp_path / "state"
        await until(lambda: len(children(state)) == 1)
        (child,) = children(state)
        status = modelium.running.controller.status

        def holds_more_than_was_learned() -> bool:
            seen = status("adder")
            learned = seen.footprint.measured_bytes if seen.footprint is not None else None
            return bool(learned and seen.held_bytes and seen.held_bytes > learned + 8 * 2**20)

        await until(lambda: bool(status("adder").held_bytes))
        os.kill(parent_of(child), signal.SIGKILL)
        await until(holds_more_than_was_learned)
        orphan = status("adder")
        assert orphan.promised_bytes == orphan.held_bytes
        await until(lambda: modelium.running.server.nurseries.listens(Runtime.ONNXRUNTIME))  # type: ignore[union-attr]
        await _reloaded(modelium, "adder")
        assert status("adder").promised_bytes < orphan.promised_bytes


async def test_the_first_model_of_a_runtime_waits_for_the_nursery_that_starts_with_it(tmp_path: Path) -> None:
    async with system(tmp_path) as modelium:
        write_adder(modelium.incoming / "adder.onnx")  # when Triton is up, and no nursery of this runtime listens
        await modelium.becomes("adder", "LOADED")
        assert len(children(tmp_path / "state")) == 1, "it was born"


async def _born_adder(modelium: System) -> None:
    """The ONNX adder, loaded by a nursery that listened."""
    write_adder(modelium.incoming / "adder.onnx")
    await modelium.becomes("adder", "LOADED")
    await until(lambda: modelium.running.server.nurseries.listens(Runtime.ONNXRUNTIME))  # type: ignore[union-attr]
    await _reloaded(modelium, "adder")


async def _reloaded(modelium: System, name: str) -> None:
    await modelium.post(f"/models/{name}/unload")
    assert (await modelium.add(name, 1.0))[0] == 200


async def test_triton_unloads_born_models_before_their_nursery_ends(tmp_path: Path, test_models: Path) -> None:
    async with started(tmp_path, test_models) as triton:
        await warm(triton.server, Runtime.PYTHON, "transformers.models.bert")
        for name in ("minilm", "classifier"):
            await triton.load(name)
        assert len(children(state_of(triton))) == 2
        log = triton.server.log_path
    assert "Found 0 live models" in log.read_text()


async def test_a_load_says_that_it_waits_for_the_nursery_and_goes_on_when_that_has_imported(tmp_path: Path) -> None:
    async with system(tmp_path) as modelium:
        await _born_adder(modelium)
        assert (await modelium.post("/models/adder/unload"))[0] == 200
        own = {int(path.name) for path in (tmp_path / "state" / "nursery" / "nurseries").iterdir() if path.name.isdigit()}
        ((keeper, serving),) = {(parent_of(pid), pid) for pid in own if parent_of(pid) in own}
        os.kill(keeper, signal.SIGSTOP)  # so that no other one has imported before anybody looks
        os.kill(serving, signal.SIGKILL)
        await until(lambda: not lives(serving))
        loading = asyncio.create_task(modelium.post("/models/adder/load"))
        told = await modelium.becomes("adder", "LOADING", lambda model: bool(model["waits_for"]))
        assert re.fullmatch(r"the nursery of onnxruntime, which imports \(since \d+ s\)", told["waits_for"])
        (listed,) = (await modelium.get("/models"))["models"]
        assert listed["waits_for"].startswith("the nursery of onnxruntime")
        os.kill(keeper, signal.SIGCONT)
        assert (await loading)[0] == 200
        assert not (await modelium.get("/models/adder"))["waits_for"]

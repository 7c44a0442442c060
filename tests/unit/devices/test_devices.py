"""Devices: the fleet with and without GPUs, which process belongs to which model, what it holds, and when it ends.

The processes are real ones that look like Triton's stubs: the same kind of command line, the same name in the kernel.
NVML is the library's own module with its answers replaced: this machine may have no GPU.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pynvml
import pytest

from modelium.devices import Devices, Process, find_process
from modelium.devices.attribution import model_of_command
from modelium.guarded.processes import read_process
from modelium.values import DeviceKind
from tests.patience import PATIENCE_S

MIB = 2**20
# Holds 64 MiB, has a child, and says when both are there.
STUB_PROGRAM = """
import subprocess, sys
ballast = bytearray(b"x") * (64 * 2**20)
child = subprocess.Popen(["sleep", "60"])
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def devices() -> Devices:
    return Devices(host_memory=None, gpu_memory_fraction=0.9)


@pytest.fixture
def start_stub(tmp_path: Path) -> Iterator[Callable[[str, str], tuple[subprocess.Popen[str], int]]]:
    """Starts a process that looks like the stub of a model's instance; gives it and its child's id."""
    stub = tmp_path / "triton_python_backend_stub"
    stub.symlink_to(Path(sys.executable).resolve())
    started: list[tuple[subprocess.Popen[str], int]] = []

    def start(model: str, instance: str) -> tuple[subprocess.Popen[str], int]:
        program = tmp_path / "repository" / model / "1" / "model.py"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(STUB_PROGRAM)
        shape = ["shm_region", "1048576", "1048576", "1", "/backends/python", "336", instance, "DEFAULT"]
        process = subprocess.Popen([stub, program, *shape], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        started.append((process, int(process.stdout.readline())))
        return started[-1]

    yield start
    for process, child in started:
        process.kill()
        if psutil.pid_exists(child):
            os.kill(child, signal.SIGKILL)
        process.communicate()


# -- whose process ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "instance", "model"),
    [
        ("/r/bert/1/model.py", "bert_0_0", "bert"),
        ("/r/bert_0/1/model.py", "bert_0_0_1", "bert_0"),
        ("/r/bert_0_1/1/model.py", "bert_0_1", "bert_0_1"),  # the stub of auto-complete
        ("/r/bert_0_1/1/model.py", "bert_0_1_0", "bert_0_1"),
        ("/bert/repository/bert_0/3/model.onnx", "bert_0_0_0", "bert_0"),
        ("/r/org--my_model.v2/1/", "org--my_model.v2_0_0", "org--my_model.v2"),
        ("/tmp/folder7Zx/1/model.py", "bert_0_0", "bert"),  # a copy from a remote repository
    ],
)
def test_the_model_is_read_from_a_stubs_command_line(path: str, instance: str, model: str) -> None:
    assert model_of_command(["/b/stub", path, "shm", "1", "1", "77", "/b", "336", instance, "DEFAULT"]) == model


def test_a_strange_command_line_belongs_to_nobody() -> None:
    assert model_of_command([]) is None
    assert model_of_command(["stub", "x"]) is None


StartStub = Callable[[str, str], tuple[subprocess.Popen[str], int]]


def test_stubs_and_their_offspring_belong_to_their_models(devices: Devices, start_stub: StartStub) -> None:
    first, first_child = start_stub("bert_0", "bert_0_0_0")
    second, second_child = start_stub("bert_0", "bert_0_0_1")
    other, other_child = start_stub("vit", "vit_0_0")
    found = devices.processes(os.getpid())
    assert {model: {process.pid for process in processes} for model, processes in found.items()} == {
        "bert_0": {first.pid, first_child, second.pid, second_child},
        "vit": {other.pid, other_child},
    }
    assert found["vit"][0].pid == other.pid
    assert all(devices.alive(process) for process in found["bert_0"])


async def test_offspring_that_outlives_its_stub_stays_with_the_model(devices: Devices, start_stub: StartStub) -> None:
    stub, child = start_stub("llama", "llama_0_0")
    (stub_process, child_process) = devices.processes(os.getpid())["llama"]
    for pid, process, left in ((stub.pid, stub_process, {"llama": (child_process,)}), (child, child_process, {})):
        ended = asyncio.Event()
        devices.watch_exit(process, ended.set)
        os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
        assert devices.processes(os.getpid()) == left


def test_no_server_no_processes(devices: Devices) -> None:
    assert devices.processes(2**22 + 1) == {}


# -- what they hold --------------------------------------------------------------------------------------------------


def test_held_bytes_are_what_the_processes_hold_together(devices: Devices, start_stub: StartStub) -> None:
    stub, child = start_stub("bert", "bert_0_0")
    host = devices.fleet().devices[0]
    held = devices.held_bytes([stub.pid, child], host)
    assert 64 * MIB < held < 128 * MIB
    assert devices.held_bytes([2**22 + 1], host) == 0


# -- when they end ---------------------------------------------------------------------------------------------------


@pytest.fixture
def running() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def process_of(running: subprocess.Popen[bytes]) -> Process:
    process = find_process(running.pid)
    assert process is not None
    return process


def open_descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


async def test_an_exit_is_told_once_and_nothing_stays_open(devices: Devices, running: subprocess.Popen[bytes]) -> None:
    before = open_descriptors()
    ended: asyncio.Queue[int] = asyncio.Queue()
    cancel = devices.watch_exit(process_of(running), lambda: ended.put_nowait(1))
    running.kill()
    await asyncio.wait_for(ended.get(), PATIENCE_S)
    cancel()
    cancel()
    assert ended.empty()
    assert open_descriptors() == before


# Its first thread ends, and the other says so.
LEADERLESS = """
import ctypes, sys, threading
def stay():
    while ") Z " not in open("/proc/self/stat").read():
        pass
    print(flush=True)
    sys.stdin.read()
threading.Thread(target=stay).start()
ctypes.CDLL(None).syscall(60, 0)  # exit(2), of this thread alone
"""


@pytest.fixture
def leaderless() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", LEADERLESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None and program.stdout.readline()
        yield program


async def test_a_process_lives_as_long_as_one_of_its_threads(devices: Devices, leaderless: subprocess.Popen[bytes]) -> None:
    """Its first thread is a zombie then, and the memory is still taken."""
    process, row = process_of(leaderless), read_process(leaderless.pid)
    assert devices.alive(process) and row is not None and not row.zombie
    ended = asyncio.Event()
    devices.watch_exit(process, ended.set)
    assert leaderless.stdin is not None
    leaderless.stdin.close()
    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()
    assert not devices.alive(process)


async def test_a_process_that_had_ended_is_told_too(devices: Devices, running: subprocess.Popen[bytes]) -> None:
    process, ended = process_of(running), asyncio.Event()
    devices.watch_exit(process, ended.set)
    running.kill()
    await asyncio.wait_for(ended.wait(), PATIENCE_S)
    for reap in (lambda: None, running.wait):  # a zombie first, then nothing at all
        reap()
        ended.clear()
        devices.watch_exit(process, ended.set)
        assert not devices.alive(process)
        await asyncio.wait_for(ended.wait(), PATIENCE_S)


async def test_another_process_with_the_same_id_is_not_mistaken(devices: Devices) -> None:
    ended = asyncio.Event()
    devices.watch_exit(Process(os.getpid(), 1), ended.set)
    await asyncio.wait_for(ended.wait(), PATIENCE_S)


async def test_a_cancelled_watch_says_nothing(devices: Devices, running: subprocess.Popen[bytes]) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    devices.watch_exit(process_of(running), first.set)()
    devices.watch_exit(process_of(running), second.set)
    running.kill()
    await asyncio.wait_for(second.wait(), PATIENCE_S)
    assert not first.is_set()


# -- the fleet -------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", refuse)


@pytest.mark.usefixtures("no_gpu")
def test_without_gpus_the_host_is_the_fleet(devices: Devices) -> None:
    (host,) = devices.fleet().devices
    assert (host.id, host.kind, host.index) == ("host", DeviceKind.HOST, -1)
    assert 0 < host.used_bytes < host.total_bytes
    assert host.budget_bytes == int(host.total_bytes * 0.75)


@pytest.mark.usefixtures("no_gpu")
def test_the_budget_is_the_configured_memory_but_never_more_than_there_is() -> None:
    (host,) = Devices(host_memory=MIB, gpu_memory_fraction=0.9).fleet().devices
    assert host.budget_bytes == MIB
    (host,) = Devices(host_memory=2**60, gpu_memory_fraction=0.9).fleet().devices
    assert host.budget_bytes == host.total_bytes


class FakeDriver:
    """NVML's answers for two GPUs; ``fault`` is what every question but the first is answered with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fault: int | None = None
        self.instances: dict[int, list[int | None]] = {}  # of a GPU in MIG mode: the handles of its instances, by their places
        self.processes: dict[int, list[SimpleNamespace]] = {}
        self.pictures: dict[int, list[SimpleNamespace]] = {}
        answers = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetCount": self.ask(lambda: 2),
            "nvmlDeviceGetHandleByIndex": self.ask(lambda index: index),
            "nvmlDeviceGetName": self.ask(lambda handle: b"NVIDIA T4"),
            "nvmlDeviceGetUUID": self.ask(lambda handle: f"GPU-{handle}abc"),
            "nvmlDeviceGetMemoryInfo": self.ask(lambda handle: SimpleNamespace(total=1000 + handle, used=100 + handle)),
            "nvmlDeviceIsMigDeviceHandle": self.ask(lambda handle: int(handle >= 10)),
            "nvmlDeviceGetMigMode": self.ask(lambda handle: [int(handle in self.instances)] * 2),
            "nvmlDeviceGetMaxMigDeviceCount": self.ask(lambda handle: len(self.instances[handle])),
            "nvmlDeviceGetMigDeviceHandleByIndex": self.ask(self.instance),
            "nvmlDeviceGetHandleByUUID": self.ask(lambda uuid: int(uuid.removeprefix("MIG-"))),
            "nvmlDeviceGetComputeRunningProcesses": self.ask(lambda handle: self.processes.get(handle, [])),
            "nvmlDeviceGetGraphicsRunningProcesses": self.ask(lambda handle: self.pictures.get(handle, [])),
        }
        for name, answer in answers.items():
            monkeypatch.setattr(pynvml, name, answer)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def instance(self, handle: int, place: int) -> int:
        found = self.instances[handle][place]
        if found is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return found

    def ask(self, answer: Callable[..., object]) -> Callable[..., object]:
        def question(*arguments: object) -> object:
            if self.fault is not None:
                raise pynvml.NVMLError(self.fault)
            return answer(*arguments)

        return question


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    return FakeDriver(monkeypatch)


@pytest.mark.usefixtures("driver")
def test_gpus_are_devices_with_a_share_for_models(devices: Devices) -> None:
    _, first, second = devices.fleet().devices
    assert (first.id, first.kind, first.index, first.uuid, first.name) == (
        "cuda:0",
        DeviceKind.CUDA,
        0,
        "GPU-0abc",
        "NVIDIA T4",
    )
    assert (second.total_bytes, second.used_bytes, second.budget_bytes) == (1001, 101, 900)


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        ("1", ["GPU-1abc"]),
        ("1,0", ["GPU-1abc", "GPU-0abc"]),
        ("GPU-1", ["GPU-1abc"]),
        ("", []),
        ("-1", []),
        ("0,7,1", ["GPU-0abc"]),
    ],
)
@pytest.mark.usefixtures("driver")
def test_gpus_are_numbered_as_cuda_numbers_them(
    devices: Devices, monkeypatch: pytest.MonkeyPatch, visible: str, uuids: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus = devices.fleet().devices[1:]
    assert [gpu.uuid for gpu in gpus] == uuids
    assert [gpu.id for gpu in gpus] == [f"cuda:{place}" for place in range(len(uuids))]


@pytest.mark.parametrize(
    ("visible", "instances", "sizes"),
    [
        (None, {1: [None, 11, 12]}, [1011]),
        (None, {0: [None], 1: [None]}, []),
        (None, {1: [None]}, [1000]),
        ("1,0", {1: [11]}, [1011]),
        ("0", {1: [11]}, [1000]),
        ("MIG-12,MIG-11", {1: [11, 12]}, [1012]),
    ],
)
def test_of_a_gpu_in_mig_mode_cuda_sees_one_instance_and_nothing_else(
    devices: Devices,
    driver: FakeDriver,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    instances: dict[int, list[int | None]],
    sizes: list[int],
) -> None:
    driver.instances = instances
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus = devices.fleet().devices[1:]
    assert [gpu.total_bytes for gpu in gpus] == sizes
    assert [gpu.id for gpu in gpus] == [f"cuda:{place}" for place in range(len(sizes))]


def test_gpu_memory_is_counted_by_process(devices: Devices, driver: FakeDriver) -> None:
    gpu = devices.fleet().devices[2]
    driver.processes[1] = [
        SimpleNamespace(pid=10, usedGpuMemory=400),
        SimpleNamespace(pid=11, usedGpuMemory=50),
        SimpleNamespace(pid=12, usedGpuMemory=None),
        SimpleNamespace(pid=99, usedGpuMemory=7),
    ]
    assert devices.held_bytes([10, 11, 12], gpu) == 450
    driver.fault = pynvml.NVML_ERROR_NOT_SUPPORTED
    assert devices.held_bytes([10, 11, 12], gpu) == 0


def test_what_triton_itself_or_nobody_holds_of_a_gpu_is_its_residue(devices: Devices, driver: FakeDriver) -> None:
    model, triton, display = (
        SimpleNamespace(pid=10, usedGpuMemory=40),
        SimpleNamespace(pid=os.getpid(), usedGpuMemory=20),
        SimpleNamespace(pid=12, usedGpuMemory=7),
    )
    assert devices.residues(os.getpid())["cuda:0"] == 100
    driver.processes[0], driver.pictures[0] = [model, triton, display], [display]
    found = devices.residues(os.getpid())
    assert (found["cuda:0"], found["cuda:1"]) == (100 - 40 - 7, 101)
    driver.processes[0] = [model, SimpleNamespace(pid=11, usedGpuMemory=None)]
    assert set(devices.residues(os.getpid())) == {"host", "cuda:1"}, "NVML cannot tell"
    driver.fault = pynvml.NVML_ERROR_NOT_SUPPORTED
    assert set(devices.residues(os.getpid())) == {"host"}


@pytest.mark.usefixtures("no_gpu")
def test_the_hosts_residue_is_what_the_server_holds_without_its_models(devices: Devices, start_stub: StartStub) -> None:
    stub, _ = start_stub("bert", "bert_0_0")
    before = devices.residues(os.getpid())["host"]
    assert before > 10 * MIB
    kept = bytearray(b"x") * (200 * MIB)
    grown = devices.residues(os.getpid())["host"] - before
    assert 190 * MIB < grown < 210 * MIB
    del kept
    assert devices.held_bytes([stub.pid], devices.fleet().devices[0]) > 60 * MIB, "its 64 MiB are the model's"


@pytest.mark.parametrize("fault", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_a_lost_gpu_or_driver_leaves_the_host(devices: Devices, driver: FakeDriver, fault: int) -> None:
    gpu = devices.fleet().devices[1]
    driver.fault = fault
    assert len(devices.fleet().devices) == 1
    assert devices.held_bytes([10], gpu) == 0

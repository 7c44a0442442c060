"""Who was born in the nursery belongs to the model of the stub that it was born for, and is weighed without what it shares.

All processes are real: stubs by name and command line, a nursery that forks, children with pages and weights of their own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelium.devices import Devices, Process, find_process
from modelium.devices.footprints import Scales
from modelium.devices.nursery import Nursery
from modelium.values import Device, DeviceKind
from tests.patience import PATIENCE_S

MIB = 2**20
HOST = Device(id="host", kind=DeviceKind.HOST, index=-1, name="", total_bytes=2**40, used_bytes=0, budget_bytes=2**40)
# Has "imported" 64 MiB, and forks a child for each line: so much of its own, and weights by name, shared by who names the same.
# Where the line says so, the child is an engine's, and forks another one that holds as much. The nursery is the keeper's
# fork; who loses a parent gets the keeper for one.
NURSERY = f"""
import ctypes, mmap, os, signal, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
if os.fork():
    os.close(0)
    while True:
        os.wait()
imported = bytearray(os.urandom(1 << 20) * 64)
weights = {{}}
print(os.getpid(), flush=True)
for line in sys.stdin:
    own, name, size, forks = line.split()
    if name not in weights:
        weights[name] = os.memfd_create(name)
        os.write(weights[name], b"w" * (int(size) * {MIB}))
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        if forks == "forks":
            os.fork()
        private = bytearray(os.urandom(1 << 20) * int(own))
        mapped = mmap.mmap(weights[name], 0, prot=mmap.PROT_READ)
        sum(mapped[place] for place in range(0, len(mapped), 4096))
        os.write(told, b"1")
        os.close(told)
        os.close(0)
        while True:
            signal.pause()
    os.close(told)
    while os.read(ready, 1):
        pass
    os.close(ready)
    print(child, flush=True)
"""
STUB = "print(flush=True)\ninput()"


def process_of(pid: int) -> Process:
    found = find_process(pid)
    assert found is not None
    return found


class Born:
    """A nursery at work, and the directory in which it tells of itself."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "children").mkdir(parents=True)
        self._program = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.keeper = self._program.pid
        self.pid = self._answer()
        (directory / "nurseries").mkdir()
        self.tell_of_own(self.pid)

    def _answer(self) -> int:
        assert self._program.stdout is not None
        return int(self._program.stdout.readline())

    def child(
        self, stub: Process, *, own_mib: int = 1, weights: str = "none", weights_mib: int = 1, forks: bool = False
    ) -> Process:
        """One more, of which the nursery tells."""
        assert self._program.stdin is not None
        self._program.stdin.write(f"{own_mib} {weights} {weights_mib} {'forks' if forks else 'alone'}\n")
        self._program.stdin.flush()
        child = process_of(self._answer())
        self.tell(child, stub)
        return child

    def tell(self, child: Process, stub: Process) -> None:
        line = f"{child.created_at} {stub.pid} {stub.created_at}\n"
        (self.directory / "children" / str(child.pid)).write_text(line)

    def tell_of_own(self, pid: int) -> None:
        (self.directory / "nurseries" / str(pid)).write_text(f"{process_of(pid).created_at}\n")

    def close(self) -> None:
        os.killpg(self.keeper, signal.SIGKILL)
        self._program.communicate()


@pytest.fixture
def born(tmp_path: Path) -> Iterator[Born]:
    made = Born(tmp_path / "nursery")
    yield made
    made.close()


@pytest.fixture
def devices(born: Born) -> Devices:
    return Devices(host_memory=None, gpu_memory_fraction=0.9, nursery=born.directory)


Start = Callable[[str], tuple[subprocess.Popen[bytes], Process]]


@pytest.fixture
def start_stub(tmp_path: Path) -> Iterator[Start]:
    """Starts a process that looks like the stub of a model."""
    name = tmp_path / "triton_python_backend_stub"
    name.symlink_to(Path(sys.executable).resolve())
    started: list[subprocess.Popen[bytes]] = []

    def start(model: str) -> tuple[subprocess.Popen[bytes], Process]:
        program = tmp_path / "repository" / model / "1" / "model.py"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(STUB)
        shape = ["shm_region", "1048576", "1048576", "1", "/backends/python", "336", f"{model}_0_0", "DEFAULT"]
        process = subprocess.Popen([name, program, *shape], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline()
        return process, process_of(process.pid)

    yield start
    for process in started:
        process.kill()
        process.communicate()


# -- whose they are --------------------------------------------------------------------------------------------------


def test_a_child_is_one_of_its_stubs_models_processes(devices: Devices, born: Born, start_stub: Start) -> None:
    _, llama = start_stub("llama")
    _, bert = start_stub("bert")
    for_llama, for_bert = born.child(llama), born.child(bert)
    assert devices.processes(os.getpid()) == {"llama": (llama, for_llama), "bert": (bert, for_bert)}


def test_a_child_of_nobody_of_ours_is_left_alone(devices: Devices, born: Born, start_stub: Start) -> None:
    _, llama = start_stub("llama")
    child = born.child(llama)
    born.tell(child, Process(llama.pid, llama.created_at + 1))
    assert devices.processes(os.getpid()) == {"llama": (llama,)}


def test_a_file_of_an_earlier_process_with_that_id_says_nothing(devices: Devices, born: Born, start_stub: Start) -> None:
    _, llama = start_stub("llama")
    child = born.child(llama)
    born.tell(Process(child.pid, child.created_at - 1), llama)
    assert devices.processes(os.getpid()) == {"llama": (llama,)}
    born.tell(child, llama)
    assert devices.processes(os.getpid()) == {"llama": (llama, child)}


@pytest.mark.parametrize("line", ["", "12", "12 13", "12 13 x", "12 13 14 15", "-1 2 3", "\x00\xff"])
def test_a_file_that_says_something_else_is_no_child(tmp_path: Path, line: str) -> None:
    (tmp_path / "children").mkdir()
    (tmp_path / "children" / "17").write_text(line, encoding="latin-1")
    (tmp_path / "children" / "notes").write_text("12 13 14")
    (tmp_path / "nurseries").mkdir()
    (tmp_path / "nurseries" / "17").write_text(line, encoding="latin-1")
    (tmp_path / "nurseries" / "18").write_text("19\n", encoding="latin-1")
    found = Nursery(tmp_path)
    assert found.children() == {}
    assert set(found.processes()) == ({Process(17, 12), Process(18, 19)} if line == "12" else {Process(18, 19)})


def test_each_process_of_a_nursery_may_have_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "nurseries").mkdir()
    (tmp_path / "nurseries" / "18").write_text("19\n")
    (tmp_path / "nurseries" / "20").write_text("21\n")
    (tmp_path / "nurseries" / ".22.23").write_text("24\n")
    assert set(Nursery(tmp_path).processes()) == {Process(18, 19), Process(20, 21)}


async def test_a_child_whose_stub_is_gone_belongs_to_the_model_until_it_ends(
    devices: Devices, born: Born, start_stub: Start
) -> None:
    running, llama = start_stub("llama")
    assert devices.processes(os.getpid()) == {"llama": (llama,)}  # the child is not there yet
    child = born.child(llama)
    running.kill()
    running.wait()
    assert devices.processes(os.getpid()) == {"llama": (child,)}
    assert devices.processes(os.getpid()) == {"llama": (child,)}
    ended = asyncio.Event()
    devices.watch_exit(child, ended.set)
    os.kill(child.pid, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()
    assert devices.processes(os.getpid()) == {}


def test_a_nursery_below_the_server_is_not_the_servers(devices: Devices, born: Born, start_stub: Start) -> None:
    """It is this process's own child here."""
    _, llama = start_stub("llama")
    before = devices.residues(os.getpid())["host"]
    born.child(llama, own_mib=256)
    assert devices.residues(os.getpid())["host"] < before + 100 * MIB


# -- what they hold --------------------------------------------------------------------------------------------------


def test_a_child_is_weighed_without_what_it_shares_with_the_nursery(devices: Devices, born: Born, start_stub: Start) -> None:
    _, llama = start_stub("llama")
    child = born.child(llama, own_mib=32, weights="llama", weights_mib=48)
    devices.processes(os.getpid())
    assert 80 * MIB <= devices.held_bytes([child.pid], HOST) < 80 * MIB + 16 * MIB


def test_what_a_child_forks_is_weighed_without_what_it_shares_with_the_nursery(
    devices: Devices, born: Born, start_stub: Start
) -> None:
    """As an engine's core, which is a fork of its child."""
    _, llama = start_stub("llama")
    engine = born.child(llama, own_mib=32, forks=True)
    found = devices.processes(os.getpid())["llama"]
    processes = [process.pid for process in found if process != llama]
    assert len(processes) == 2 and engine.pid in processes
    assert devices.born(found) == [engine]
    scales = devices.scales()
    assert 64 * MIB <= devices.held_bytes(processes, HOST, scales) < 64 * MIB + 16 * MIB
    nursery = devices.nursery(scales)
    assert nursery is not None and nursery.children == 1
    assert (
        abs(nursery.held_bytes + devices.held_bytes(processes, HOST, scales) - Scales().weigh([born.pid, *processes])) < 4 * MIB
    )


@pytest.mark.parametrize("forks", [False, True], ids=["a model", "an engine"])
async def test_a_child_is_an_orphan_once_its_nursery_has_been_killed(
    devices: Devices, born: Born, start_stub: Start, forks: bool
) -> None:
    """What they shared is the child's alone then: it holds more, and has not grown. Its parent now, the keeper, lives on."""
    born.tell_of_own(born.keeper)
    _, llama = start_stub("llama")
    child = born.child(llama, forks=forks)
    found = devices.processes(os.getpid())
    held = devices.held_bytes([child.pid], HOST)
    assert len(found["llama"]) == (3 if forks else 2) and devices.orphans() == frozenset()
    ended = asyncio.Event()
    devices.watch_exit(process_of(born.pid), ended.set)
    os.kill(born.pid, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()
    assert devices.orphans() == {child.pid}  # also before the next look: it may have ended during the last one
    assert devices.processes(os.getpid()) == found
    assert devices.orphans() == {child.pid} and devices.born(found["llama"]) == [child]
    assert forks or devices.held_bytes([child.pid], HOST) > held + 32 * MIB  # an engine's processes share it still


def test_weights_count_once_for_all_who_have_them(devices: Devices, born: Born, start_stub: Start) -> None:
    _, llama = start_stub("llama")
    children = [born.child(llama, own_mib=16, weights="same", weights_mib=60) for _ in range(3)]
    other = born.child(llama, own_mib=16, weights="another", weights_mib=60)
    devices.processes(os.getpid())
    scales = devices.scales()
    for child in children:
        assert 36 * MIB <= devices.held_bytes([child.pid], HOST, scales) < 36 * MIB + 16 * MIB
    assert 76 * MIB <= devices.held_bytes([other.pid], HOST, scales) < 76 * MIB + 16 * MIB


def test_the_rows_together_are_what_is_taken(devices: Devices, born: Born, start_stub: Start) -> None:
    """Of each page somebody pays, and nobody pays twice."""
    _, llama = start_stub("llama")
    children = [born.child(llama, own_mib=8, weights=name, weights_mib=20) for name in ("a", "a", "b")]
    devices.processes(os.getpid())
    scales = devices.scales()
    nursery = devices.nursery(scales)
    assert nursery is not None and (nursery.processes, nursery.children) == (1, 3)
    assert nursery.held_bytes > 64 * MIB
    everybody = [born.pid, *(child.pid for child in children)]
    rows = nursery.held_bytes + sum(devices.held_bytes([child.pid], HOST, scales) for child in children)
    assert abs(rows - Scales().weigh(everybody)) < 4 * MIB


def test_without_a_nursery_there_is_no_row_and_nothing_else_changes(tmp_path: Path, start_stub: Start) -> None:
    for directory in (None, tmp_path / "nothing-there"):
        devices = Devices(host_memory=None, gpu_memory_fraction=0.9, nursery=directory)
        _, llama = start_stub("llama")
        assert llama in devices.processes(os.getpid())["llama"]
        assert devices.nursery(devices.scales()) is None
        assert devices.held_bytes([llama.pid], HOST) > 0


def test_a_nursery_that_ended_has_no_row(devices: Devices, born: Born) -> None:
    (born.directory / "nurseries" / str(born.pid)).write_text(f"{process_of(born.pid).created_at + 1}\n")
    assert devices.processes(os.getpid()) == {}
    assert devices.nursery(devices.scales()) is None

"""Which stubs have a heartbeat to look at: real processes with the command lines of stubs, and real regions."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelium.triton.heartbeats import Heartbeats
from tests.patience import PATIENCE_S

_PLACE = 336
_TO_STUB, _TO_TRITON = 1024, 2048

Start = Callable[..., int]


class Region:
    """Of one stub, as Triton lays it out: after each owner's count of 16 bytes, flags and places, or a queue of 1000."""

    def __init__(self) -> None:
        self.path = Path("/dev/shm") / f"modelium-test-{uuid.uuid4().hex}"
        self.path.write_bytes(bytes(4096))
        self.write(_PLACE + 16 + 88, struct.pack("=qq", _TO_STUB, _TO_TRITON))
        self.put(2, 2)

    def write(self, place: int, value: bytes) -> None:
        with self.path.open("r+b") as shared:
            shared.seek(place)
            shared.write(value)

    def put(self, to_stub: int, to_triton: int) -> None:
        """So many messages were put into the queues."""
        for place, count in ((_TO_STUB, to_stub), (_TO_TRITON, to_triton)):
            self.write(place + 16 + 104, struct.pack("=QQi", 1000, 0, count % 1000))

    def beat(self, value: bytes = b"\1", *, place: int = _PLACE) -> None:
        self.write(place + 16, value)

    @property
    def beats(self) -> bool:
        return self.path.read_bytes()[_PLACE + 16] == 1


@pytest.fixture
def region() -> Iterator[Region]:
    made = Region()
    yield made
    made.path.unlink(missing_ok=True)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a process that waits, with the command line of a stub; its id is returned."""
    running: list[subprocess.Popen[bytes]] = []
    script = tmp_path / "model.py"
    script.write_text("print(flush=True)\ninput()")

    def one(region: str, *, instance: str = "echo_0_0", server: int | None = None, place: int = _PLACE) -> int:
        words = [region, "1048576", "1048576", str(server or os.getpid()), "/backends/python", str(place), instance, "DEFAULT"]
        process = subprocess.Popen([sys.executable, str(script), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout is not None and process.stdout.readline()
        return process.pid

    yield one
    for process in running:
        process.communicate(b"\n")


def lets_go(heartbeats: Heartbeats) -> bool:
    """Asked for longer than it takes to be sure, and once more then: this process may not have run meanwhile."""
    gone = heartbeats.let_go()
    until = time.monotonic() + 0.03
    while not gone and time.monotonic() < until:
        gone = heartbeats.let_go()
    return gone or heartbeats.let_go()


def test_what_triton_cleared_is_seen(start: Start, region: Region) -> None:
    with Heartbeats.of([start(region.path.name)], os.getpid()) as heartbeats:
        heartbeats.renew()
        assert heartbeats and region.beats
        assert not lets_go(heartbeats)
        region.beat(b"\0")
        assert lets_go(heartbeats)


def test_it_is_seen_from_a_thread_that_watches(start: Start, region: Region) -> None:
    with Heartbeats.of([start(region.path.name)], os.getpid()) as heartbeats, ThreadPoolExecutor(1) as pool:
        heartbeats.renew()
        watching = pool.submit(heartbeats.watch, PATIENCE_S)
        region.beat(b"\0")
        assert watching.result()
        heartbeats.renew()
        assert not heartbeats.watch(0.0)


def test_who_watches_stops_when_nobody_wants_to_know_any_more(start: Start, region: Region) -> None:
    heartbeats = Heartbeats.of([start(region.path.name)], os.getpid())
    heartbeats.renew()
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(heartbeats.watch, PATIENCE_S)
        heartbeats.close()
        assert not watching.result()
    assert not Heartbeats().watch(PATIENCE_S)


def test_what_the_stub_set_again_after_it_was_seen_cleared_changes_nothing(start: Start, region: Region) -> None:
    with Heartbeats.of([start(region.path.name)], os.getpid()) as heartbeats:
        heartbeats.renew()
        region.beat(b"\0")
        heartbeats.let_go()
        region.beat()
        assert lets_go(heartbeats)
        heartbeats.end()
        assert not region.beats


def test_a_request_that_is_under_way_is_waited_for(start: Start, region: Region) -> None:
    """Triton clears the heartbeat for each request, and each second while it waits for its answer."""
    with Heartbeats.of([start(region.path.name)], os.getpid()) as heartbeats:
        heartbeats.renew()
        region.beat(b"\0")
        region.put(3, 2)
        assert not lets_go(heartbeats)
        region.beat(b"\0")
        assert not lets_go(heartbeats)
        region.put(4, 3)
        assert not lets_go(heartbeats)
        region.beat(b"\0")
        assert lets_go(heartbeats)


def test_a_request_that_came_and_went_between_two_looks_is_no_end(start: Start, region: Region) -> None:
    with Heartbeats.of([start(region.path.name)], os.getpid()) as heartbeats:
        heartbeats.renew()
        for requests in (1, 2):
            region.beat(b"\0")
            region.put(2 + 2 * requests, 2 + requests)
            assert not lets_go(heartbeats)


@pytest.mark.parametrize("requests", [0, 1, 498, 499, 500, 997, 998, 999, 1234])
def test_queues_that_have_gone_round_say_the_same(start: Start, region: Region, requests: int) -> None:
    idle = 2 + 2 * requests, 2 + requests
    region.put(*idle)
    with Heartbeats.of([start(region.path.name)], os.getpid()) as heartbeats:
        heartbeats.renew()
        region.beat(b"\0")
        region.put(idle[0] + 1, idle[1])
        assert not lets_go(heartbeats)
        region.put(*idle)
        region.beat(b"\0")
        assert lets_go(heartbeats)


def test_one_stub_of_several_says_it_for_its_model(start: Start, region: Region) -> None:
    place = 3072
    region.write(place + 16 + 88, struct.pack("=qq", _TO_STUB, _TO_TRITON))
    name = region.path.name
    pids = [start(name, instance="echo_0_0"), start(name, instance="echo_0_1", place=place)]
    with Heartbeats.of(pids, os.getpid()) as heartbeats:
        heartbeats.renew()
        region.beat(b"\0", place=place)
        assert lets_go(heartbeats)
        assert region.beats


def test_a_region_takes_memory_until_triton_removes_it(start: Start, region: Region) -> None:
    with Heartbeats.of([start(region.path.name)], os.getpid()) as heartbeats:
        assert heartbeats.region_bytes() == 4096
        region.path.unlink()
        assert heartbeats.region_bytes() == 0


def test_two_copies_of_a_model_tell_nothing(start: Start, region: Region) -> None:
    """Each has an instance of that name, and only one of them may be meant."""
    with Heartbeats.of([start(region.path.name), start(region.path.name)], os.getpid()) as heartbeats:
        assert not heartbeats and not heartbeats.let_go()


def test_what_is_no_stub_of_this_triton_is_left_alone(start: Start, region: Region) -> None:
    name, found = region.path.name, region.path.read_bytes()
    others = [start(name, server=1), start(f"../shm/{name}"), start("modelium-test-not-there"), os.getpid()]
    for pid in others:
        assert not Heartbeats.of([pid], os.getpid())
    region.path.write_bytes(b"\7" * 4096)
    assert not Heartbeats.of([start(name)], os.getpid())
    region.path.write_bytes(found[:_TO_STUB])
    assert not Heartbeats.of([start(name)], os.getpid())


def test_a_process_that_is_gone_has_none() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert not Heartbeats.of([gone.pid], os.getpid())

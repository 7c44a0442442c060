"""Who may ask a nursery for what, and how two processes end together."""

from __future__ import annotations

import array
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelium_nursery import client, lifelines, orders, places
from modelium_nursery.register import Register, created_at

from tests.patience import PATIENCE_S

BIRTH = orders.Birth(
    name="bert",
    directory="/e/1",
    module="instance",
    model_dir="/e",
    working_directory="/",
    environment={"A": "b"},
    weights=["/w"],
)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield one, other


def send(to: socket.socket, packet: bytes, descriptors: int) -> None:
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(descriptors)]
    to.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else [])
    for file in files:
        os.close(file)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_an_order_arrives_with_its_descriptors(ends: tuple[socket.socket, socket.socket]) -> None:
    send(ends[0], orders.write(BIRTH), 6)
    order, handed = orders.read(ends[1])
    assert order == BIRTH
    assert handed is not None
    assert len(set(handed)) == 6
    assert not any(os.get_inheritable(descriptor) for descriptor in handed)
    for descriptor in handed:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("packet", "descriptors"),
    [
        (b"", 0),
        (b"{}", 6),
        (b"[" * 50_000, 0),
        (b'{"birth": {}}', 6),
        (b'{"birth": {"name": 1}}', 6),
        (orders.write(BIRTH).replace(b'{"A": "b"}', b"[]"), 6),
        (orders.write(BIRTH), 5),
        (orders.write(BIRTH).replace(b'"instance"', b'"os; x"'), 6),
        (orders.write(BIRTH).replace(b'"b"', b"7"), 6),
        (orders.write(BIRTH).replace(b"/e/1", b"/e\\u0000"), 6),
        (b'{"warming": {"modules": 3}}', 0),
    ],
)
def test_what_is_no_order_is_refused_and_leaves_nothing_open(
    ends: tuple[socket.socket, socket.socket], packet: bytes, descriptors: int
) -> None:
    before = open_files()
    send(ends[0], packet, descriptors)
    with pytest.raises(orders.Refused):
        orders.read(ends[1])
    assert open_files() == before


@given(st.lists(st.text() | st.integers()))
def test_only_modules_of_libraries_are_imported_ahead(names: list[object]) -> None:
    found = orders.importable([*names, "os", "torch.nn", "torch..x", "torch.nn", "transformers.models.bert", "torchx"])  # type: ignore[list-item]
    assert found[-2:] == ["torch.nn", "transformers.models.bert"]
    assert all(name.partition(".")[0] in orders.LIBRARIES for name in found)


def test_a_process_that_is_no_stub_gets_nothing() -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with pytest.raises(orders.Refused, match="no stub"):
        orders.check_peer(other.pid)
    other.communicate()
    orders.check_peer(os.getppid())  # whoever started the nursery


def test_the_peer_is_who_the_kernel_says_it_is(ends: tuple[socket.socket, socket.socket]) -> None:
    assert orders.peer_of(ends[0]) == os.getpid()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_ends_with_the_other_even_if_it_hangs(when: str) -> None:
    one, other = socket.socketpair()
    said, says = os.pipe()
    child = os.fork()
    if not child:
        try:
            one.close()
            if when == "before":
                os.read(said, 1)
            lifelines.hold(other)
            os.write(says, b"!")
            while True:
                pass
        finally:
            os._exit(0)
    other.close()
    if when == "before":
        one.close()
        os.write(says, b"!")
    else:
        os.read(said, 1)
        one.close()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    os.close(said)
    os.close(says)


def test_who_has_let_go_lives_on() -> None:
    one, other = socket.socketpair()
    said, says = os.pipe()
    child = os.fork()
    if not child:
        try:
            one.close()
            lifelines.hold(other)
            lifelines.let_go(other)
            os.write(says, b"!")
            other.recv(1)
            os._exit(7)
        finally:
            os._exit(1)
    other.close()
    os.read(said, 1)
    one.close()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    os.close(said)
    os.close(says)


def test_the_register_names_the_living_and_who_they_were_born_for(tmp_path: Path) -> None:
    register = Register(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    register.enter(child.pid, os.getpid())
    register.enter_own()
    entry = tmp_path / "children" / str(child.pid)
    assert entry.read_text().split() == [str(created_at(child.pid)), str(os.getpid()), str(created_at(os.getpid()))]
    register.tidy()
    assert entry.exists()
    assert register.knows(child.pid)
    assert register.knows(os.getpid())
    assert not register.knows(os.getppid())
    child.communicate()
    assert not register.knows(child.pid)
    register.tidy()
    assert not entry.exists()
    assert (tmp_path / "nurseries" / str(os.getpid())).exists()
    register.strike_own(os.getpid())
    register.strike(child.pid)
    assert not list((tmp_path / "nurseries").iterdir())


def test_a_number_that_is_used_again_is_struck(tmp_path: Path) -> None:
    register = Register(tmp_path)
    (tmp_path / "children" / str(os.getpid())).write_text("1 2 3\n")
    (tmp_path / "children" / "nonsense").write_text("x")
    register.tidy()
    assert not list((tmp_path / "children").iterdir())


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    places.make_private(tmp_path / "own")
    places.make_private(tmp_path / "own")
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(PermissionError):
        places.make_private(tmp_path / "open")
    (tmp_path / "link").symlink_to(tmp_path / "own")
    with pytest.raises(PermissionError):
        places.make_private(tmp_path / "link")


def test_a_socket_is_reached_however_long_its_path(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with pytest.raises(PermissionError), places.Reach(deep):  # somebody else could listen there
        pass
    deep.chmod(0o700)
    with places.Reach(deep) as here, socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(f"{here}/s")
        listener.listen()
        client.connect(f"{here}/s")
        assert select.select([listener], [], [], 5)[0]


def test_where_nurseries_are_follows_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(places.VARIABLE, raising=False)
    assert not places.managed()
    assert places.directory(7) != places.directory(8)
    monkeypatch.setenv(places.VARIABLE, places.OFF)
    assert places.directory(7) is None
    monkeypatch.setenv(places.VARIABLE, "/state/nursery")
    assert places.managed()
    assert places.directory(7) == Path("/state/nursery")


def test_a_nursery_that_is_coming_is_waited_for(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    places.coming(tmp_path, "python").touch()
    places.listen(tmp_path, "python").close()  # a socket that one left: nobody listens there
    with ThreadPoolExecutor(1) as stub:
        reached = stub.submit(client.reach, tmp_path, "python")
        with places.listen(tmp_path, "python"), reached.result(timeout=PATIENCE_S) as connection:
            assert orders.peer_of(connection) == os.getpid()


def test_one_that_does_not_come_is_waited_for_no_longer(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    coming = places.coming(tmp_path, "python")
    with pytest.raises(FileNotFoundError):
        client.reach(tmp_path, "python")
    coming.touch()
    with ThreadPoolExecutor(1) as stub:
        reached = stub.submit(client.reach, tmp_path, "python")
        coming.unlink()
        with pytest.raises(FileNotFoundError):
            reached.result(timeout=PATIENCE_S)
    coming.touch()
    with pytest.raises(FileNotFoundError):
        client.reach(tmp_path, "python", within_s=0.0)

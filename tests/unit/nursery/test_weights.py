"""Files of weights in memory: once for all who use them, and nobody can change them."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
from pathlib import Path

import pytest
from modelium_nursery.folders import files_of
from modelium_nursery.weights import Shares, Shelf, fill, identity_of, is_used_as_it_is

from tests.hostile import safetensors


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(b'{"a":{"dtype":"F32"}}', bytes(range(24))))
    return path


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_the_bytes_are_the_files_own(weights: Path) -> None:
    shelf = Shelf()
    shares = Shares(shelf.reserve([str(weights)]))
    place = shares.path_of(str(weights))
    assert place is not None
    assert Path(place).read_bytes() == weights.read_bytes()
    shelf.clear()


def test_one_file_has_one_place_for_all_its_users(weights: Path) -> None:
    before, shelf = open_files(), Shelf()
    first, second = shelf.reserve([str(weights)]), shelf.reserve([str(weights)])
    assert first == second
    identities = [identity for identity, _ in first.values()]
    shelf.use(identities, 1)
    shelf.use(identities, 2)
    assert shelf.users == {1, 2}
    shelf.forget(1)
    assert open_files() == before + 1
    shelf.forget(2)
    assert open_files() == before


def test_a_shelf_goes_on_in_another_process(tmp_path: Path) -> None:
    before, shelf = open_files(), Shelf()
    for number in range(230):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(safetensors(b'{"a":{"dtype":"F32"}}', bytes([number])))
        ((identity, descriptor),) = shelf.reserve([str(path)]).values()
        fill(str(path), identity, descriptor)
        shelf.use([identity], number)
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        sender = threading.Thread(target=shelf.send, args=(one,))
        sender.start()
        received = Shelf.receive(other)
        sender.join()
        shelf.close()
        one.close()
        with pytest.raises(EOFError):
            Shelf.receive(other)
    assert received.users == frozenset(range(230))
    ((_, descriptor),) = received.reserve([str(tmp_path / "7.safetensors")]).values()
    assert Path(f"/proc/self/fd/{descriptor}").read_bytes()[-1] == 7
    for number in range(230):
        received.forget(number)
    assert open_files() == before


def test_a_changed_file_is_another_one(weights: Path) -> None:
    shelf = Shelf()
    ((identity, descriptor),) = shelf.reserve([str(weights)]).values()
    weights.write_bytes(weights.read_bytes() + b"more")
    assert not fill(str(weights), identity, descriptor)
    assert Shares({str(weights): (identity, descriptor)}).path_of(str(weights)) is None
    assert shelf.reserve([str(weights)])[str(weights)] != (identity, descriptor)
    shelf.clear()


def test_nobody_can_change_what_is_shared(weights: Path) -> None:
    shelf = Shelf()
    ((identity, descriptor),) = shelf.reserve([str(weights)]).values()
    assert fill(str(weights), identity, descriptor)
    shared = Path(f"/proc/self/fd/{descriptor}").read_bytes()
    for change in (
        lambda: os.write(descriptor, b"x"),
        lambda: os.ftruncate(descriptor, 1),
        lambda: os.ftruncate(descriptor, 999),
    ):
        with pytest.raises(PermissionError):
            change()
    with pytest.raises(PermissionError):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0)
    weights.write_bytes(b"something else")
    assert Path(f"/proc/self/fd/{descriptor}").read_bytes() == shared
    shelf.clear()


def test_who_ends_while_it_fills_leaves_it_to_the_next(weights: Path) -> None:
    shelf = Shelf()
    ((identity, descriptor),) = shelf.reserve([str(weights)]).values()
    child = os.fork()
    if not child:
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, b"half")
        os._exit(0)
    os.waitpid(child, 0)
    assert fill(str(weights), identity, descriptor)
    assert Path(f"/proc/self/fd/{descriptor}").read_bytes() == weights.read_bytes()
    shelf.clear()


def test_what_cannot_be_read_is_not_shared(tmp_path: Path) -> None:
    shelf = Shelf()
    assert shelf.reserve([str(tmp_path / "none.safetensors")]) == {}
    assert Shares({}).path_of("anything") is None


@pytest.mark.parametrize(
    ("content", "is_one"),
    [
        (safetensors(b'{"__metadata__":{},"a":{"dtype":"F32"},"b":{"dtype":"F32"}}'), True),
        (safetensors(b'{"a":{"dtype":"F32"},"b":{"dtype":"F16"}}'), False),
        (safetensors(b'{"a":{"dtype":"F32"},"position_ids":{"dtype":"I64"}}'), True),
        (safetensors(b'{"a":{"dtype":"I64"}}'), False),
        (b"", False),
        (b"\xff" * 8 + b"{}", False),
        (b"\x02" + b"\0" * 7 + b"[]", False),
        (b"\x02" + b"\0" * 7 + b"{}", False),
    ],
)
def test_only_what_is_used_as_it_lies_in_the_file_is_shared(tmp_path: Path, content: bytes, *, is_one: bool) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert is_used_as_it_is(str(path)) is is_one
    identity = identity_of(path.stat())
    assert identity == identity_of(path.stat())


@pytest.mark.parametrize(
    ("files", "index", "chosen"),
    [
        ({"model.safetensors", "model.fp32-00001-of-00002.safetensors", "adapter.safetensors"}, None, {"model.safetensors"}),
        (
            {"a.safetensors", "b.safetensors", "c.safetensors"},
            {"x": "a.safetensors", "y": "b.safetensors"},
            {"a.safetensors", "b.safetensors"},
        ),
        ({"a.safetensors"}, {"x": "../outside.safetensors", "y": 7}, set()),
        ({"a.safetensors"}, None, set()),
    ],
)
def test_only_what_a_model_is_read_from_is_shared(
    tmp_path: Path, files: set[str], index: dict[str, object] | None, chosen: set[str]
) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"")
    if index is not None:
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert {path.name for path in files_of(tmp_path)} == chosen


def test_what_was_not_filled_to_its_end_takes_no_memory(weights: Path) -> None:
    shelf = Shelf()
    ((identity, descriptor),) = shelf.reserve([str(weights)]).values()
    weights.write_bytes(weights.read_bytes()[:-4])
    assert not fill(str(weights), identity, descriptor)
    assert os.fstat(descriptor).st_size == 0
    shelf.clear()

"""Files of weights in memory: once for all who use them, and nobody can change them."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest
from modelium_nursery.folders import files_of
from modelium_nursery.shelf import Shelf
from modelium_nursery.weights import fill, identity_of, is_same, is_used_as_it_is

from tests.hostile import safetensors


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(b'{"a":{"dtype":"F32"}}', bytes(range(24))))
    return path


def test_a_changed_file_is_another_one(weights: Path) -> None:
    shelf = Shelf()
    (place,) = shelf.reserve([str(weights)]).values()
    weights.write_bytes(weights.read_bytes() + b"more")
    assert not fill(str(weights), place.identity, place.own)
    assert shelf.reserve([str(weights)])[str(weights)] != place
    shelf.clear()


def test_nobody_can_change_what_is_shared(weights: Path) -> None:
    shelf = Shelf()
    (place,) = shelf.reserve([str(weights)]).values()
    assert fill(str(weights), place.identity, place.own)
    shared = Path(f"/proc/self/fd/{place.own}").read_bytes()
    for change in (
        lambda: os.write(place.own, b"x"),
        lambda: os.ftruncate(place.own, 1),
        lambda: os.ftruncate(place.own, 999),
    ):
        with pytest.raises(PermissionError):
            change()
    with pytest.raises(PermissionError):
        fcntl.fcntl(place.own, fcntl.F_ADD_SEALS, 0)
    weights.write_bytes(b"something else")
    assert Path(f"/proc/self/fd/{place.own}").read_bytes() == shared
    shelf.clear()


def test_who_ends_while_it_fills_leaves_it_to_the_next(weights: Path) -> None:
    shelf = Shelf()
    (place,) = shelf.reserve([str(weights)]).values()
    child = os.fork()
    if not child:
        fcntl.lockf(place.own, fcntl.LOCK_EX)
        os.write(place.own, b"half")
        os._exit(0)
    os.waitpid(child, 0)
    assert fill(str(weights), place.identity, place.own)
    assert Path(f"/proc/self/fd/{place.own}").read_bytes() == weights.read_bytes()
    shelf.clear()


def test_what_cannot_be_read_is_not_shared(tmp_path: Path) -> None:
    shelf = Shelf()
    assert shelf.reserve([str(tmp_path / "none.safetensors")]) == {}


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
    (place,) = shelf.reserve([str(weights)]).values()
    weights.write_bytes(weights.read_bytes()[:-4])
    assert not fill(str(weights), place.identity, place.own)
    assert os.fstat(place.own).st_size == 0
    shelf.clear()


@pytest.mark.parametrize("size", [1, 4096, 100_000, 3 * 2**20 + 5])
@pytest.mark.parametrize("where", [None, 0, 0.37, 1.0])
def test_a_copy_is_the_same_and_a_changed_byte_makes_another_file(tmp_path: Path, size: int, where: float | None) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    content = bytearray(os.urandom(size))
    first.write_bytes(content)
    if where is not None:
        content[int(where * (size - 1))] ^= 1
    second.write_bytes(content)
    shelf = Shelf()
    (place,) = shelf.reserve([str(first)]).values()
    identity = identity_of(second.stat())
    assert not is_same(str(second), identity, place.own)  # nothing is there yet
    assert fill(str(first), place.identity, place.own)
    assert is_same(str(second), identity, place.own) is (where is None)
    shelf.clear()


def test_only_what_nobody_can_change_any_more_is_the_same(weights: Path) -> None:
    descriptor = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.write(descriptor, weights.read_bytes())
    assert not is_same(str(weights), identity_of(weights.stat()), descriptor)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)  # but not against being cut
    assert not is_same(str(weights), identity_of(weights.stat()), descriptor)
    os.close(descriptor)


def test_a_file_that_has_changed_is_the_same_as_nothing(weights: Path) -> None:
    shelf = Shelf()
    (place,) = shelf.reserve([str(weights)]).values()
    assert fill(str(weights), place.identity, place.own)
    weights.write_bytes(weights.read_bytes())
    os.utime(weights, (1, 1))
    assert not is_same(str(weights), place.identity, place.own)
    shelf.clear()

"""What a nursery has in memory of files of weights, who uses it, and what of it a child chooses."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelium_nursery.shares import Shares
from modelium_nursery.shelf import Place, Shelf, read_chosen
from modelium_nursery.weights import fill

from tests.hostile import safetensors


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    before, shelf = open_files(), Shelf()
    yield shelf
    shelf.close()
    assert open_files() == before


def written(path: Path, content: bytes = b"some weights") -> str:
    path.write_bytes(safetensors(b'{"a":{"dtype":"F32"}}', content))
    return str(path)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


class Child:
    """A process that was born with these places, and lives until it is told to end."""

    def __init__(self, places: dict[str, Place]) -> None:
        self.said, tell = os.pipe()
        found, finds = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                shares = Shares(places, tell)
                found_there = [shares.path_of(path) for path in places]
                contents = [None if place is None else Path(place).read_bytes().hex() for place in found_there]
                kept = {place.own for place in places.values()} | {other for place in places.values() for other in place.alike}
                os.write(finds, json.dumps([contents, [one for one in kept if is_open(one)]]).encode())
                os.close(finds)
                signal.pause()
            finally:
                os._exit(0)
        os.close(tell)
        os.close(finds)
        with os.fdopen(found, "rb") as file:
            contents, self.kept = json.loads(file.read())
        self.contents = [None if one is None else bytes.fromhex(one) for one in contents]
        with os.fdopen(self.said, "rb") as file:
            self.chosen = read_chosen(file.read())

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def born(shelf: Shelf, path: str) -> Child:
    places = shelf.reserve([path])
    child = Child(places)
    shelf.use(places.values(), child.pid)
    shelf.settle(child.pid, child.chosen)
    return child


def test_the_bytes_are_the_files_own(shelf: Shelf, tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors")
    child = born(shelf, path)
    assert child.contents == [Path(path).read_bytes()]
    child.end()


def test_one_file_has_one_place_for_all_its_users(shelf: Shelf, tmp_path: Path) -> None:
    path, before = written(tmp_path / "a.safetensors"), open_files()
    first, second = shelf.reserve([path]), shelf.reserve([path])
    assert first == second
    shelf.use(first.values(), 1)
    shelf.use(first.values(), 2)
    assert shelf.users == {1, 2}
    shelf.forget(1)
    assert open_files() == before + 1
    shelf.forget(2)
    assert open_files() == before


def test_a_copy_of_a_file_uses_what_is_there_of_the_first(shelf: Shelf, tmp_path: Path) -> None:
    before = open_files()
    children = [born(shelf, written(tmp_path / f"{number}.safetensors")) for number in range(3)]
    assert len({one for child in children for one in child.chosen}) == 1
    assert open_files() == before + 1
    children[0].end()
    shelf.forget(children[0].pid)  # the file that was copied is not needed for what is shared
    fourth = born(shelf, written(tmp_path / "3.safetensors"))
    assert fourth.chosen == children[1].chosen
    assert fourth.contents == [Path(tmp_path / "3.safetensors").read_bytes()]
    for child in (*children[1:], fourth):
        child.end()
        shelf.forget(child.pid)
    assert open_files() == before


def test_other_bytes_are_not_shared_and_a_child_keeps_only_what_it_uses(shelf: Shelf, tmp_path: Path) -> None:
    contents = [b"some weights", b"SOME weights", b"some weightS"]
    paths = [written(tmp_path / f"{number}.safetensors", content) for number, content in enumerate(contents)]
    children = [born(shelf, path) for path in paths]
    assert [child.contents for child in children] == [[Path(path).read_bytes()] for path in paths]
    assert all(len(child.chosen) == 1 and child.kept == sorted(child.chosen) for child in children)
    assert len({one for child in children for one in child.chosen}) == 3
    for child in children:
        child.end()
        before = open_files()
        shelf.forget(child.pid)
        assert open_files() == before - 1  # nobody else was thought to use it


def test_a_child_that_lies_about_a_file_does_not_give_its_bytes_to_others(shelf: Shelf, tmp_path: Path) -> None:
    """It fills its own place with bytes of its own; who has another file of that size sees that they are others."""
    lied, honest = (written(tmp_path / f"{name}.safetensors") for name in ("lied", "honest"))
    (place,) = shelf.reserve([lied]).values()
    poison = tmp_path / "poison"
    poison.write_bytes(Path(lied).read_bytes()[:-4] + b"evil")
    seen = poison.stat()
    assert fill(str(poison), (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns), place.own)
    shelf.use([place], 1)
    child = born(shelf, honest)
    assert child.contents == [Path(honest).read_bytes()]
    assert place.own not in child.chosen
    child.end()


def test_what_is_computed_in_other_numbers_is_neither_filled_nor_shared(shelf: Shelf, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    path.write_bytes(safetensors(b'{"a":{"dtype":"F16"}}', bytes(8)))
    before = open_files()
    child = born(shelf, str(path))
    assert child.contents == [None]
    assert child.chosen == set()
    assert child.kept == []
    child.end()
    assert open_files() == before


def test_who_has_no_weights_tells_at_once(shelf: Shelf) -> None:
    child = Child({})
    assert child.chosen == set()
    child.end()


def test_a_birth_waits_for_a_file_of_its_size_and_for_no_other(shelf: Shelf, tmp_path: Path) -> None:
    first, copy = (written(tmp_path / f"{name}.safetensors") for name in ("first", "copy"))
    longer = written(tmp_path / "longer.safetensors", b"some more weights")
    (place,) = shelf.reserve([first]).values()
    shelf.use([place], 1)
    assert shelf.may_become_alike([copy], {1})
    assert not shelf.may_become_alike([copy], {2})
    assert not shelf.may_become_alike([first], {1})  # that is a matter of the two who fill it
    assert not shelf.may_become_alike([longer, str(tmp_path / "none")], {1})
    (own,) = shelf.reserve([copy]).values()
    shelf.use([own], 2)
    assert fill(copy, own.identity, own.own)
    assert not shelf.may_become_alike([copy], {1})  # it is there
    shelf.forget(1)
    shelf.forget(2)


def test_a_shelf_goes_on_in_another_process(shelf: Shelf, tmp_path: Path) -> None:
    before = open_files()
    for number in range(230):
        path = written(tmp_path / f"{number}.safetensors", bytes([number]))
        (place,) = shelf.reserve([path]).values()
        fill(path, place.identity, place.own)
        shelf.use([place], number)
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
    (place,) = received.reserve([str(tmp_path / "7.safetensors")]).values()
    assert place.alike == ()
    assert Path(f"/proc/self/fd/{place.own}").read_bytes()[-1] == 7
    for number in range(230):
        received.forget(number)
    assert open_files() == before


@pytest.mark.parametrize("said", [b"", b"nothing", b"7", b"{", b'["3", null]', b"[" * 50_000])
def test_what_a_child_says_that_is_no_choice_chooses_nothing(said: bytes) -> None:
    assert read_chosen(said) == set()

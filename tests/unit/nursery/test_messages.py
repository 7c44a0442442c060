"""Messages and arrays come through a socket as they were."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from modelium_nursery import packets, tensors

_NUMBERS = arrays.arrays(
    dtype=st.sampled_from(["?", "i1", "<u2", "<i4", "<i8", "<f2", "<f4", "<f8"]).map(np.dtype),
    shape=arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    elements={"allow_nan": False},
)
_TEXTS = st.lists(st.binary(max_size=20), max_size=5).map(lambda texts: np.array([*texts, None], dtype=object)[:-1])


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = packets.pair()
    with one, other:
        yield one, other


def through(message: dict[str, Any], buffers: list[packets.Buffer]) -> packets.Message:
    one, other = packets.pair()
    with one, other:
        sender = threading.Thread(target=packets.send, args=(one, message, buffers))
        sender.start()
        received = packets.receive(other)
        sender.join()
    return received


@given(st.dictionaries(st.text(), st.integers() | st.text()), st.lists(st.binary(max_size=100)))
def test_a_message_arrives_as_it_was(message: dict[str, Any], buffers: list[bytes]) -> None:
    message.pop("buffers", None)
    received, parts = through(message, list(buffers))
    assert received == message
    assert [bytes(part) for part in parts] == buffers


@pytest.mark.parametrize("size", [packets.INLINE_BYTES - 300, packets.INLINE_BYTES, 5_000_001])
def test_of_any_size(size: int) -> None:
    given = os.urandom(size)
    _, (part,) = through({}, [given])
    assert bytes(part) == given
    part[:1] = b"!"  # the receiver's own


def test_what_both_keep_carries_one_message_after_the_other() -> None:
    """Also larger ones, and those that are too large for it; what was received before stays as it was."""
    one, other = packets.pair()
    outgoing, incoming = packets.Tray(), packets.Tray()
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    kept = []
    with one, other:
        for size in (100_000, 70_000, 10, 3_000_001, 3_000_000, 5_000_001, 100_000):
            given = os.urandom(size)
            packets.send(one, {"size": size}, [b"first", given], outgoing)
            message, (first, part) = packets.receive(other, incoming)
            assert message == {"size": size}
            assert bytes(first) == b"first"
            part[:1] = given[:1]  # the receiver's own
            kept.append((given, part))
        assert all(bytes(part) == given for given, part in kept)
        del first, part, kept
        assert len(os.listdir("/proc/self/fd")) <= files + 2  # noqa: PTH208 — mappings keep one each


@pytest.mark.parametrize("tray", [None, packets.Tray()])
def test_a_message_in_a_tray_that_nobody_has_is_refused(
    ends: tuple[socket.socket, socket.socket], tray: packets.Tray | None
) -> None:
    ends[0].send(packets._HEAD.pack(2, 100_000, 200_000))
    with pytest.raises(packets.Closed):
        packets.receive(ends[1], tray)


def test_many_messages_keep_their_order_and_their_bounds(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends

    def send_all() -> None:
        for number in range(500):
            packets.send(one, {"number": number}, [bytes(number)])

    sender = threading.Thread(target=send_all)
    sender.start()
    for number in range(500):
        message, parts = packets.receive(other)
        assert message == {"number": number}
        assert [len(part) for part in parts] == [number]
    sender.join()


def test_the_end_of_the_other_side_is_told(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    other.close()
    with pytest.raises(packets.Closed):
        packets.receive(one)
    with pytest.raises(packets.Closed):
        packets.send(one, {})


@pytest.mark.parametrize(
    "packet",
    [
        packets._HEAD.pack(0, 10_000, 3) + b"{}",
        packets._HEAD.pack(0, 2, 2) + b'{"buffers":[1]}'[:2],
        packets._HEAD.pack(0, 15, 15) + b'{"buffers":[9]}',
        packets._HEAD.pack(0, 16, 16) + b'{"buffers":[-9]}',
        packets._HEAD.pack(0, 18, 18) + b'{"buffers":["no"]}',
        packets._HEAD.pack(0, 2, 2) + b"[]",
        packets._HEAD.pack(0, 50_000, 50_000) + b"[" * 50_000,
    ],
)
def test_what_is_no_message_is_refused(ends: tuple[socket.socket, socket.socket], packet: bytes) -> None:
    one, other = ends
    one.send(packet)
    with pytest.raises(packets.Closed):
        packets.receive(other)


def test_arrays_that_cannot_all_be_had_leave_nothing_among_those_of_others() -> None:
    """A request that cannot be read is refused alone; the buffers of its neighbours keep their order."""

    def named() -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        yield "A", np.zeros(3)
        raise ValueError("no numbers")

    buffers: list[packets.Buffer] = [b"a neighbour's"]
    with pytest.raises(ValueError, match="no numbers"):
        tensors.pack(named(), buffers)
    assert buffers == [b"a neighbour's"]


OTHERWISE = (np.arange(12).reshape(3, 4).T, np.arange(9)[::2], np.array(["ä", "b"]), np.array([b"x", "ä"], object))


@given(st.lists(st.tuples(st.text(min_size=1), _NUMBERS | _TEXTS), max_size=4))
def test_arrays_arrive_as_they_were(named: list[tuple[str, np.ndarray[Any, Any]]]) -> None:
    buffers: list[packets.Buffer] = []
    described = tensors.pack(named, buffers)
    message, parts = through({"tensors": described}, buffers)
    found = list(tensors.unpack(message["tensors"], iter(parts)))
    assert [name for name, _ in found] == [name for name, _ in named]
    for (_, was), (_, array) in zip(named, found, strict=True):
        assert array.dtype == was.dtype
        assert array.shape == was.shape
        assert np.array_equal(array, was)
        assert array.flags.writeable


@pytest.mark.parametrize("array", OTHERWISE)
def test_so_do_those_that_lie_otherwise_in_memory(array: np.ndarray[Any, Any]) -> None:
    buffers: list[packets.Buffer] = []
    described = tensors.pack([("A", array)], buffers)
    ((_, found),) = tensors.unpack(described, iter([memoryview(bytearray(bytes(one))) for one in buffers]))
    if array.dtype.kind in "OU":
        assert found.tolist() == [one if isinstance(one, bytes) else one.encode() for one in array.tolist()]
    else:
        assert np.array_equal(found, array)

"""Messages between two processes over a socket: a dictionary of JSON and some buffers enter, the same leave on the other side.

A message of up to ``INLINE_BYTES`` is one packet. A longer one is written to a file in memory, whose descriptor is sent: the
receiver maps it, and owns it alone. So large tensors are copied once, and whatever the receiver keeps of them stays valid.

To make, fill and remove a file takes longer than to copy what is in it. Where the next message is only sent when the last one
was received, both sides keep one file (``Tray``), and the receiver copies. Measured for 600 kB: 0.1 ms of a core, not 0.56.
"""

from __future__ import annotations

import array
import json
import mmap
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

INLINE_BYTES = 64 * 1024
MOST_CANCELLABLE = 1 << 16  # requests under way at a time that can be cancelled; each has a byte
_HEAD = struct.Struct("<QQQ")  # inline, in a file or in the tray; bytes of JSON; bytes in all
_IN_FILE, _IN_TRAY = 1, 2
_MOST_IN_TRAY = 1 << 22  # what is larger is rare, and would stay
_ALIGNMENT = 64
_MOST_JSON = 1 << 28
_write = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make an encoder each time
_DESCRIPTOR = array.array("i").itemsize

Buffer = bytes | bytearray | memoryview
Message = tuple[dict[str, Any], list[memoryview]]


class Closed(Exception):
    """The other side has ended."""


class Tray:
    """A file in memory that sender and receiver of one direction keep, each by an object of its own."""

    def __init__(self) -> None:
        self._mapped: mmap.mmap | None = None

    def put(self, parts: Sequence[Buffer], total: int) -> int | None:
        """Write a message. A descriptor where the file is a new one: the receiver is to get it."""
        file = None
        if self._mapped is None or len(self._mapped) < total:
            file = os.memfd_create("modelium-messages", os.MFD_CLOEXEC)
            os.ftruncate(file, 1 << (total - 1).bit_length())
            self._mapped = mmap.mmap(file, 1 << (total - 1).bit_length())
        self._mapped.seek(0)
        for part in parts:
            self._mapped.write(part)
        return file

    def take(self, files: Sequence[int], total: int) -> bytearray:
        """A copy of the message. Raises ``Closed`` where there is none."""
        if files:
            self._mapped = mmap.mmap(files[0], 0, prot=mmap.PROT_READ)
        if self._mapped is None or len(self._mapped) < total:
            raise Closed("it sent what is no message")
        with memoryview(self._mapped) as whole:
            return bytearray(whole[:total])


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends that keep messages apart, in which as much fits as the system allows."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * INLINE_BYTES)
    return ends


def send(to: socket.socket, message: dict[str, Any], buffers: Sequence[Buffer] = (), tray: Tray | None = None) -> None:
    """Send one message; blocks while the other side does not read. Raises ``Closed``.

    ``tray``: where everything that was sent by it before has been received.
    """
    sizes = [len(buffer) for buffer in buffers]
    text = _write({**message, "buffers": sizes} if sizes else message).encode()
    parts: list[Buffer] = [text]
    total = len(text)
    for buffer, size in zip(buffers, sizes, strict=True):
        padding = -total % _ALIGNMENT
        parts += [bytes(padding), buffer]
        total += padding + size
    try:
        if total <= INLINE_BYTES:
            to.sendmsg([_HEAD.pack(0, len(text), total), *parts])
            return
        if tray is not None and total <= _MOST_IN_TRAY:
            _send_file(to, _HEAD.pack(_IN_TRAY, len(text), total), tray.put(parts, total))
            return
        file = os.memfd_create("modelium-message", os.MFD_CLOEXEC)
        try:
            _write_all(file, parts)
        except BaseException:
            os.close(file)
            raise
        _send_file(to, _HEAD.pack(_IN_FILE, len(text), total), file)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Closed(str(error)) from error


def _send_file(to: socket.socket, packet: bytes, file: int | None) -> None:
    if file is None:
        to.sendmsg([packet])
        return
    try:
        to.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))])
    finally:
        os.close(file)


def receive(of: socket.socket, tray: Tray | None = None) -> Message:
    """The next message. Raises ``Closed``, and ``BlockingIOError`` when a timeout of the socket has passed."""
    try:
        packet, rights, _, _ = of.recvmsg(_HEAD.size + INLINE_BYTES, socket.CMSG_SPACE(_DESCRIPTOR))
    except ConnectionResetError as error:
        raise Closed(str(error)) from error
    if not packet:
        raise Closed("the other side has ended")
    where, text_bytes, total = _HEAD.unpack_from(packet)
    files = [one for level, kind, data in rights if kind == socket.SCM_RIGHTS for one in array.array("i", data)]
    try:
        if where == _IN_FILE:
            body = memoryview(mmap.mmap(files[0], total, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE))
        elif where == _IN_TRAY and tray is not None:
            body = memoryview(tray.take(files, total))
        else:
            body = memoryview(bytearray(packet[_HEAD.size :]))
    finally:
        for file in files:
            os.close(file)
    if text_bytes > min(len(body), _MOST_JSON):
        raise Closed("it sent what is no message")
    try:
        message: dict[str, Any] = json.loads(bytes(body[:text_bytes]))
        return message, _split(body, text_bytes, message.pop("buffers", ()))
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        raise Closed(f"it sent what is no message: {error}") from error


def _split(body: memoryview, at: int, sizes: Sequence[int]) -> list[memoryview]:
    found = []
    for size in sizes:
        at += -at % _ALIGNMENT
        if size < 0 or at + size > len(body):
            raise Closed("it sent what is no message")
        found.append(body[at : at + size])
        at += size
    return found


def _write_all(file: int, parts: Sequence[Buffer]) -> None:
    for part in parts:
        left = memoryview(part)
        while len(left):
            left = left[os.write(file, left) :]

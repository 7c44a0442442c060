"""What a nursery may be asked for: packets enter, checked orders leave.

A ``Birth`` names the directory of an entry or backend and a module in it: code that the stub which asks may run itself. A
``Warming`` names modules of the libraries that a nursery may import (``LIBRARIES``).
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import re
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

MOST_BYTES = 160 * 1024  # an environment may have 128 KiB
_DESCRIPTORS = 6
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_PEER = struct.Struct("3i")
LIBRARIES = frozenset(
    """PIL accelerate huggingface_hub numpy onnxruntime regex safetensors sentencepiece soundfile timm tokenizers torch
    transformers vllm""".split()  # noqa: SIM905
)


class Refused(Exception):
    """An order that is none, or comes from the wrong process."""


class Birth(NamedTuple):
    """A child for one instance. ``weights``: the files whose bytes it may share with other children."""

    name: str
    directory: str
    module: str
    model_dir: str
    working_directory: str
    environment: dict[str, str]
    weights: Sequence[str] = ()


class Warming(NamedTuple):
    """Modules that models will need soon."""

    modules: list[str]


class Handed(NamedTuple):
    """The descriptors that come with a ``Birth``, as the child uses them."""

    requests: int
    services: int
    life: int
    cancelled: int
    output: int
    errors: int


def write(order: Birth | Warming) -> bytes:
    """An order as one packet."""
    kind = "birth" if isinstance(order, Birth) else "warming"
    return json.dumps({kind: order._asdict()}).encode("utf-8", "surrogateescape")


def read(connection: socket.socket) -> tuple[Birth | Warming, Handed | None]:
    """The order that waits in a connection. Raises ``Refused``; then nothing that came with it stays open."""
    room = socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize)
    packet, rights, flags, _ = connection.recvmsg(MOST_BYTES, room)
    files = [one for _, kind, data in rights if kind == socket.SCM_RIGHTS for one in array.array("i", data)]
    for file in files:
        os.set_inheritable(file, False)
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise Refused("the order is too long")
        order = _parse(packet)
        if isinstance(order, Birth):
            if len(files) != _DESCRIPTORS:
                raise Refused(f"a birth comes with {_DESCRIPTORS} descriptors, not {len(files)}")
            handed = Handed(*files)
            files = []
            return order, handed
        return order, None
    finally:
        for file in files:
            os.close(file)


def _parse(packet: bytes) -> Birth | Warming:
    try:
        match json.loads(packet.decode("utf-8", "surrogateescape")):
            case {"birth": dict(given)}:
                return _checked(Birth(**given))
            case {"warming": {"modules": list(modules)}}:
                return Warming(modules=importable(modules))
    except (ValueError, TypeError, RecursionError) as error:
        raise Refused(f"no order: {error}") from error
    raise Refused("no order")


def _checked(birth: Birth) -> Birth:
    if not isinstance(birth.environment, dict) or not isinstance(birth.weights, list | tuple):
        raise Refused("no order")
    texts = [birth.name, birth.directory, birth.module, birth.model_dir, birth.working_directory, *birth.weights]
    texts += [*birth.environment, *birth.environment.values()]
    if not all(isinstance(text, str) and "\0" not in text for text in texts) or not _MODULE.fullmatch(birth.module):
        raise Refused("no order")
    return birth


def importable(modules: list[str]) -> list[str]:
    """Those that are modules of libraries; each once."""
    names = dict.fromkeys(name for name in modules if isinstance(name, str) and _MODULE.fullmatch(name))
    return [name for name in names if name.partition(".")[0] in LIBRARIES]


def peer_of(connection: socket.socket) -> int:
    """The process at the other end, as the kernel knows it. Raises ``Refused`` if it is another user's."""
    peer, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if user != os.getuid():
        raise Refused(f"process {peer} is another user's")
    return int(peer)


def check_peer(peer: int) -> None:
    """Only stubs of a Triton may ask, and whoever started the nursery. Raises ``Refused``."""
    if peer in _ancestors(os.getpid()):
        return
    with contextlib.suppress(ProcessLookupError):
        if _name(peer).startswith("triton_python_b") and _name(_parent(peer)).startswith("tritonserver"):
            return
    raise Refused(f"process {peer} ({_name(peer)}) is no stub of Triton's")


def _ancestors(of: int) -> set[int]:
    while True:
        found: set[int] = set()
        at = of
        with contextlib.suppress(ProcessLookupError):  # one has just ended: who was below it has another parent now
            while (at := _parent(at)) > 0 and at not in found:
                found.add(at)
            return found


def _parent(of: int) -> int:
    """Raises ``ProcessLookupError`` when it is gone."""
    try:
        stat = Path(f"/proc/{of}/stat").read_text(errors="replace")
    except OSError:
        raise ProcessLookupError(of) from None
    return int(stat[stat.rindex(")") + 2 :].split()[1])


def _name(of: int) -> str:
    try:
        return Path(f"/proc/{of}/comm").read_text(errors="replace").strip()
    except OSError:
        return ""

"""A nursery's files in memory: paths of weights enter, places for them leave, and which children use them is known.

It knows files by device, inode, size and time of change, and gives each an empty file in memory; it never opens a model's file.
A child fills it (``weights``). Of a file that is new, it hands the child also what others have filled of the same size, and
hears from it which it uses (``shares``). What nobody uses goes.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from .weights import Identity, identity_of, is_full

_MOST_ALIKE = 64
_AT_ONCE = 100  # descriptors in one message; the kernel takes 253
_MOST_PACKET = 1 << 17
_NO_MORE = b"[]"


@dataclass(frozen=True, slots=True)
class Place:
    """Files in memory for one file of weights: its own, and full ones of other files of the same size."""

    identity: Identity
    own: int
    alike: tuple[int, ...] = ()

    @property
    def all(self) -> tuple[int, ...]:
        """Every descriptor."""
        return self.own, *self.alike


@dataclass(slots=True)
class _Shared:
    descriptor: int
    users: set[int] = field(default_factory=set)


class Shelf:
    """A nursery's: file of weights → file in memory, and which children use it."""

    def __init__(self) -> None:
        self._shared: dict[Identity, _Shared] = {}

    def reserve(self, paths: Iterable[str]) -> dict[str, Place]:
        """A place for each file that is there; a child of this process inherits it."""
        found = {}
        for path in paths:
            try:
                identity = identity_of(os.stat(path))  # noqa: PTH116 - the nursery imports as little as it can
            except OSError:
                continue
            if identity not in self._shared:
                file = os.memfd_create("modelium-weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
                self._shared[identity] = _Shared(file)
            own = self._shared[identity].descriptor
            found[path] = Place(identity, own, () if is_full(own) else self._alike(identity))
        return found

    def _alike(self, identity: Identity) -> tuple[int, ...]:
        same_size = [shared for other, shared in self._shared.items() if other[2] == identity[2] and is_full(shared.descriptor)]
        same_size.sort(key=lambda shared: len(shared.users), reverse=True)  # what many use, one more is likely to use
        return tuple(shared.descriptor for shared in same_size[:_MOST_ALIKE])

    def may_become_alike(self, paths: Iterable[str], undecided: Collection[int]) -> bool:
        """Is one of these children about to fill a file of the size of one of ``paths``?"""
        wanted = set()
        for path in paths:
            with contextlib.suppress(OSError):
                wanted.add(identity_of(os.stat(path)))  # noqa: PTH116
        sizes = {one[2] for one in wanted if one not in self._shared or not is_full(self._shared[one].descriptor)}
        return any(
            identity[2] in sizes and identity not in wanted and not shared.users.isdisjoint(undecided)
            for identity, shared in self._shared.items()
        )

    def send(self, to: socket.socket) -> None:
        """To another process, which goes on from here."""
        entries = list(self._shared.items())
        for at in range(0, len(entries), _AT_ONCE):
            part = entries[at : at + _AT_ONCE]
            text = json.dumps([[identity, sorted(shared.users)] for identity, shared in part]).encode()
            files = array.array("i", [shared.descriptor for _, shared in part])
            to.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        to.send(_NO_MORE)

    @classmethod
    def receive(cls, of: socket.socket) -> Shelf:
        """What another process has sent. Raises ``EOFError`` when that has ended."""
        shelf, room = cls(), socket.CMSG_SPACE(_AT_ONCE * array.array("i").itemsize)
        while (packet := of.recvmsg(_MOST_PACKET, room))[0] != _NO_MORE:
            text, rights, *_ = packet
            if not text:
                raise EOFError
            files = [one for _, kind, data in rights if kind == socket.SCM_RIGHTS for one in array.array("i", data)]
            for (identity, users), descriptor in zip(json.loads(text), files, strict=True):
                os.set_inheritable(descriptor, False)
                shelf._shared[tuple(identity)] = _Shared(descriptor, set(users))
        return shelf

    def use(self, places: Iterable[Place], child: int) -> None:
        """The child was born with them, and may use any."""
        handed = {descriptor for place in places for descriptor in place.all}
        for shared in self._shared.values():
            if shared.descriptor in handed:
                shared.users.add(child)

    def settle(self, child: int, chosen: Collection[int]) -> None:
        """Of what it was born with, it uses these."""
        for shared in self._shared.values():
            if shared.descriptor not in chosen:
                shared.users.discard(child)
        self.clear()

    def forget(self, child: int) -> None:
        """It has ended. What nobody uses any more goes."""
        for shared in self._shared.values():
            shared.users.discard(child)
        self.clear()

    def close(self) -> None:
        """Let go of everything: of a copy of this process."""
        for shared in self._shared.values():
            os.close(shared.descriptor)
        self._shared.clear()

    @property
    def users(self) -> frozenset[int]:
        """The children that use something here."""
        return frozenset().union(*(shared.users for shared in self._shared.values()))

    def clear(self) -> None:
        """Let go of what has no user."""
        for identity, shared in list(self._shared.items()):
            if not shared.users:
                os.close(shared.descriptor)
                del self._shared[identity]


def read_chosen(said: bytes) -> set[int]:
    """The descriptors that a child has told its nursery of."""
    try:
        return {each for each in json.loads(said) if isinstance(each, int)}
    except (ValueError, TypeError, RecursionError):
        return set()

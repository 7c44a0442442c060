"""The warm process: orders enter through its socket, children leave, one for each instance of a model.

It has imported what models need, and has one thread, no CUDA context and no model: only children run what comes with a model.
When models of other architectures have come, it forks a successor, which imports what they needed too, and takes over the
socket once it is ready. The old one ends with its last child.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import birth, heaps, imports, orders, trials
from .forks import check_warm, leaving, reaped, say, watched
from .register import Register
from .shelf import Shelf, read_chosen
from .trials import Trial

_ORDER_WITHIN_S = 5.0  # that somebody who has connected may take to say what for
_QUIET_S = 0.5  # without orders, before a successor is made
_DECIDED_WITHIN_S = 10.0  # a child that fills files which the next one may turn out to share
_MOST_CHOSEN = 1 << 16  # bytes of what a child says that it uses
WARM = b"w"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ordered:
    """A birth that somebody waits for."""

    connection: socket.socket
    order: orders.Birth
    handed: orders.Handed
    stub: int


@dataclass(slots=True)
class _Undecided:
    """A child that has not said yet which files in memory it uses. ``until``: when it is no longer waited for."""

    child: int
    until: float
    said: bytes = b""


@dataclass(slots=True, kw_only=True)
class Nursery:
    """One generation. ``alive``: a descriptor that stays open as long as a generation serves, and says when it is warm;
    ``keeper``: one that ends with the process that starts a new one when this one is killed."""

    directory: Path
    kind: str
    alive: int
    keeper: int
    register: Register
    listener: socket.socket | None = None
    shelf: Shelf = field(default_factory=Shelf)
    elders: dict[int, int] = field(default_factory=dict)  # what tells the end of an earlier generation's child → that child
    children: set[int] = field(default_factory=set)
    ordered: list[_Ordered] = field(default_factory=list)
    undecided: dict[int, _Undecided] = field(default_factory=dict)  # by the descriptor at which it says so
    wanted: dict[str, None] = field(default_factory=dict)  # modules for the successor
    known: set[str] = field(default_factory=set)  # those that were imported, or could not be
    trial: Trial | None = None  # a successor, which says when it is ready, and then takes over the shelf
    notes: tuple[int, int] = (-1, -1)
    woken: tuple[int, int] = (-1, -1)
    _orphaned: bool = False

    def serve(self) -> None:
        """Until a successor serves and the last child has ended. Raises ``NotWarm``."""
        check_warm()
        self._prepare()
        self.register.enter_own()
        os.write(self.alive, WARM)
        say(f"the nursery of {self.kind} models is warm: {len(sys.modules)} modules")
        while (self.listener is not None or self.children) and not self._orphaned:
            self._turn()

    def _prepare(self) -> None:
        importlib.import_module(f"{__package__}.serving")
        gc.collect()
        gc.freeze()  # no look for cycles writes on pages that children share
        gc.enable()
        heaps.fill_gaps()
        self.notes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.woken[1], warn_on_full_buffer=False)

    def _turn(self) -> None:
        poll = select.poll()
        listening = None if self.listener is None else self.listener.fileno()
        successor = None if self.trial is None or self.trial.over else self.trial.socket.fileno()
        for descriptor in (self.woken[0], self.notes[0], self.keeper, successor, listening, *self.elders, *self.undecided):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        left_s = None if self.trial is None else self.trial.left_s()
        if self.undecided or (self.wanted and self.trial is None):
            left_s = _QUIET_S if left_s is None else min(left_s, _QUIET_S)
        ready = {descriptor for descriptor, _ in poll.poll(None if left_s is None else left_s * 1000)}
        if self.woken[0] in ready:
            os.read(self.woken[0], 4096)
        self._orphaned = self.keeper in ready
        self._reap()
        for descriptor in self.elders.keys() & ready:
            os.close(descriptor)
            self.shelf.forget(self.elders.pop(descriptor))
        self._hear(ready)
        if self.notes[0] in ready:
            self._read_notes()
        if self.trial is not None:
            self.trial.end_if_late()
            if self.trial.ready and self._is_settled:
                self._hand_over(self.trial)
        if self.listener is not None and listening in ready:
            self._take_order(self.listener)
        self._bear_ordered()
        if not ready and self.wanted and self.trial is None and self._is_settled:
            self._make_successor()

    @property
    def _is_settled(self) -> bool:
        """Does nobody wait for a birth, and is it known of each child which files in memory it uses?"""
        return not self.ordered and not self.undecided

    # -- children ----------------------------------------------------------------------------------------------------

    def _take_order(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:  # a successor was quicker, who asked has gone, or no descriptor is left
            return
        connection.settimeout(_ORDER_WITHIN_S)
        with _refusing(connection):
            peer = orders.peer_of(connection)
            orders.check_peer(peer)
            order, handed = orders.read(connection)
            if isinstance(order, orders.Warming):
                self._want(order.modules)
                connection.send(b"{}")
                connection.close()
                return
            assert handed is not None
            self.ordered.append(_Ordered(connection=connection, order=order, handed=handed, stub=peer))

    def _bear_ordered(self) -> None:
        """Those of whom it is known which full files in memory they may share."""
        for one in list(self.ordered):
            undecided = {other.child for other in self.undecided.values()}
            if self.shelf.may_become_alike(one.order.weights, undecided):
                continue
            self.ordered.remove(one)
            with _refusing(one.connection):
                child = self._bear(one.order, one.handed, one.stub)
                one.connection.send(json.dumps({"pid": child}).encode())
            one.connection.close()

    def _bear(self, order: orders.Birth, handed: orders.Handed, stub: int) -> int:
        said = tell = -1
        try:
            places = self.shelf.reserve(order.weights)
            said, tell = os.pipe2(os.O_CLOEXEC)
            child = os.fork()
            if child == 0:
                birth.begin(order, handed, stub=stub, places=places, notes=self.notes[1], tell=tell)
        except OSError:
            self.shelf.clear()
            _close(said)
            raise
        finally:
            _close(tell, *handed)
        self.children.add(child)
        self.undecided[said] = _Undecided(child, time.monotonic() + _DECIDED_WITHIN_S)
        self.shelf.use(places.values(), child)
        self.register.enter(child, stub)
        return child

    def _hear(self, ready: Collection[int]) -> None:
        """What children say that they use; one that ends without a word uses nothing, one that takes too long all it has."""
        now = time.monotonic()
        for descriptor, one in list(self.undecided.items()):
            said = os.read(descriptor, _MOST_CHOSEN) if descriptor in ready else None
            one.said += said or b""
            if said != b"" and now < one.until and len(one.said) < _MOST_CHOSEN:
                continue
            os.close(descriptor)
            del self.undecided[descriptor]
            if said == b"":
                self.shelf.settle(one.child, read_chosen(one.said))

    def _reap(self) -> None:
        for pid, status in reaped():
            if self.trial is not None and pid == self.trial.pid and not self.trial.ready:
                self._try_without_the_culprit(self.trial, status)
            self.children.discard(pid)
            self.shelf.forget(pid)
            self.register.strike(pid)
            self.register.strike_own(pid)

    # -- what children had to import themselves ----------------------------------------------------------------------

    def _read_notes(self) -> None:
        noted = orders.importable(os.read(self.notes[0], 1 << 16).decode("ascii", "replace").split())
        self._want(name for name in noted if name not in sys.modules)

    def _want(self, modules: Iterable[str]) -> None:
        new = [module for module in modules if module not in self.known]
        if len(self.wanted) + len(new) <= imports.MOST_MODULES:
            self.wanted.update(dict.fromkeys(new))

    def _make_successor(self) -> None:
        wanted, self.wanted = list(self.wanted), {}
        self.known.update(wanted)  # what cannot be imported is not tried for ever
        if self.listener is None:  # there is one already
            imports.remember(self.directory, self.kind, wanted)
            return
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if pid := os.fork():
            its.close()
            self.trial = Trial(pid=pid, socket=ours, wanted=wanted)
            return
        ours.close()
        with leaving():
            self.shelf.close()
            _close(*self.notes, *self.woken)
            imports.remember(self.directory, self.kind, trials.import_all(wanted, its))
            its.send(trials.READY)
            shelf = Shelf.receive(its)
            its.close()
            elders = watched(shelf.users)
            for gone in shelf.users - set(elders.values()):
                shelf.forget(gone)
            Nursery(
                directory=self.directory,
                kind=self.kind,
                alive=self.alive,
                keeper=self.keeper,
                register=self.register,
                listener=self.listener,
                known=self.known,
                shelf=shelf,
                elders=elders,
            ).serve()

    def _hand_over(self, trial: Trial) -> None:
        with trial.socket as successor:
            self.trial = None
            if self.listener is not None:
                self.listener.close()
                self.listener = None
                self.shelf.send(successor)
                os.close(self.alive)

    def _try_without_the_culprit(self, trial: Trial, status: int) -> None:
        self.trial = None
        culprit = trials.refuse_culprit(trial, status, self.directory, self.kind)
        trial.socket.close()
        if culprit is not None:
            self.wanted = dict.fromkeys(module for module in (*trial.wanted, *self.wanted) if module != culprit)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)


@contextlib.contextmanager
def _refusing(connection: socket.socket) -> Iterator[None]:
    """Whatever goes wrong is said to who has asked, who then gets nothing more."""
    try:
        yield
    except orders.Refused as refusal:
        say(f"an order was refused: {refusal}")
        with contextlib.suppress(OSError):
            connection.send(json.dumps({"refused": str(refusal)}).encode())
        connection.close()
    except Exception as error:  # the stub has gone, the machine has no room for another process; whatever it is, go on
        say(f"a child could not be born: {error}")
        connection.close()

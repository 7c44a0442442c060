"""A child at work: the stub's messages enter, the model's answers leave.

The model's code is the same as in a stub without a nursery: a module with a ``TritonPythonModel``, which imports
``triton_python_backend_utils`` (here: ``pb``).
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NoReturn

from . import birth, entries, heaps, packets, pb, thresholds
from .orders import Birth, Handed, importable
from .packets import MOST_CANCELLABLE, Buffer
from .shares import Shares

TAKEN_DOWN = "taken down"  # the name of a process whose model has ended (modelium/controller/endings.py)
_FORGOTTEN_S = 3.0
_NOBODY_WAITS_S = 0.5
_AT_REST_S = 5.0  # without requests; the next one has to ask the system for memory again
SHARES = "modelium_shares"  # the module by which a model finds weights in memory, where there are any


def serve(order: Birth, handed: Handed, shares: Shares, notes: int) -> NoReturn:
    """Serve one instance until the stub lets it go."""
    thresholds.keep_what_is_freed()
    requests = socket.socket(fileno=handed.requests)
    services = pb.Services(socket.socket(fileno=handed.services))
    cancelled = mmap.mmap(handed.cancelled, MOST_CANCELLABLE, prot=mmap.PROT_READ)
    pb.make_module(services, order.model_dir)
    sys.modules[SHARES] = module = ModuleType(SHARES)
    module.path_of = shares.path_of  # type: ignore[attr-defined]
    imported = _Imported(notes)
    instance = Instance(requests, cancelled, lambda: entries.load(order.directory, order.module).TritonPythonModel)
    incoming = packets.Tray()
    is_new = False  # it is loaded, and was never asked
    rests_after_s: float | None = None  # what its load or its requests have left behind is still there
    while True:
        if rests_after_s is not None and not _comes_something(requests, rests_after_s):
            if is_new:
                instance.rehearse()
                is_new = imported.tell(last=True)
            heaps.give_back()
            rests_after_s = None
        try:
            message, buffers = packets.receive(requests, incoming)
        except packets.Closed:
            os._exit(0)
        match message:
            case {"initialize": arguments}:
                is_new = instance.initialize(arguments)
                rests_after_s = _NOBODY_WAITS_S
                signal.signal(signal.SIGTERM, lambda *_: _take_down(instance, services, order.name))
                imported.tell()
            case {"execute": given, "batch": number}:
                instance.execute(given, buffers, number)
                rests_after_s = rests_after_s or _AT_REST_S
                if is_new:
                    is_new = imported.tell(last=True)
            case {"take over": given}:
                instance.take_over(given, buffers)
                rests_after_s = rests_after_s or _AT_REST_S
                if is_new:
                    is_new = imported.tell(last=True)
            case {"finalize": _}:
                instance.finalize()
                os._exit(0)


def _take_down(instance: Instance, services: pb.Services, name: str) -> None:
    """Who knows that nobody asks this model any more has told this process to end. It does what there is to do, and says by its
    name that this is done. It does not end: its stub would end with it, and Triton may just be about to ask that for a farewell
    and would wait for ever. Who told it knows when it may be killed; else Triton's farewell ends it, or if that does not come
    either, an alarm."""
    if instance.ends:  # by Triton's farewell
        return
    instance.finalize()
    with contextlib.suppress(pb.TritonModelException):  # what was told before, as that metrics go, is done before this is
        services.ask("is_model_ready", name, "")
    signal.setitimer(signal.ITIMER_REAL, _FORGOTTEN_S)
    birth.be_called(TAKEN_DOWN)


def _comes_something(requests: socket.socket, within_s: float) -> bool:
    """Does anybody ask the model so soon? Who waited for its load does, and must not wait for a rehearsal too."""
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    return bool(poll.poll(within_s * 1000))


class _Imported:
    """Which modules of libraries the nursery was without, told to it for the next child of its kind.

    What is new comes last in ``sys.modules``. To look at the others would copy the page of memory of each.
    """

    def __init__(self, notes: int) -> None:
        self._notes = notes
        self._last = next(reversed(sys.modules))

    def tell(self, *, last: bool = False) -> bool:
        """Those that came since the last time. Whether more may be told."""
        new = list(itertools.takewhile(lambda name: name != self._last, reversed(sys.modules)))[::-1]
        self._last = new[-1] if new else self._last
        for name in importable([name for name in new if _is_file(sys.modules[name])]):
            with contextlib.suppress(OSError):  # the nursery does not listen any more, or has not read yet
                os.write(self._notes, f"{name}\n".encode())
        if last:
            os.close(self._notes)
        return not last


def _is_file(module: Any) -> bool:
    return isinstance(getattr(module, "__file__", None), str) and getattr(module, "__spec__", None) is not None


class Instance:
    """One model, and what it is asked."""

    def __init__(self, requests: socket.socket, cancelled: mmap.mmap, load: Callable[[], Any]) -> None:
        self._requests = requests
        self._cancelled = cancelled
        self._load = load
        self._model: Any = None
        self.ends = False
        self._sending = threading.Lock()
        self._outgoing = packets.Tray()
        self._unanswered: set[int] = set()  # of those that are answered through their senders

    def initialize(self, arguments: dict[str, str]) -> bool:
        """Load the model; whether it could be."""
        try:
            self._model = self._load()()
            if hasattr(self._model, "initialize"):
                self._model.initialize(arguments)
        except Exception as error:
            traceback.print_exc()
            self._send(_failure(error))
            return False
        self._send({"initialized": True})
        return True

    def rehearse(self) -> None:
        """Let the model do once what its first request would have to wait for."""
        if hasattr(self._model, "rehearse"):
            with contextlib.suppress(Exception):
                self._model.rehearse()

    def execute(self, given: list[dict[str, Any]], buffers: list[memoryview], number: int) -> None:
        """Answer a batch. ``number``: the batch's."""
        left = iter(buffers)
        outgoing: list[Buffer] = []
        try:
            batch = [self._request(one, left) for one in given]
            written = [None if one is None else one.write(outgoing) for one in self._model.execute(batch)]
        except Exception as error:
            traceback.print_exc()
            self._send({**_failure(error), "batch": number})
            return
        self._send({"executed": written, "batch": number}, outgoing, self._outgoing)  # the stub has read the one before

    def take_over(self, given: list[dict[str, Any]], buffers: list[memoryview]) -> None:
        """Begin with requests that are answered through their senders. Nobody waits for that: threads of the model may be at
        work, and each time this one has to wait for Python's lock costs 5 ms (measured: 35 ms a request of a busy engine).
        """
        left = iter(buffers)
        self._unanswered.update(one["number"] for one in given)
        try:
            self._model.execute([self._request(one, left) for one in given])
        except Exception as error:
            traceback.print_exc()
            response = pb.InferenceResponse(error=pb.TritonError(f"{type(error).__name__}: {error}"))
            left_over = [one["number"] for one in given if one["number"] in self._unanswered]
            self._answer([pb.Answer(number, response, pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL) for number in left_over])

    def finalize(self) -> None:
        """End the model, once."""
        if self.ends:
            return
        self.ends = True
        try:
            if hasattr(self._model, "finalize"):
                self._model.finalize()
        except Exception as error:
            traceback.print_exc()
            self._send(_failure(error))
            return
        self._send({"finalized": True})

    def _request(self, given: dict[str, Any], buffers: Any) -> pb.InferenceRequest:
        place: int = given["place"]
        cancelled = self._cancelled
        return pb.InferenceRequest(given, buffers, lambda: place >= 0 and cancelled[place] != 0, self._answer)

    def _answer(self, answers: Sequence[pb.Answer]) -> None:
        """To requests that are answered through their senders."""
        self._unanswered.difference_update(one.number for one in answers if one.flags & pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        outgoing: list[Buffer] = []
        written = [None if one.response is None else one.response.write(outgoing) for one in answers]
        self._send({"answers": [[one.number, said, one.flags] for one, said in zip(answers, written, strict=True)]}, outgoing)

    def _send(self, message: dict[str, Any], buffers: list[Buffer] | None = None, tray: packets.Tray | None = None) -> None:
        with self._sending:
            packets.send(self._requests, message, buffers or (), tray)


def _failure(error: Exception) -> dict[str, Any]:
    """Its type and its words: the stub raises it again."""
    return {"failed": [type(error).__name__, str(error)]}

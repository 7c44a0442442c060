"""A child at work: the stub's messages enter, the model's answers leave.

The model's code is the same as in a stub without a nursery: a module with a ``TritonPythonModel``, which imports
``triton_python_backend_utils`` (here: ``pb``).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

from . import entries, packets, pb
from .orders import Birth, Handed, importable
from .packets import MOST_CANCELLABLE, Buffer
from .weights import Shares

SHARES = "modelium_shares"  # the module by which a model finds weights in memory, where there are any


def serve(order: Birth, handed: Handed, shares: Shares, notes: int) -> NoReturn:
    """Serve one instance until the stub lets it go."""
    requests = socket.socket(fileno=handed.requests)
    services = pb.Services(socket.socket(fileno=handed.services))
    cancelled = mmap.mmap(handed.cancelled, MOST_CANCELLABLE, prot=mmap.PROT_READ)
    pb.make_module(services, order.model_dir)
    sys.modules[SHARES] = module = ModuleType(SHARES)
    module.path_of = shares.path_of  # type: ignore[attr-defined]
    known = set(sys.modules)
    instance = Instance(requests, cancelled, lambda: entries.load(order.directory, order.module).TritonPythonModel)
    while True:
        try:
            message, buffers = packets.receive(requests)
        except packets.Closed:
            os._exit(0)
        match message:
            case {"initialize": arguments}:
                if instance.initialize(arguments):
                    _note(known, notes)
                os.close(notes)
            case {"execute": given, "batch": number}:
                instance.execute(given, buffers, number)
            case {"finalize": _}:
                instance.finalize()
                os._exit(0)


def _note(known: set[str], notes: int) -> None:
    """Tell the nursery which modules of libraries it was born without, for the next one of its kind."""
    for name in importable([name for name, module in sys.modules.items() if name not in known and _is_file(module)]):
        with contextlib.suppress(OSError):  # the nursery does not listen any more, or has not read yet
            os.write(notes, f"{name}\n".encode())


def _is_file(module: Any) -> bool:
    return isinstance(getattr(module, "__file__", None), str) and getattr(module, "__spec__", None) is not None


class Instance:
    """One model, and what it is asked."""

    def __init__(self, requests: socket.socket, cancelled: mmap.mmap, load: Callable[[], Any]) -> None:
        self._requests = requests
        self._cancelled = cancelled
        self._load = load
        self._model: Any = None
        self._sending = threading.Lock()

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

    def execute(self, given: list[dict[str, Any]], buffers: list[memoryview], number: int) -> None:
        """Answer a batch, or take it over where each request is answered through its sender. ``number``: the batch's."""
        left = iter(buffers)
        outgoing: list[Buffer] = []
        try:
            batch = [self._request(one, left) for one in given]
            answers = self._model.execute(batch)
            written = None if answers is None else [None if one is None else one.write(outgoing) for one in answers]
        except Exception as error:
            traceback.print_exc()
            self._send({**_failure(error), "batch": number})
            return
        self._send({"executed": written, "batch": number}, outgoing)

    def finalize(self) -> None:
        """End the model."""
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

        def answer(response: pb.InferenceResponse | None, flags: int) -> None:
            outgoing: list[Buffer] = []
            written = None if response is None else response.write(outgoing)
            self._send({"answer": given["number"], "response": written, "flags": flags}, outgoing)

        return pb.InferenceRequest(given, buffers, lambda: place >= 0 and cancelled[place] != 0, answer)

    def _send(self, message: dict[str, Any], buffers: list[Buffer] | None = None) -> None:
        with self._sending:
            packets.send(self._requests, message, buffers or ())


def _failure(error: Exception) -> dict[str, Any]:
    """Its type and its words: the stub raises it again."""
    return {"failed": [type(error).__name__, str(error)]}

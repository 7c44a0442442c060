"""What a stub and its child say to each other: Triton's requests enter, the child's answers leave as Triton's responses.

Clients that go are told to the child meanwhile, and a child that computes nothing though it is asked is ended.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import triton_python_backend_utils as pb_utils

from . import client, packets, tensors
from .hangs import HANGS_AFTER_S, Watch
from .packets import MOST_CANCELLABLE, Buffer

# How often Triton is asked whether the client of a request under way has gone. Each question goes through shared memory and
# back, so a batch that is computed in less time costs none; a stream may be ended between two tokens.
_LOOK_MS, _LOOK_AT_STREAMS_MS = 250, 100


class Exchange:
    """Requests to a child and its answers."""

    def __init__(self, child: client.Child, hangs_after_s: float = HANGS_AFTER_S) -> None:
        self._child = child
        self._watch = Watch(child.pid, hangs_after_s)
        self._outgoing, self._incoming = packets.Tray(), packets.Tray()
        self._poll = select.poll()
        self._poll.register(child.requests, select.POLLIN)
        self._open: dict[int, _Asked] = {}
        self._some_open = threading.Event()
        self._places: list[int] = []
        self._number = 0
        self._lock = threading.Lock()  # around the two above
        self._listener: threading.Thread | None = None

    def ask(self, message: dict[str, Any], answer: str) -> None:
        """Send, and wait for that answer. Raises what the child raised, and ``RuntimeError`` for one that hangs."""
        packets.send(self._child.requests, message)
        self._watch.begin()
        while not self._poll.poll(_LOOK_MS):
            if self._watch.hangs(time.monotonic()):
                raise RuntimeError(f"it hangs: it has computed nothing for {self._watch.after_s:g} seconds while it loads")
        _check(packets.receive(self._child.requests, self._incoming)[0], answer)

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request, when all are there. What cannot be read is that request's error alone."""
        buffers: list[Buffer] = []
        cancelled = self._child.cancelled
        answers: list[Any] = [None] * len(requests)
        given: list[dict[str, Any]] = []
        for number, request in enumerate(requests):
            place = number if number < MOST_CANCELLABLE else -1
            try:
                if place >= 0:
                    cancelled[place] = request.is_cancelled()
                given.append(_request(request, number, place, buffers))
            except Exception as error:
                answers[number] = _refusal(error)
        if not given:
            return answers
        self._number += 1
        packets.send(self._child.requests, {"execute": given, "batch": self._number}, buffers, self._outgoing)
        self._watch.begin()
        while not self._poll.poll(_LOOK_MS):
            self._end_if_it_hangs()
            for one in given:
                place = one["place"]
                with contextlib.suppress(Exception):  # whether a client has gone must not cost the others their answers
                    if place >= 0 and not cancelled[place] and requests[one["number"]].is_cancelled():
                        cancelled[place] = 1
        message, received = packets.receive(self._child.requests, self._incoming)
        if message.get("batch") != self._number:
            self._give_up("its child answered what nobody asked")
        _check(message, "executed")
        left = iter(received)
        for one, answer in zip(given, message["executed"], strict=True):
            answers[one["number"]] = None if answer is None else _response(answer, left)
        return answers

    def _end_if_it_hangs(self) -> None:
        if self._watch.hangs(time.monotonic()):
            self._give_up(f"its child was asked, and has computed nothing for {self._watch.after_s:g} seconds")

    # -- where each request is answered through its own sender -------------------------------------------------------

    def listen(self) -> None:
        """From now on a thread receives what the child sends, and another one asks Triton who has gone: each takes its time."""
        self._listener = threading.Thread(target=self._listen, name="answers", daemon=True)
        self._listener.start()
        threading.Thread(target=self._look_who_has_gone, name="cancellations", daemon=True).start()

    def take_over(self, requests: Sequence[Any]) -> None:
        """Hand the requests to the child, which answers whatever happens."""
        first = self._number
        try:
            self._hand_over(requests)
        except BaseException:
            with self._lock:  # Triton answers them with the error
                for number in [number for number in self._open if number >= first]:
                    self._close(number)
            raise

    def _hand_over(self, requests: Sequence[Any]) -> None:
        buffers: list[Buffer] = []
        given = []
        for request in requests:
            sender = request.get_response_sender()
            with self._lock:
                number, self._number = self._number, self._number + 1
                place = self._places.pop() if self._places else len(self._open)
                place = place if place < MOST_CANCELLABLE else -1
                self._open[number] = _Asked(sender, place, threading.Lock())
                self._some_open.set()
            if place >= 0:
                self._child.cancelled[place] = 0
            given.append(_request(request, number, place, buffers))
        packets.send(self._child.requests, {"take over": given}, buffers)

    def finalize(self, within_s: float) -> None:
        """Let the child end its model; not longer than that."""
        packets.send(self._child.requests, {"finalize": True})
        if self._listener is not None:
            self._listener.join(within_s)
            return
        if self._poll.poll(within_s * 1000):
            _check(packets.receive(self._child.requests, self._incoming)[0], "finalized")

    def _listen(self) -> None:
        try:
            self._receive_all()
        except packets.Closed:
            return  # it has ended, and this process with it; or it is let go
        except Exception as error:
            self._give_up(f"its child could not be understood ({error})")

    def _give_up(self, why: str) -> None:
        """End the child, and so this process: answers could not be told apart any more."""
        pb_utils.Logger.log_error(f"the model ends: {why}")
        self._child.end()

    def _receive_all(self) -> None:
        while True:
            message, buffers = packets.receive(self._child.requests, self._incoming)
            if "answers" in message:
                left = iter(buffers)
                for number, response, flags in message["answers"]:
                    count = len(response.get("tensors", ())) if response else 0
                    self._pass_on(number, response, flags, list(itertools.islice(left, count)))
            elif "finalized" in message or "failed" in message:
                return
            else:
                raise ValueError("what nobody asked")

    def _pass_on(self, number: int, response: dict[str, Any] | None, flags: int, buffers: list[memoryview]) -> None:
        asked = self._open.get(number)
        if asked is None:
            pb_utils.Logger.log_warn("an answer came after the last one to its request")
            return
        with asked.lock:
            try:
                if response is None:
                    asked.sender.send(flags=flags)
                else:
                    asked.sender.send(_response(response, iter(buffers)), flags=flags)
            except Exception as error:  # the client has gone, or it was the last answer already
                pb_utils.Logger.log_warn(f"a response could not be sent: {error}")
            if flags & pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL:
                with self._lock:
                    self._close(number)

    def _close(self, number: int) -> None:
        asked = self._open.pop(number, None)
        if asked is not None and asked.place >= 0:
            self._places.append(asked.place)

    def _look_who_has_gone(self) -> None:
        while True:
            self._some_open.wait()
            time.sleep(_LOOK_AT_STREAMS_MS / 1000)
            with self._lock:
                waiting = list(self._open.items())
                if not waiting:
                    self._some_open.clear()
                    self._watch.begin()
            self._end_if_it_hangs()
            for number, asked in waiting:
                # A sender knows nothing of threads. One that is busy is asked the next time; one that is done, never again.
                if asked.place < 0 or self._child.cancelled[asked.place] or not asked.lock.acquire(blocking=False):
                    continue
                try:
                    if number in self._open and asked.sender.is_cancelled():
                        self._child.cancelled[asked.place] = 1
                finally:
                    asked.lock.release()


class _Asked(NamedTuple):
    """A request under way. ``place``: its byte among those that can be cancelled, or -1."""

    sender: Any
    place: int
    lock: threading.Lock  # around the sender


def _request(request: Any, number: int, place: int, buffers: list[Buffer]) -> dict[str, Any]:
    return {
        "number": number,
        "place": place,
        "id": request.request_id(),
        "parameters": request.parameters(),
        "outputs": list(request.requested_output_names()),
        "tensors": tensors.pack(((one.name(), one.as_numpy()) for one in request.inputs()), buffers),
    }


def _response(given: dict[str, Any], buffers: Any) -> Any:
    if "error" in given:
        message, code = given["error"]
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, getattr(pb_utils.TritonError, code)))
    made = [pb_utils.Tensor(name, array) for name, array in tensors.unpack(given["tensors"], buffers)]
    return pb_utils.InferenceResponse(output_tensors=made)


def _refusal(error: Exception) -> Any:
    words = f"{type(error).__name__}: {error}"
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(words, pb_utils.TritonError.INTERNAL))


def _check(message: dict[str, Any], expected: str) -> None:
    """Raises what the child raised: its type's name and its words are what Triton passes on."""
    if "failed" in message:
        name, text = message["failed"]
        raise type(name, (Exception,), {})(text)
    if expected not in message:
        raise RuntimeError(f"the child did not say {expected!r}")

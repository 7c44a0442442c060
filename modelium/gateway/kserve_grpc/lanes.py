"""One model's part of a client's stream: its messages enter in order, Triton's answers leave, each message with a lease.

A lane has a stream to Triton of its own, so that one model's load or end is not in the way of the others'. Triton is asked to
tell the end of every answer (``triton_enable_empty_final_response``), for the lease ends with it; what Triton says for that
alone is not passed on to a client that did not ask for it.

1. A message that was certainly not executed is sent again after a load, in its place. That is so for one that Triton refused
   before its model had it, and for all that nothing was answered to where Triton could not be connected to.
2. Which message an answer belongs to, its id says. Of several with the same id it is the first; where answers may overtake each
   other (decoupled models), a refusal of one of these is passed on.
3. All else that Triton says of one message is passed on as it is. What ends Triton's stream ends the client's.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from modelium.errors import ModelGone, ModeliumError, TritonUnavailable
from modelium.gateway.asking import ATTEMPTS, Asking
from modelium.gateway.asking.watching import LOOK_EVERY_S
from modelium.gateway.kserve.rules import VERSION
from modelium.gateway.kserve_grpc import wire
from modelium.gateway.kserve_grpc.caller import broke_off, code_of, is_cancelled
from modelium.gateway.kserve_grpc.statuses import in_http
from modelium.metrics import Recorder
from modelium.triton.faults import never_executed, stream_error

if TYPE_CHECKING:
    from modelium.controller import Controller, Lease

MOST_UNDER_WAY = 256  # messages of one model in one stream; the client's next one waits until one is answered

_OK, _FAILED = in_http(grpc.StatusCode.OK), in_http(grpc.StatusCode.INTERNAL)


@dataclass(slots=True, eq=False)
class Message:
    """One request in a stream. ``forget`` gives back what it holds of the gateway's memory."""

    data: bytes
    question: wire.Question
    forget: Callable[[], None]
    came_at: float = field(default_factory=monotonic)
    attempts: int = 0
    begun: bool = False
    lease: Lease | None = None
    number: int = 0  # its place in the lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all lanes of a client's stream share. ``say``: writes to the client; ``open_stream``: one to Triton;
    ``wait_s``: how long a message may wait for its model."""

    controller: Controller
    asking: Asking
    recorder: Recorder
    say: Callable[[bytes], Awaitable[None]]
    open_stream: Callable[[], Any]
    wait_s: Callable[[], float]
    words_of: Callable[[Exception], str]


class Lane:
    """Run ``run()`` beside whoever calls ``take``; ``close()`` lets go of everything."""

    def __init__(self, name: str, around: Surroundings) -> None:
        self._name = name
        self._around = around
        self._waiting: deque[Message] = deque()
        self._again: list[Message] = []  # in their places, and before all that wait: they came before them
        self._count = 0
        self._sent: list[Message] = []
        self._in_hand: Message | None = None
        self._changed = asyncio.Event()
        self._ended = False
        self._stream: Any = None
        self._reading: asyncio.Task[None] | None = None
        self._in_order = True

    async def take(self, message: Message) -> None:
        """Waits while there are ``MOST_UNDER_WAY``."""
        while len(self._waiting) + len(self._again) + len(self._sent) >= MOST_UNDER_WAY:
            await self._change()
        message.number = self._count = self._count + 1
        self._waiting.append(message)
        self._changed.set()

    def end(self) -> None:
        """No more come."""
        self._ended = True
        self._changed.set()

    async def run(self) -> None:
        """Send what comes until the end, and all is answered. Raises what ended Triton's stream."""
        looking = asyncio.create_task(self._look())
        try:
            while True:
                self._raise_what_ended_it()
                if self._again or self._waiting:
                    self._in_hand = self._again.pop(0) if self._again else self._waiting.popleft()
                    await self._send(self._in_hand)
                elif self._ended and not self._sent:
                    break
                else:
                    await self._change()
            if self._stream is not None:
                await self._stream.done_writing()
                if self._reading is not None:
                    await self._reading
        finally:
            looking.cancel()
            await self._end_stream()

    def close(self) -> None:
        """Give back every lease."""
        for message in (*self._sent, *self._waiting, *self._again, *((self._in_hand,) if self._in_hand is not None else ())):
            _let_go(message)
            self._around.recorder.request(self._name, in_http(grpc.StatusCode.CANCELLED), monotonic() - message.came_at)
        self._sent, self._in_hand = [], None
        self._waiting.clear()
        self._again.clear()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # -- to Triton ---------------------------------------------------------------------------------------------------

    async def _send(self, message: Message) -> None:
        try:
            lease = await self._around.controller.lease(self._name, timeout_s=self._around.wait_s())
        except ModeliumError as error:
            self._in_hand = None
            await self._fail(message, error)
            return
        if self._again and self._again[0].number < message.number:  # it was refused while this one waited, and came before it
            insort(self._again, message, key=_place)
            message = self._again.pop(0)
        if lease.cold:
            self._around.recorder.cold_start(self._name, lease.waited_s)
        message.lease, message.begun = lease, False
        message.attempts += 1
        self._in_hand = None
        self._in_order = not (lease.placement.by_vllm or lease.placement.by_ray)
        self._sent.append(message)
        if self._stream is None:
            self._stream = self._around.open_stream()
            self._reading = asyncio.create_task(self._read(self._stream))
        try:
            data = message.data
            if message.question.name != self._name:  # not before: a message that waits is held once
                data = wire.renamed(data, wire.INFER_NAME, self._name)
            await self._stream.write(wire.ending_told(data))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # who reads is told why
        except asyncio.CancelledError:
            if is_cancelled():
                raise

    async def _end_stream(self) -> None:
        reading, self._reading = self._reading, None
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def _raise_what_ended_it(self) -> None:
        if self._reading is not None and self._reading.done() and not self._reading.cancelled():
            reading, self._reading = self._reading, None
            reading.result()

    # -- from Triton -------------------------------------------------------------------------------------------------

    async def _read(self, stream: Any) -> None:
        """Raises what ended the stream before all was answered."""
        failure: Exception | None = None
        try:
            async for data in stream:
                await self._heard(data)
            if self._sent:
                failure = broke_off(self._name)
        except grpc.aio.AioRpcError as error:
            failure = error
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            failure = broke_off(self._name)
        finally:
            if self._stream is stream:
                self._stream = None
            self._changed.set()
        if failure is not None and self._sent:
            self._lost(failure)

    def _lost(self, failure: Exception) -> None:
        said = failure.details() or "" if isinstance(failure, grpc.aio.AioRpcError) else str(failure)
        self._around.controller.report_gone(self._name, said)
        if never_executed(self._name, said) and all(not each.begun and each.attempts < ATTEMPTS for each in self._sent):
            sent, self._sent = self._sent, []
            for message in sent:
                self._once_more(message)
            return
        raise failure

    async def _heard(self, data: bytes) -> None:
        response = wire.response_of(data)
        of_it = [each for each in self._sent if each.question.id == response.id]
        message = of_it[0] if of_it else None
        refused = (
            bool(response.error) and response.final is None
        )  # before the model had it: what it says comes with a word on that
        if message is not None and refused and self._may_be_sent_again(message, response.error, alone=len(of_it) == 1):
            self._sent.remove(message)
            self._around.controller.report_gone(self._name, response.error)
            self._once_more(message)
            return
        if message is not None:
            message.begun = True
            if response.final is not False:
                self._sent.remove(message)
                self._answered(message, _FAILED if response.error else _OK)
            if response.empty and response.final and not message.question.wants_final and not self._in_order:
                return  # Triton says this to those alone who ask for it
        if response.error and isinstance(stream_error(self._name, response.error), ModelGone):
            self._around.controller.report_gone(self._name, response.error)
        await self._around.say(data)

    def _may_be_sent_again(self, message: Message, words: str, *, alone: bool) -> bool:
        return (
            not message.begun
            and message.attempts < ATTEMPTS
            and message.question.version in ("", VERSION)
            and never_executed(self._name, words)
            and (alone or self._in_order)
        )

    def _once_more(self, message: Message) -> None:
        if message.lease is not None:
            message.lease.release()
            message.lease = None
        self._around.recorder.infer_retry(self._name)
        insort(self._again, message, key=_place)
        self._changed.set()

    def _answered(self, message: Message, code: int) -> None:
        _let_go(message)
        self._around.recorder.request(self._name, code, monotonic() - message.came_at)
        self._changed.set()

    async def _fail(self, message: Message, error: Exception) -> None:
        self._answered(message, in_http(code_of(error)))
        await self._around.say(wire.error_response(self._around.words_of(error), message.question.id))

    async def _look(self) -> None:
        """A model that dies in the middle of a decoupled answer: Triton says nothing, ever (see ``asking.watching``)."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            lost = [each for each in self._sent if each.lease is not None and each.lease.lost()]
            if not self._sent or (not lost and self._around.asking.serves(self._name)):
                continue
            gone, self._sent = self._sent, []
            await self._end_stream()  # what comes late would be nobody's
            for message in gone:
                await self._fail(message, TritonUnavailable(f"{self._name!r} went away in the middle of its answer"))


def _place(message: Message) -> int:
    return message.number


def _let_go(message: Message) -> None:
    if message.lease is not None:
        message.lease.release()
        message.lease = None
    message.forget()

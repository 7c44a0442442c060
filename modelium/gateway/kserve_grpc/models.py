"""Calls about one model with one answer: a message enters, Triton's answer leaves, byte for byte.

Inference, metadata and configuration take a lease as ``/predict`` does: who asks for the latter two is about to infer.
Readiness and statistics load nothing.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from modelium.errors import DeadlineExceeded, ModelGone, NotExecuted, TritonUnavailable, UnknownModel
from modelium.gateway.asking import Asking, Waited
from modelium.gateway.asking.watching import unless_lost
from modelium.gateway.deadline import Deadline
from modelium.gateway.kserve.rules import VERSION, Ready, in_tritons_words, model_called, why_not_ready
from modelium.gateway.kserve_grpc import wire
from modelium.gateway.kserve_grpc.caller import Callers, Context, broke_off, code_of, is_cancelled, passed_on
from modelium.gateway.kserve_grpc.statuses import in_http
from modelium.metrics import Recorder
from modelium.triton.faults import infer_error, never_executed
from modelium.triton.passing import Metadata, Passing

if TYPE_CHECKING:
    from modelium.controller import Controller, Lease

_NAME, _VERSION = 1, 2  # in each request about one model
_STATE = "x-modelium-state"
_OK, _CLIENT_GONE = in_http(grpc.StatusCode.OK), in_http(grpc.StatusCode.CANCELLED)


class ModelCalls:
    """The handlers."""

    def __init__(
        self,
        controller: Controller,
        asking: Asking,
        passing: Passing,
        callers: Callers,
        recorder: Recorder,
        *,
        ready: Ready,
    ) -> None:
        self._controller = controller
        self._asking = asking
        self._passing = passing
        self._callers = callers
        self._recorder = recorder
        self._ready = ready

    async def infer(self, request: bytes, context: Context) -> bytes:
        """``ModelInfer``."""
        started_at, code, name = monotonic(), _CLIENT_GONE, ""
        held = self._callers.hold(len(request))
        try:
            deadline = self._callers.deadline(context)
            called = wire.text_of(request, _NAME)
            name = await self._name(called, deadline)
            answer = await self._asked("ModelInfer", name, request, context, deadline, called=called)
            code = _OK
            return answer
        except Exception as error:
            code = in_http(code_of(error))
            raise
        finally:
            self._callers.give_back(held)
            self._recorder.request(name, code, monotonic() - started_at)

    async def metadata(self, request: bytes, context: Context) -> bytes:
        """``ModelMetadata``."""
        return await self._told("ModelMetadata", request, context)

    async def config(self, request: bytes, context: Context) -> bytes:
        """``ModelConfig``."""
        return await self._told("ModelConfig", request, context)

    async def ready(self, request: bytes, context: Context) -> bytes:
        """``ModelReady``. Of what is not here, as Triton says it: it is not ready."""
        deadline = self._callers.deadline(context)
        called, version = wire.text_of(request, _NAME), wire.text_of(request, _VERSION)
        try:
            status = self._controller.status(await self._name(called, deadline))
        except UnknownModel:
            return b""
        context.set_trailing_metadata(((_STATE, status.state.value),))
        return wire.number_field(1, 1) if why_not_ready(status, version, self._ready) is None else b""

    async def statistics(self, request: bytes, context: Context) -> bytes:
        """``ModelStatistics``, of one model or of all. Of a model that is away, Triton's own word that it is."""
        deadline = self._callers.deadline(context)
        called = wire.text_of(request, _NAME)
        name = await self._name(called, deadline) if called else ""
        if name != called:
            request = wire.renamed(request, _NAME, name)
        return await self.passed("ModelStatistics", request, context, deadline)

    async def passed(self, method: str, request: bytes, context: Context, deadline: Deadline) -> bytes:
        """Triton's answer, without a lease."""
        return await self._call(method, "", request, context, deadline, passed_on(context))

    async def _told(self, method: str, request: bytes, context: Context) -> bytes:
        deadline = self._callers.deadline(context)
        called = wire.text_of(request, _NAME)
        name = await self._name(called, deadline)
        return await self._asked(method, name, request, context, deadline, called=called)

    async def _name(self, called: str, deadline: Deadline) -> str:
        """Triton's name for the model that a client calls so. Raises ``UnknownModel`` and others."""
        with in_tritons_words():
            return model_called(await self._controller.known_target(called, timeout_s=deadline.remaining_s()))

    async def _asked(
        self, method: str, name: str, request: bytes, context: Context, deadline: Deadline, *, called: str
    ) -> bytes:
        metadata, waited = passed_on(context), Waited()

        async def ask(lease: Lease) -> bytes:
            sent = request if name == called else wire.renamed(request, _NAME, name)  # not before: who waits holds one copy
            asking = self._call(method, name, sent, context, deadline, metadata)
            return await (unless_lost(asking, lease.lost, name) if lease.placement.by_ray else asking)

        return await self._asking.hold(name, ask, deadline, waited)

    async def _call(
        self, method: str, name: str, request: bytes, context: Context, deadline: Deadline, metadata: Metadata
    ) -> bytes:
        call = self._passing.call(method, request, timeout_s=deadline.remaining_s(), metadata=metadata)
        try:
            answer: bytes = await call
        except grpc.aio.AioRpcError as error:
            raise meaning(name, wire.text_of(request, _VERSION), error, deadline) from error
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            raise broke_off(name) from None
        if initial := await call.initial_metadata():
            await context.send_initial_metadata(tuple(initial))
        if trailing := await call.trailing_metadata():
            context.set_trailing_metadata(tuple(trailing))
        return answer


def meaning(name: str, version: str, error: grpc.aio.AioRpcError, deadline: Deadline) -> Exception:
    """What an error of Triton's means for the model.

    1. ``NotExecuted``: the model or Triton was gone before it had anything of the request.
    2. ``ModelGone`` or ``TritonUnavailable``: it is gone, and may have executed the request.
    3. The error itself: this is between the client and Triton. So is a version that there is not, and what a model's own code
       says is not found.
    """
    said = error.details() or ""
    if name and never_executed(name, said) and version in ("", VERSION):
        return NotExecuted(f"Triton does not serve {name!r} now: {said}")
    itself: Exception = error
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return itself
    fault = infer_error(name, error)
    if isinstance(fault, DeadlineExceeded):
        return deadline.exceeded()
    return fault if isinstance(fault, ModelGone | TritonUnavailable) else itself

"""One call: its gRPC context enters, who asks, how long there is and what goes along to Triton leaves, or a refusal."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import grpc
import grpc.aio

from modelium.api_keys import ApiKeys
from modelium.controller.askers import ASKER
from modelium.errors import ModeliumError, QueueFull, RequestError, TooMuchUnderWay, TritonUnavailable, Unauthorized
from modelium.gateway.deadline import Deadline
from modelium.gateway.kserve_grpc.statuses import status_of
from modelium.gateway.places import Places
from modelium.names import printable
from modelium.triton.passing import Metadata
from modelium.values import Priority, asker_of, priority_called

log = logging.getLogger(__name__)

Context = Any  # grpc.aio.ServicerContext, which has no types
Handler = Callable[[bytes, Context], Awaitable[bytes]]

# What belongs to one connection, or shows a right to ask.
_PRIORITY = "x-priority"
_KEPT_BACK = frozenset(
    {"authorization", "x-api-key", _PRIORITY, "cookie", "user-agent", "accept-encoding", "content-type", "te"}
)
_LONGEST_WORDS = 1000  # of an error: it travels among the headers, of which gRPC takes 8 KiB
_FREE_BYTES = 2**16  # of each message: what is small gets through whatever others send
_RETRY_AFTER_S = 1.0


class Callers:
    """What all calls are held to: the keys, the times and the memory of ``gateway:``. ``places``: what no
    error says."""

    def __init__(
        self, keys: ApiKeys | None, *, timeout_s: float, max_timeout_s: float, max_buffered_bytes: int, places: Places
    ) -> None:
        self._keys = keys
        self._places = places
        self._timeout_s = timeout_s
        self._max_timeout_s = max(timeout_s, max_timeout_s)
        self._most = max_buffered_bytes
        self._held = 0

    def without_places(self, said: str) -> str:
        """What may be told of ``said``."""
        return self._places.left_out_of(said)

    def admit(self, context: Context) -> None:
        """Note who asks. Raises ``Unauthorized``. As over HTTP: ``authorization: Bearer KEY`` or ``x-api-key: KEY`` in the
        metadata, and ``x-priority``."""
        if self._keys is None:
            ASKER.set(asker_of("", _wanted(context)))
            return
        sent = False
        for name, value in context.invocation_metadata():
            key = ""
            if name == "authorization":
                scheme, _, credentials = value.partition(" ")
                key = credentials.strip() if scheme.lower() == "bearer" else ""
            elif name == "x-api-key":
                key = value.strip()
            if key and (known := self._keys.find(key)) is not None:
                ASKER.set(known.asker(_wanted(context)))
                return
            sent = sent or bool(key)
        raise Unauthorized(
            "this API key is not known here" if sent else "an API key is needed: send `authorization: Bearer KEY` as metadata"
        )

    def deadline(self, context: Context) -> Deadline:
        """The call's own deadline, as far as the configuration lets it; without one, what requests usually have."""
        left_s = context.time_remaining()
        if left_s is None:
            return Deadline(self._timeout_s, "give the call a deadline, or gateway.request_timeout_seconds allows more")
        if left_s <= self._max_timeout_s:
            return Deadline(left_s, "give the call a later deadline")
        return Deadline(self._max_timeout_s, "gateway.max_request_timeout_seconds allows more")

    def hold(self, size: int) -> int:
        """Count a message of that size that is under way, to be given back. Raises ``TooMuchUnderWay``."""
        more = size - _FREE_BYTES
        if more <= 0:
            return 0
        if self._held + more > self._most:
            raise TooMuchUnderWay(
                f"the messages of all calls together would take more than {self._most} bytes now; try again in a moment "
                "(gateway.max_buffered_bytes allows more)",
                _RETRY_AFTER_S,
            )
        self._held += more
        return more

    def give_back(self, held: int) -> None:
        """What ``hold`` answered."""
        self._held -= held

    def words_of(self, error: Exception, context: Context) -> str:
        """What may be said of ``error``: its words without places, or for what nobody expected an id that is in the log."""
        if isinstance(error, ModeliumError) and status_of(error) is not grpc.StatusCode.INTERNAL:
            return printable(self._places.left_out_of(str(error)), longest=_LONGEST_WORDS)
        ident = uuid4().hex[:16]
        log.error("gRPC call %s: %s failed", ident, context_method(context), exc_info=error)
        return f"something broke inside Modelium; its log has the cause under {ident}"

    async def refuse(self, error: Exception, context: Context) -> None:
        """End the call with ``error``: as Triton said it, where it is Triton's. Raises what gRPC raises for that."""
        said = tritons_own(error)
        if said is not None:
            if initial := said.initial_metadata():
                await context.send_initial_metadata(tuple(initial))
            await context.abort(said.code(), said.details() or "", tuple(said.trailing_metadata() or ()))
        trailing: list[tuple[str, str]] = []
        if isinstance(error, ModeliumError):
            trailing.append(("x-modelium-error", error.type))
        if isinstance(error, QueueFull):
            trailing.append(("retry-after", str(math.ceil(error.retry_after_s))))
        await context.abort(code_of(error), self.words_of(error, context), tuple(trailing))


def _wanted(context: Context) -> Priority | None:
    for name, value in context.invocation_metadata():
        if name == _PRIORITY:
            if (found := priority_called(value)) is None:
                raise RequestError(f"{_PRIORITY}: expected high, normal or low, found {printable(value)!r}")
            return found
    return None


def passed_on(context: Context) -> Metadata:
    """The metadata of a call as Triton gets it."""
    return [
        (name, value)
        for name, value in context.invocation_metadata()
        if name not in _KEPT_BACK and not name.startswith("grpc-")
    ]


def context_method(context: Context) -> str:
    """The method that was called, for the log."""
    try:
        return str(context.method())
    except (AttributeError, NotImplementedError):
        return "?"


def tritons_own(error: BaseException) -> grpc.aio.AioRpcError | None:
    """What Triton said, where ``error`` is that or comes of it."""
    for each in (error, error.__cause__):
        if isinstance(each, grpc.aio.AioRpcError):
            return each
    return None


def code_of(error: Exception) -> grpc.StatusCode:
    """The status that ``refuse`` answers with."""
    said = tritons_own(error)
    if said is not None:
        return said.code()
    return status_of(error) if isinstance(error, ModeliumError) else grpc.StatusCode.INTERNAL


def broke_off(name: str) -> TritonUnavailable:
    """The error for a ``CancelledError`` that nobody asked for: so gRPC says that the server, or the connection, ended."""
    return TritonUnavailable(f"Triton broke off the answer of {name!r}")


def is_cancelled() -> bool:
    """Whether whoever runs this is being cancelled, so that a ``CancelledError`` is meant for it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

"""Calls about the server: what Modelium answers itself, what it passes on to Triton, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from modelium.errors import InvalidBody
from modelium.gateway.kserve.rules import (
    NothingToLoad,
    UnknownToTriton,
    check_parameters,
    check_shared_memory,
    in_tritons_words,
    index_row,
    logging_refused,
    model_called,
    tracing_refused,
)
from modelium.gateway.kserve_grpc import wire
from modelium.gateway.kserve_grpc.caller import Callers, Context, Handler
from modelium.gateway.kserve_grpc.models import ModelCalls
from modelium.pace import in_pieces

if TYPE_CHECKING:
    from modelium.controller import Controller

SHARED_MEMORY = tuple(
    f"{kind}SharedMemory{verb}" for kind in ("System", "Cuda") for verb in ("Status", "Register", "Unregister")
)
_YES = wire.number_field(1, 1)
_REPOSITORY, _MODEL, _PARAMETERS, _ONLY_READY = 1, 2, 3, 2


class ServerCalls:
    """The handlers. ``shared_memory``: whether clients may use it."""

    def __init__(self, controller: Controller, models: ModelCalls, callers: Callers, *, shared_memory: bool) -> None:
        self._controller = controller
        self._models = models
        self._callers = callers
        self._shared_memory = shared_memory

    async def live(self, _request: bytes, _context: Context) -> bytes:
        """``ServerLive``."""
        return _YES if self._controller.alive() else b""

    async def ready(self, _request: bytes, _context: Context) -> bytes:
        """``ServerReady``: Triton is up and the watch directories were scanned."""
        return _YES if self._controller.ready() else b""

    async def metadata(self, request: bytes, context: Context) -> bytes:
        """``ServerMetadata``: Triton's."""
        return await self._models.passed("ServerMetadata", request, context, self._callers.deadline(context))

    async def index(self, request: bytes, _context: Context) -> bytes:
        """``RepositoryIndex``: every model that Modelium knows, in Triton's words."""
        _check_repository(request)
        only_ready = _switch(request, _ONLY_READY)
        found = []
        async for status in in_pieces((await self._controller.snapshot()).models):
            row = index_row(status)
            if not status.base and (row.state == "READY" or not only_ready):
                said = (row.name, row.version, row.state, self._callers.without_places(row.reason))
                fields = (wire.bytes_field(number, text) for number, text in enumerate(said, start=1) if text)
                found.append(wire.bytes_field(1, b"".join(fields)))
        return b"".join(found)

    async def load(self, request: bytes, context: Context) -> bytes:
        """``RepositoryModelLoad``: answers when the model is loaded."""
        name, timeout_s = await self._meant("load", request, context)
        await self._controller.load(name, timeout_s=timeout_s)
        return b""

    async def unload(self, request: bytes, context: Context) -> bytes:
        """``RepositoryModelUnload``: answers when the model's memory is back."""
        name, timeout_s = await self._meant("unload", request, context)
        await self._controller.unload(name, timeout_s=timeout_s)
        return b""

    def shared_memory(self, method: str) -> Handler:
        """A handler for one of ``SHARED_MEMORY``: passed on, where the configuration lets it."""

        async def answer(request: bytes, context: Context) -> bytes:
            check_shared_memory(self._shared_memory)
            return await self._models.passed(method, request, context, self._callers.deadline(context))

        return answer

    async def tracing(self, _request: bytes, _context: Context) -> bytes:
        """``TraceSetting``. Raises ``Refused``."""
        raise tracing_refused()

    async def logging(self, _request: bytes, _context: Context) -> bytes:
        """``LogSettings``. Raises ``Refused``."""
        raise logging_refused()

    async def _meant(self, verb: Literal["load", "unload"], request: bytes, context: Context) -> tuple[str, float]:
        deadline = self._callers.deadline(context)
        _check_repository(request)
        called = wire.text_of(request, _MODEL)
        check_parameters(verb, called, wire.keys_of(request, _PARAMETERS))
        with in_tritons_words(NothingToLoad if verb == "load" else UnknownToTriton):
            name = model_called(await self._controller.known_target(called, timeout_s=deadline.remaining_s()))
        return name, deadline.remaining_s()


def _check_repository(request: bytes) -> None:
    """Triton takes no name of a repository either."""
    if wire.text_of(request, _REPOSITORY):
        raise InvalidBody("there is one repository here: leave it out", field="repository_name")


def _switch(request: bytes, wanted: int) -> bool:
    said = False
    for number, _, value, end in wire.spans(request):
        if number == wanted and end < 0:
            said = bool(value)
    return said

"""What Triton's clients ask of the server: requests at ``/v2`` enter, Triton's answer leaves, or the controller's.

Whether it is up, which models there are, loads and unloads are the controller's to say, so that its state stays the truth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import orjson
from aiohttp import web

from modelium.errors import DeadlineExceeded, ModelGone, Refused, RequestError, TritonUnavailable
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.answers import json_response
from modelium.gateway.http.bodies import read_body, work_on
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import ANYTHING, LOADING, READING, Reply, describes
from modelium.gateway.http.paths import model_of, shown_path
from modelium.gateway.http.telling import TELLING
from modelium.gateway.kserve.passing import Passage, whole, within
from modelium.gateway.kserve.rules import (
    NothingToLoad,
    check_parameters,
    check_shared_memory,
    in_tritons_words,
    index_row,
    logging_refused,
    tracing_refused,
)
from modelium.gateway.kserve.shapes import Indexed, RepositoryAsked
from modelium.pace import in_pieces

if TYPE_CHECKING:
    from modelium.controller import Controller

_REGION = re.compile(r"(?:region/(?!\.+/)[^/?#\\]{1,1024}/)?(?:status|register|unregister)")
_NOTHING = Reply(content_type=ANYTHING, says="yes")
_NO = Reply(content_type=ANYTHING, status=400, says="no")
_TRITONS = Reply(content_type=ANYTHING, status=0, says="Triton's answer, as it is")
_TRITON = (TritonUnavailable, ModelGone, DeadlineExceeded)
_PATHS_OF_MEMORY = ("/v2/systemsharedmemory/{rest:.+}", "/v2/cudasharedmemory/{rest:.+}")


class KServeServer:
    """The handlers of ``/v2`` that are about no model's answers."""

    def __init__(self, controller: Controller, passage: Passage, *, shared_memory: bool, timeout_s: float) -> None:
        self._controller = controller
        self._passage = passage
        self._shared_memory = shared_memory
        self._timeout_s = timeout_s

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.get("/v2", self.metadata, allow_head=False),
            web.get("/v2/health/live", self.live),
            web.get("/v2/health/ready", self.ready),
            web.post("/v2/repository/index", self.index),
            web.post("/v2/repository/models/{model:.+}/load", self.load),
            web.post("/v2/repository/models/{model:.+}/unload", self.unload),
            *(web.route("*", path, self.shared_memory) for path in _PATHS_OF_MEMORY),
            web.route("*", "/v2/trace/setting", self.refuse_tracing),
            web.route("*", "/v2/logging", self.refuse_logging),
        ]

    @describes("Triton's name, version and extensions.", gives=dict[str, object], fails=_TRITON)
    async def metadata(self, request: web.Request) -> web.Response:
        """``GET /v2``: Triton's name, version and extensions. Raises ``NotExecuted`` while Triton is away."""
        async with within(deadline_of(request, self._timeout_s)), self._passage.ask(request, "/v2", b"") as answer:
            return await whole(answer)

    @describes("As `/health/live`, in Triton's words.", gives=_NOTHING, also=(_NO,))
    async def live(self, _request: web.Request) -> web.Response:
        """``GET /v2/health/live``, as ``/health/live``; 400 is what Triton says."""
        return web.Response(status=200 if self._controller.alive() else 400)

    @describes("As `/health/ready`, in Triton's words.", gives=_NOTHING, also=(_NO,))
    async def ready(self, _request: web.Request) -> web.Response:
        """``GET /v2/health/ready``, as ``/health/ready``."""
        return web.Response(status=200 if self._controller.ready() else 400)

    @describes("Every model with its state, in Triton's words.", takes=RepositoryAsked, gives=list[Indexed], example={})
    async def index(self, request: web.Request) -> web.Response:
        """``POST /v2/repository/index``: every model, loaded or not, in Triton's words; with ``{"ready": true}`` those that are
        loaded. LoRA adapters are no models of Triton's."""
        asked = await self._parameters(request, deadline_of(request, self._timeout_s))
        if not isinstance(only := asked.get("ready", False), bool):
            raise RequestError("ready: expected true or false")
        snapshot = await self._controller.snapshot()
        rows = [index_row(status) async for status in in_pieces(snapshot.models) if not status.base]
        without_places = request.app[TELLING].without_places
        return json_response(
            [
                {"name": row.name, "version": row.version, "state": row.state, "reason": without_places(row.reason)}
                for row in rows
                if row.state == "READY" or not only
            ]
        )

    @describes(
        "Load it now; answers when it is loaded.",
        takes=RepositoryAsked,
        gives=_NOTHING,
        fails=(*LOADING, Refused),
        example={},
    )
    async def load(self, request: web.Request) -> web.Response:
        """``POST /v2/repository/models/{model}/load``: answers when it is loaded. Raises what ``Controller.load`` raises, and
        ``RequestError`` for parameters."""
        name, deadline = await self._controlled(request, "load")
        with in_tritons_words(NothingToLoad):
            await self._controller.load(name, timeout_s=deadline.remaining_s())
        return web.Response(content_type="application/json")

    @describes(
        "Unload it; answers when its memory is free.",
        takes=RepositoryAsked,
        gives=_NOTHING,
        fails=(*LOADING, Refused),
        example={},
    )
    async def unload(self, request: web.Request) -> web.Response:
        """``POST /v2/repository/models/{model}/unload``: answers when its memory is back, as ``/models/{model}/unload``."""
        name, deadline = await self._controlled(request, "unload")
        with in_tritons_words():
            await self._controller.unload(name, timeout_s=deadline.remaining_s())
        return web.Response(content_type="application/json")

    @describes("Shared memory, where `gateway.shared_memory` allows it.", gives=_TRITONS, fails=(*READING, *_TRITON, Refused))
    async def shared_memory(self, request: web.Request) -> web.Response:
        """``/v2/systemsharedmemory/…`` and CUDA's: Triton's answer, where ``gateway.shared_memory`` allows it."""
        check_shared_memory(self._shared_memory)
        path = request.raw_path.partition("?")[0]
        if not _REGION.fullmatch(path.split("/", 3)[3]):
            raise RequestError(f"{shown_path(path)} is no path of the shared memory's: see Triton's protocol")
        deadline = deadline_of(request, self._timeout_s)
        body = await read_body(request, deadline, as_sent=True)
        async with within(deadline), self._passage.ask(request, path, body) as answer:
            return await whole(answer)

    @describes("Refused: Triton's traces are files on the server.", fails=(Refused,))
    async def refuse_tracing(self, _request: web.Request) -> web.Response:
        """``/v2/trace/setting``. Raises ``Refused``."""
        raise tracing_refused()

    @describes("Refused: Triton's log settings write files on the server.", fails=(Refused,))
    async def refuse_logging(self, _request: web.Request) -> web.Response:
        """``/v2/logging``. Raises ``Refused``."""
        raise logging_refused()

    async def _controlled(self, request: web.Request, verb: Literal["load", "unload"]) -> tuple[str, Deadline]:
        deadline = deadline_of(request, self._timeout_s)
        name = model_of(request)
        asked = (await self._parameters(request, deadline)).get("parameters", {})
        if not isinstance(asked, Mapping):
            raise RequestError("parameters: expected an object")
        check_parameters(verb, name, asked)
        return name, deadline

    async def _parameters(self, request: web.Request, deadline: Deadline) -> Mapping[str, object]:
        """The body of a request for the controller, whose fields mean something here."""
        data = await read_body(request, deadline)
        try:
            found = await work_on(request, deadline, len(data), lambda: orjson.loads(data)) if data.strip() else {}
        except orjson.JSONDecodeError as error:
            raise RequestError(f"the body is no JSON: {error}") from None
        if not isinstance(found, dict):
            raise RequestError("the body is no JSON object")
        return found

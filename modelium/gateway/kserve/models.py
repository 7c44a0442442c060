"""What Triton's clients ask of one model: a request at ``/v2/models/NAME`` enters, Triton's answer leaves, byte for byte.

Each but ``ready`` and ``stats`` takes a lease as ``/predict`` does, metadata and configuration too: who asks for them is about
to infer. The request is sent again only where it was certainly not executed.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import web
from multidict import CIMultiDict

from modelium.errors import DeadlineExceeded, ModelGone, NotExecuted, Refused, RequestError, TritonUnavailable, UnknownModel
from modelium.gateway.asking import Asking, Waited
from modelium.gateway.asking.watching import unless_lost
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.answers import json_response, waited_headers
from modelium.gateway.http.bodies import read_body
from modelium.gateway.http.counting import MODEL
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import ANYTHING, ASKING, NAMING, READING, Reply, describes
from modelium.gateway.http.errors import REQUEST_ID, break_off
from modelium.gateway.http.fast_path import taken_fault
from modelium.gateway.http.paths import name_in, shown_path
from modelium.gateway.http.telling import TELLING
from modelium.gateway.kserve.passing import LARGE_BYTES, Passage, headers_of, whole, within
from modelium.gateway.kserve.rules import STATE_HEADER, Ready, in_tritons_words, model_called, tracing_refused, why_not_ready
from modelium.gateway.kserve.shapes import NotReady
from modelium.gateway.kserve.upstream import Answer
from modelium.triton.faults import http_fault

if TYPE_CHECKING:
    from modelium.controller import Controller, Lease

_VERSION = re.compile(r"(?P<model>.+)/versions/(?P<version>[^/]*)")
_NUMBER = re.compile(r"[0-9]{1,9}")
_TRITONS = Reply(content_type=ANYTHING, status=0, says="Triton's answer, as it is")
_TRITON = (TritonUnavailable, ModelGone, DeadlineExceeded)
_INFERENCE = dict[str, object]  # read by Triton alone, and with the binary extension no JSON from its header's length on
_POSTED = ("infer", "generate", "generate_stream")
_SILENT = frozenset({"generate", "generate_stream"})  # of a model that dies, Triton says nothing to those who asked so


class KServeModels:
    """The handlers of ``/v2/models``."""

    def __init__(self, controller: Controller, asking: Asking, passage: Passage, *, ready: Ready, timeout_s: float) -> None:
        self._controller = controller
        self._asking = asking
        self._passage = passage
        self._ready = ready
        self._timeout_s = timeout_s

    def routes(self) -> list[web.RouteDef]:
        """In the order in which they are looked for: what is asked most comes first."""
        return [
            *(web.post(f"/v2/models/{{model:.+}}/{verb}", self.ask) for verb in _POSTED),
            web.get("/v2/models/stats", self.all_stats, allow_head=False),
            web.get("/v2/models/{model:.+}/ready", self.ready, allow_head=False),
            web.get("/v2/models/{model:.+}/config", self.ask, allow_head=False),
            web.get("/v2/models/{model:.+}/stats", self.stats, allow_head=False),
            web.route("*", "/v2/models/{model:.+}/trace/setting", self.refuse_tracing),
            web.get("/v2/models/{model:.+}", self.ask, allow_head=False),
        ]

    @describes("Its metadata, from Triton; loads it.", gives=_TRITONS, fails=(*READING, *ASKING))
    @describes("Its configuration, from Triton; loads it.", gives=_TRITONS, fails=(*READING, *ASKING), at="/config")
    @describes("An inference in Triton's own protocol.", takes=_INFERENCE, gives=_TRITONS, fails=ASKING, at="/infer")
    @describes("Triton's generate extension.", takes=_INFERENCE, gives=_TRITONS, fails=ASKING, at="/generate")
    @describes("The same, streamed.", takes=_INFERENCE, gives=_TRITONS, fails=ASKING, at="/generate_stream")
    async def ask(self, request: web.Request) -> web.StreamResponse:
        """An inference, a generation, the metadata or the configuration. Raises what asking a model raises."""
        deadline = deadline_of(request, self._timeout_s)
        name, path, verb = await self._meant(request, deadline)
        if (fault := taken_fault(request)) is not None:
            raise fault
        body = await read_body(request, deadline, as_sent=True) if request.can_read_body else b""
        waited, begun = Waited(), list[web.StreamResponse]()

        async def passed(lease: Lease) -> web.StreamResponse:
            passing = self._pass(request, lease, path, body, deadline, waited, begun)
            if lease.placement.by_ray or verb in _SILENT:
                return await unless_lost(passing, lease.lost, name)
            return await passing

        try:
            return await self._asking.hold(name, passed, deadline, waited)
        except Exception as error:
            if not begun:
                raise
            return break_off(request, begun[0], error)

    @describes(
        "Whether a request will be answered; loads nothing.",
        gives=Reply(content_type=ANYTHING, says="ready"),
        also=(Reply(kind=NotReady, status=400, says="why not"),),
        fails=(*NAMING, RequestError),
    )
    async def ready(self, request: web.Request) -> web.Response:
        """``GET /v2/models/{model}/ready``: 200 or, with the reason, 400 as Triton says it. Loads nothing."""
        deadline = deadline_of(request, self._timeout_s)
        called, version = _called(request)
        with in_tritons_words():
            name = model_called(await self._controller.known_target(called, timeout_s=deadline.remaining_s()))
        status = self._controller.status(name)
        why = why_not_ready(status, version, self._ready)
        headers = {STATE_HEADER: status.state.value}
        if why is None:
            return web.Response(headers=headers, content_type="application/json")
        return json_response({"error": request.app[TELLING].without_places(why)}, status=400, headers=headers)

    @describes("Triton's counters of a loaded model; loads nothing.", gives=_TRITONS, fails=(*NAMING, *_TRITON))
    async def stats(self, request: web.Request) -> web.Response:
        """``GET /v2/models/{model}/stats``: of a model that is away, Triton's own word that it is. Loads nothing."""
        deadline = deadline_of(request, self._timeout_s)
        _, path, _ = await self._meant(request, deadline)
        return await self._unleased(request, path, deadline)

    @describes("Those of all loaded models.", gives=_TRITONS, fails=_TRITON)
    async def all_stats(self, request: web.Request) -> web.Response:
        """``GET /v2/models/stats``."""
        return await self._unleased(request, "/v2/models/stats", deadline_of(request, self._timeout_s))

    @describes("Refused: Triton's traces are files on the server.", fails=(Refused,))
    async def refuse_tracing(self, _request: web.Request) -> web.Response:
        """``/v2/models/{model}/trace/setting``. Raises ``Refused``."""
        raise tracing_refused()

    async def _unleased(self, request: web.Request, path: str, deadline: Deadline) -> web.Response:
        async with within(deadline), self._passage.ask(request, path, b"") as answer:
            return await whole(answer)

    async def _meant(self, request: web.Request, deadline: Deadline) -> tuple[str, str, str]:
        """The model, the path at which Triton is asked, and what is asked ("" for the metadata)."""
        called, version = _called(request)
        verb = request.match_info.route.resource.canonical.partition("{model}")[2]  # type: ignore[union-attr]
        try:
            with in_tritons_words():
                target = await self._controller.known_target(called, timeout_s=deadline.remaining_s())
        except UnknownModel:
            if not verb and request.match_info["model"].rpartition("/")[2] in _POSTED:  # no label, but what one may ask of one
                raise web.HTTPMethodNotAllowed(request.method, ["POST"]) from None
            raise
        name = model_called(target)
        request[MODEL] = name
        versioned = f"/versions/{version}" if version else ""
        return name, f"/v2/models/{name}{versioned}{verb}", verb[1:]

    async def _pass(
        self,
        request: web.Request,
        lease: Lease,
        path: str,
        body: bytes,
        deadline: Deadline,
        waited: Waited,
        begun: list[web.StreamResponse],
    ) -> web.StreamResponse:
        name = lease.profile.name
        async with within(deadline), self._passage.ask(request, path, body) as answer:
            headers = headers_of(answer, waited_headers(waited.seconds, cold=waited.cold))
            size = answer.content_length
            if answer.status == 200 and (size is None or size > LARGE_BYTES):
                return await _stream(request, answer, headers, begun)
            said = await answer.read()
        if answer.status >= 400 and (fault := http_fault(name, answer.status, said)) is not None:
            if isinstance(fault, NotExecuted):
                raise fault
            self._controller.report_gone(name, str(fault))
        return web.Response(body=said, status=answer.status, reason=answer.words, headers=headers)


def _called(request: web.Request) -> tuple[str, str]:
    """The model as the client calls it, and the version that it asks for ("" for whichever there is)."""
    sent: str = request.match_info["model"]
    if "/" not in sent or (versioned := _VERSION.fullmatch(sent)) is None:
        return name_in(sent), ""
    if not _NUMBER.fullmatch(version := versioned["version"]):
        raise RequestError(f"a version is a number, found {shown_path(version)!r}")
    return name_in(versioned["model"]), version


async def _stream(
    request: web.Request, answer: Answer, headers: CIMultiDict[str], begun: list[web.StreamResponse]
) -> web.StreamResponse:
    """Pass it on as it comes, no faster than the client takes it."""
    response = web.StreamResponse(status=answer.status, reason=answer.words, headers=headers)
    response.content_length = answer.content_length
    response.headers["X-Request-Id"] = request[REQUEST_ID]  # there is no later moment for it
    await response.prepare(request)
    begun.append(response)
    async for piece in answer.pieces():
        try:
            await response.write(piece)
        except ConnectionError:  # aiohttp's own class for it is the one of a Triton that went away, too
            raise ConnectionAbortedError("the client went away") from None
    with suppress(ConnectionError):  # it has all that it wanted
        await response.write_eof()
    return response

"""``/models``, ``/plan``: requests enter, the state of the models leaves, and a user's wishes go to the controller.

Reading never counts as use and never loads anything.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING

from aiohttp import web

from modelium.analysis.wire import BadAnswer, decode
from modelium.errors import Conflict, InvalidBody, UnknownModel
from modelium.gateway.http.answers import json_response
from modelium.gateway.http.bodies import read_body, work_on
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import LOADING, NAMING, describes
from modelium.gateway.http.paths import model_of
from modelium.gateway.status.shapes import ListedModels
from modelium.names import printable
from modelium.pace import in_pieces
from modelium.values import ModelProfile, ModelStatus, Snapshot
from modelium.views import Decisions, Json, Listing, Plan, Status, Summary, written

if TYPE_CHECKING:
    from modelium.controller import Controller

log = logging.getLogger(__name__)

_VERBS = ("load", "unload", "pin", "unpin")


class Models:
    """The handlers of the models' state."""

    def __init__(self, controller: Controller, *, timeout_s: float) -> None:
        self._controller = controller
        self._timeout_s = timeout_s

    def routes(self) -> list[web.RouteDef]:
        """All below ``/models``, and ``/plan``."""
        return [
            web.get("/models", self.list_all),
            web.get("/models/{model:.+}/decisions", self.decisions),
            web.get("/models/{model:.+}", self.show),
            web.post("/models/{model:.+}/load", self.load),
            web.post("/models/{model:.+}/unload", self.unload),
            web.post("/models/{model:.+}/pin", self.pin),
            web.post("/models/{model:.+}/unpin", self.unpin),
            web.get("/plan", self.plan),
            web.post("/plan", self.plan_with),
        ]

    @describes("Every model: state, reason, memory, use; the devices; Triton; the nursery.", gives=ListedModels)
    async def list_all(self, _request: web.Request) -> web.Response:
        """``GET /models``."""
        return json_response(await listed(await self._controller.snapshot()))

    @describes("One model: profile, placement, missing parts, last decisions.", gives=Status, fails=NAMING)
    async def show(self, request: web.Request) -> web.Response:
        """``GET /models/{model}``. Raises ``UnknownModel``."""
        try:
            return _answer(await self._controller.explained(model_of(request)))
        except UnknownModel:
            # No model has that label: it is what one can do with one.
            if request.match_info["model"].rpartition("/")[2] in _VERBS:
                raise web.HTTPMethodNotAllowed(request.method, ["POST"]) from None
            raise

    @describes("The last decisions about a model, and what was weighed.", gives=Decisions, fails=NAMING)
    async def decisions(self, request: web.Request) -> web.Response:
        """``GET /models/{model}/decisions``. Raises ``UnknownModel``."""
        name = model_of(request)
        try:
            status = await self._controller.explained(name)
        except UnknownModel:
            try:
                return _answer(await self._controller.explained(f"{name}/decisions"))  # an odd label, and it is somebody's
            except UnknownModel:
                pass
            raise
        return json_response(written(Decisions, status, monotonic()))

    @describes("Load it now; answers when it is loaded.", gives=Status, fails=LOADING)
    async def load(self, request: web.Request) -> web.Response:
        """``POST /models/{model}/load``: answers when it is loaded. Raises what ``Controller.load`` raises."""
        timeout_s = deadline_of(request, self._timeout_s).remaining_s()
        return _answer(await self._controller.load(model_of(request), timeout_s=timeout_s))

    @describes("Unload it; answers when its memory is free.", gives=Status, fails=LOADING)
    async def unload(self, request: web.Request) -> web.Response:
        """``POST /models/{model}/unload``: answers when its memory is back. Raises what ``Controller.unload`` raises."""
        timeout_s = deadline_of(request, self._timeout_s).remaining_s()
        return _answer(await self._controller.unload(model_of(request), timeout_s=timeout_s))

    @describes("Never evict it.", gives=Status, fails=NAMING)
    async def pin(self, request: web.Request) -> web.Response:
        """``POST /models/{model}/pin``. Raises ``UnknownModel``."""
        return _answer(self._controller.pin(model_of(request), True))

    @describes("Allow its eviction again.", gives=Status, fails=NAMING)
    async def unpin(self, request: web.Request) -> web.Response:
        """``POST /models/{model}/unpin``. Raises ``UnknownModel``."""
        return _answer(self._controller.pin(model_of(request), False))

    @describes("What the next pass would do, without doing it.", gives=Plan)
    async def plan(self, _request: web.Request) -> web.Response:
        """``GET /plan``: what would be done next, without doing it."""
        return json_response(written(Plan, self._controller.plan(), monotonic()))

    @describes(
        "The same if a folder were dropped; the body is what `modelium plan --with` sends.",
        takes=dict[str, object],
        gives=Plan,
        fails=(Conflict,),
    )
    async def plan_with(self, request: web.Request) -> web.Response:
        """``POST /plan`` with what the verbs made of a folder: what its drop would do. Raises ``InvalidBody``, ``Conflict``."""
        deadline = deadline_of(request, self._timeout_s)
        data = await read_body(request, deadline)
        try:
            dropped = await work_on(request, deadline, len(data), lambda: decode(data))
        except BadAnswer as error:
            raise InvalidBody(f"the body is no profile of a model ({error}); `modelium plan --with PATH` sends one") from None
        if not isinstance(dropped, ModelProfile):
            raise InvalidBody("the body is about a folder that cannot be served; `modelium plan --with PATH` says why")
        return json_response(written(Plan, self._controller.plan_with(dropped), monotonic()))


def _answer(status: ModelStatus) -> web.Response:
    return json_response(written(Status, status, monotonic()))  # the clock that the controller stamps its decisions with


async def listed(snapshot: Snapshot) -> Json:
    """``GET /models``: a summary of each model, the devices, Triton and Ray. Others have their turn between two models."""
    return written(Listing, snapshot) | {"models": [_row(status) async for status in in_pieces(snapshot.models)]}


def _row(status: ModelStatus) -> Json:
    """Of a model that cannot be shown its name, its state and why: the others are shown all the same."""
    try:
        return written(Summary, status)
    except Exception as error:
        log.exception("%s cannot be shown, a defect of Modelium", status.name)
        why = printable(f"it cannot be shown ({type(error).__name__}: {error}); {status.reason}")
        bare = ModelStatus(name=status.name, label=status.label, path=status.path, state=status.state, reason=why)
        return written(Summary, bare)

"""Applications of the user's on Ray Serve: an HTTP request enters, the application's own answer leaves, as it comes.

``POST /predict/NAME`` asks the application at "/"; ``/apps/NAME/…`` asks it at any path, by any method. What it answers is
passed on with its status, its content type and where it redirects to, whatever they are. Nothing is sent twice: what an
application does with a request is its own affair, so one that went away under it is told to the client.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import numpy as np
from aiohttp import web

from modelium.errors import InvalidBody, ModelGone, TritonUnavailable
from modelium.gateway.asking import Asking, Waited
from modelium.gateway.codecs import Tensors
from modelium.gateway.codecs.call import byte_rows
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.answers import GRACE_S, waited_headers, write_within
from modelium.gateway.http.bodies import read_body
from modelium.gateway.http.counting import MODEL
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import ANYTHING, ASKING, READING, Reply, describes
from modelium.gateway.http.errors import REQUEST_ID, break_off
from modelium.gateway.http.paths import model_of
from modelium.values import ModelProfile

if TYPE_CHECKING:
    from modelium.controller import Controller, Lease


class Apps:
    """The handler of ``/apps/{model}/{path}``."""

    def __init__(self, controller: Controller, asking: Asking, *, timeout_s: float) -> None:
        self._controller = controller
        self._asking = asking
        self._timeout_s = timeout_s

    @describes(
        "An application of Ray Serve, as its own HTTP server would answer.",
        gives=Reply(content_type=ANYTHING, status=0, says="what the application answers"),
        fails=(*READING, *ASKING),
    )
    async def answer(self, request: web.Request) -> web.StreamResponse:
        """``/apps/{model}/…``. Raises ``InvalidBody`` for a model that is no application."""
        deadline = deadline_of(request, self._timeout_s)
        target = await self._controller.known_target(model_of(request), timeout_s=deadline.remaining_s())
        name = request[MODEL] = target.model
        profile = self._controller.status(name).profile
        if profile is not None:  # before the lease: what is no application must not be loaded to say so
            _check_it_is_one(profile)
        data = await read_body(request, deadline)
        return await self.forward(request, name, data, deadline, path=_path_behind(request))

    async def forward(
        self, request: web.Request, name: str, data: bytes, deadline: Deadline, *, path: str = ""
    ) -> web.StreamResponse:
        """Ask ``name`` with this request's method, content type and body, at ``path`` (else at "/", with the request's query),
        and pass its answer on."""
        inputs = _tensors(request, data, path or f"/?{request.rel_url.raw_query_string}".removesuffix("?"))

        async def ask(lease: Lease) -> AsyncGenerator[Tensors, None]:
            _check_it_is_one(lease.profile)
            begun = False
            async with aclosing(self._asking.stream(lease, inputs, deadline)) as responses:
                async for outputs in responses:
                    begun = True
                    yield outputs
            if not begun:
                raise ModelGone(f"{name!r} answered nothing")

        response: web.StreamResponse | None = None
        waited = Waited()
        try:
            async with aclosing(self._asking.each(name, ask, deadline, waited=waited, attempts=1)) as answers:
                async for outputs in answers:
                    if response is None:
                        response = _head(request, outputs, waited_headers(waited.seconds, cold=waited.cold))
                        await response.prepare(request)
                    await write_within(request, deadline.remaining_s(), response.write(outputs["RESPONSE"].item(0)))
        except Exception as error:
            if response is not None:
                return break_off(request, response, error)
            if isinstance(error, ModelGone | TritonUnavailable):
                raise ModelGone(f"{error}; it may have acted on the request, which is why it was not sent again") from None
            raise
        assert response is not None  # each answer has a part
        with suppress(ConnectionError):  # it has all that it wanted
            await write_within(request, GRACE_S, response.write_eof())
        return response


def _check_it_is_one(profile: ModelProfile) -> None:
    if profile.app is None:
        raise InvalidBody(f"{profile.name!r} is no application, it does {profile.task}: ask POST /predict/{profile.name}")


def _path_behind(request: web.Request) -> str:
    """What stands behind ``/apps/NAME``, as it was sent: decoded, a ``%2F`` or a ``+`` would mean something else."""
    path, question, query = request.raw_path.partition("?")
    behind = "/" + "".join(path.split("/", 3)[3:])
    if any(unquote(segment) in (".", "..") for segment in behind.split("/")):
        raise InvalidBody(f"the path {behind!r} has a segment of dots, which could lead out of the application")
    return behind + question + query


def _head(request: web.Request, outputs: Tensors, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(status=int(outputs["STATUS"].item(0)), headers=headers)
    response.headers["Content-Type"] = outputs["CONTENT_TYPE"].item(0).decode("latin-1")
    response.headers["X-Request-Id"] = request[REQUEST_ID]
    if location := outputs["LOCATION"].item(0).decode("latin-1"):
        inside = f"/apps/{quote(request[MODEL], safe='')}" if location.startswith("/") else ""
        response.headers["Location"] = inside + location
    return response


def _tensors(request: web.Request, data: bytes, path: str) -> Tensors:
    content_type = request.headers.get("Content-Type", "application/json").encode("utf-8", "surrogateescape")
    columns = {"REQUEST": data, "METHOD": request.method.encode(), "PATH": path.encode(), "CONTENT_TYPE": content_type}
    return {name: np.asarray(byte_rows([(value,)])[0]) for name, value in columns.items()}

"""Applications of the user's on Ray Serve: an HTTP request enters, the application's own answer leaves, as it comes.

``POST /predict/NAME`` asks the application at "/"; ``/apps/NAME/…`` asks it at any path, by any method. What it answers is
passed on with its status and its content type, whatever they are. Nothing is sent twice: what an application does with a
request is its own affair, so one that went away under it is told to the client.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import numpy as np
from aiohttp import web

from modelium.errors import InvalidBody, ModelGone, TritonUnavailable, UnknownModel
from modelium.gateway.bodies import read_body
from modelium.gateway.codecs import Tensors
from modelium.gateway.codecs.call import byte_rows
from modelium.gateway.counting import BROKEN_OFF, MODEL
from modelium.gateway.deadline import Deadline, deadline_of
from modelium.gateway.generation.watching import while_serving
from modelium.gateway.inference import waited_headers
from modelium.gateway.names import model_of
from modelium.metrics import Recorder
from modelium.values import State

if TYPE_CHECKING:
    from modelium.controller import Controller, Lease
    from modelium.triton.client import TritonClient

_SERVING = (State.LOADED, State.DRAINING, State.UNLOADING)


class Apps:
    """The handler of ``/apps/{model}/{path}``."""

    def __init__(self, controller: Controller, client: TritonClient, recorder: Recorder, *, timeout_s: float) -> None:
        self._controller = controller
        self._client = client
        self._recorder = recorder
        self._timeout_s = timeout_s

    async def answer(self, request: web.Request) -> web.StreamResponse:
        deadline = deadline_of(request, self._timeout_s)
        target = await self._controller.known_target(model_of(request), timeout_s=deadline.remaining_s())
        name = request[MODEL] = target.model
        data = await read_body(request, deadline)
        path = "/" + request.match_info.get("path", "")
        if request.query_string:
            path += f"?{request.query_string}"
        return await self.forward(request, name, data, deadline, path=path)

    async def forward(
        self, request: web.Request, name: str, data: bytes, deadline: Deadline, *, path: str = "/"
    ) -> web.StreamResponse:
        """Ask ``name`` with this request's method, content type and body, and pass its answer on."""
        with await self._controller.lease(name, timeout_s=deadline.remaining_s()) as lease:
            if lease.profile.app is None:
                raise InvalidBody(f"{name!r} is no application, it does {lease.profile.task}: ask POST /predict/{name}")
            if lease.cold:
                self._recorder.cold_start(name, lease.waited_s)
            try:
                return await self._pass_on(request, lease, _tensors(request, data, path), deadline)
            except (ModelGone, TritonUnavailable) as error:
                self._controller.report_gone(name, str(error))
                raise ModelGone(f"{error}; it may have acted on the request, which is why it was not sent again") from None

    async def _pass_on(self, request: web.Request, lease: Lease, inputs: Tensors, deadline: Deadline) -> web.StreamResponse:
        name = lease.profile.name
        response: web.StreamResponse | None = None
        async with aclosing(self._client.stream(name, inputs, timeout_s=deadline.remaining_s())) as answers:
            try:
                async for outputs in while_serving(answers, lambda: self._serves(name), name):
                    if response is None:
                        response = await _begin(request, outputs, waited_headers(lease.waited_s, cold=lease.cold))
                    await response.write(outputs["RESPONSE"].item(0))
            except Exception:
                if response is None:
                    raise
                request[BROKEN_OFF] = 502
                if request.transport is not None:
                    request.transport.close()  # a whole body would look like a whole answer
                return response
        if response is None:
            raise ModelGone(f"{name!r} answered nothing")
        await response.write_eof()
        return response

    def _serves(self, name: str) -> bool:
        try:
            return self._controller.status(name).state in _SERVING
        except UnknownModel:
            return True  # its folder was taken away; Triton answers to the end what it has begun


async def _begin(request: web.Request, outputs: Tensors, headers: dict[str, str]) -> web.StreamResponse:
    content_type = outputs["CONTENT_TYPE"].item(0).decode("latin-1")
    response = web.StreamResponse(status=int(outputs["STATUS"].item(0)), headers={**headers, "Content-Type": content_type})
    await response.prepare(request)
    return response


def _tensors(request: web.Request, data: bytes, path: str) -> Tensors:
    content_type = request.headers.get("Content-Type", "application/json")
    columns = {"REQUEST": data, "METHOD": request.method.encode(), "PATH": path.encode(), "CONTENT_TYPE": content_type.encode()}
    return {name: np.asarray(byte_rows([(value,)])[0]) for name, value in columns.items()}

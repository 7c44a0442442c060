"""``POST /predict/{model}``: a body in Hugging Face's schema enters, the task's usual output shape leaves.

Body → what to ask → lease → Triton → answer. There are three ways of asking: an application of the user's in its own words,
vLLM and whatever streams with texts (``predict.text``), all else with tensors. Time spent on the upload, on waiting for the
load and on retries all counts against one deadline. A cancelled handler (the client went away) cancels the call and releases
the lease.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from modelium.errors import InvalidBody
from modelium.gateway.asking import Asked, Asking, Waited
from modelium.gateway.codecs import Call, Raw, Tensors
from modelium.gateway.deadline import Deadline
from modelium.gateway.generation.huggingface import TextCall
from modelium.gateway.http.answers import json_response, waited_headers
from modelium.gateway.http.bodies import read_body, work_on
from modelium.gateway.http.counting import MODEL
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import ANYTHING, ASKING, EVENTS, Reply, describes
from modelium.gateway.http.paths import called_name
from modelium.gateway.predict.apps import Apps
from modelium.gateway.predict.question import Application, Question, read_question
from modelium.gateway.predict.shapes import PredictBody, Prediction
from modelium.gateway.predict.text import PredictText
from modelium.values import ModelProfile, Placement

if TYPE_CHECKING:
    from modelium.controller import Controller, Lease

MOST_HELD_TWICE = 2**20  # of a body: as it came, and as it was read

_Reply = Application | TextCall | tuple[Call, Sequence[Tensors]]  # to be asked in another way, or the outputs


class Predict:
    """The handler of ``/predict/{model}``."""

    def __init__(self, controller: Controller, asking: Asking, apps: Apps, *, timeout_s: float) -> None:
        self._controller = controller
        self._asking = asking
        self._apps = apps
        self._text = PredictText(asking)
        self._timeout_s = timeout_s

    @describes(
        "A prediction in Hugging Face's schema; loads the model first if necessary.",
        takes=PredictBody,
        gives=Prediction,
        also=(
            Reply(content_type=EVENTS, says="with `stream`: an event for each token"),
            Reply(content_type="image/png", says="of models that paint"),
            Reply(content_type=ANYTHING, status=0, says="of an application of yours: what it answers"),
        ),
        fails=ASKING,
        example={"inputs": "Hello"},
    )
    async def answer(self, request: web.Request, *, stream: bool | None = None) -> web.StreamResponse:
        """``POST /predict/{model}``. ``stream``: whether it does, where the path says so.

        Raises ``InvalidBody`` and what asking a model raises.
        """
        deadline = deadline_of(request, self._timeout_s)
        target = await self._controller.known_target(called_name(request), timeout_s=deadline.remaining_s())
        name = request[MODEL] = target.model  # counted under its name from here on: it exists
        data = await read_body(request, deadline)
        status = self._controller.status(name)
        known: Question | None = None
        if status.profile is not None:  # read before the lease: a body that does not fit must not load a model
            known = await self._read(request, deadline, status.profile, status.placement, data, stream)

        def wait() -> None:
            """What was made of a large body is as large: while the request waits, the body is enough."""
            nonlocal known
            if len(data) > MOST_HELD_TWICE:
                known = None

        async def ask(lease: Lease) -> _Reply:
            question = known
            if question is None or not question.fits(lease.profile, lease.placement):
                question = await self._read(request, deadline, lease.profile, lease.placement, data, stream)
            asked = question.at(lease.placement)
            if not isinstance(asked, Call):
                return asked  # with leases of its own
            if target.adapter:
                raise InvalidBody(f"{name!r} is served by {lease.placement.runtime.value}, which has no LoRA adapters")
            return asked, await self._asking.infer(lease, asked, deadline)

        if known is not None and known.at_any_rate is not None:
            asked: Asked[_Reply] = Asked(answer=known.at_any_rate, waited=Waited())
        else:
            asked = await self._asking.once(name, ask, deadline, on_wait=wait)
        match asked.answer:
            case Application():
                return await self._apps.forward(request, name, data, deadline)
            case TextCall(stream=True) as text:
                data, known = b"", None  # it waits with its texts alone
                return await self._text.stream(request, target, text, deadline)
            case TextCall() as text:
                data, known = b"", None
                response = json_response(await self._text.answer(target, text, deadline))
            case call, outputs:
                response = _response(call.answer(outputs))
        response.headers.update(waited_headers(asked.waited.seconds, cold=asked.waited.cold))
        return response

    async def _read(
        self,
        request: web.Request,
        deadline: Deadline,
        profile: ModelProfile,
        placement: Placement | None,
        data: bytes,
        stream: bool | None,
    ) -> Question:
        read = partial(read_question, profile, placement, request.content_type, data, stream=stream)
        return await work_on(request, deadline, len(data), read)


def _response(answer: object) -> web.Response:
    if isinstance(answer, Raw):  # the bytes of an image
        return web.Response(body=answer.data, content_type=answer.content_type)
    return json_response(answer)

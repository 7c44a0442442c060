"""``POST /predict/{model}``: a body in Hugging Face's schema enters, the task's usual output shape leaves.

Body → codec → lease → Triton → codec; a text that vLLM continues goes another way (``predict_text``). Time spent on the upload,
on waiting for the load and on retries all counts against one deadline. A cancelled handler (the client went away) cancels the
gRPC call and releases the lease on its way out.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from modelium.errors import InvalidBody
from modelium.gateway.codecs import Call, encode
from modelium.gateway.codecs.answers import Raw
from modelium.gateway.generation import Generator
from modelium.gateway.generation.huggingface import TextCall, options_for, read_call
from modelium.gateway.http.answers import json_response
from modelium.gateway.http.bodies import read_body, work_on
from modelium.gateway.http.counting import MODEL
from modelium.gateway.http.deadline import Deadline, deadline_of
from modelium.gateway.http.paths import called_name
from modelium.gateway.inference import Inference, waited_headers
from modelium.gateway.predict.apps import Apps
from modelium.gateway.predict.text import TEXT_TASKS, PredictText
from modelium.metrics import Recorder
from modelium.values import ModelProfile, Placement

if TYPE_CHECKING:
    from modelium.controller import Controller, Lease
    from modelium.triton.client import TritonClient


class Predict:
    """The handler of ``/predict/{model}``."""

    def __init__(self, controller: Controller, client: TritonClient, recorder: Recorder, *, timeout_s: float) -> None:
        self._controller = controller
        self._recorder = recorder
        self._inference = Inference(controller, client, recorder)
        self._timeout_s = timeout_s
        self._text = PredictText(Generator(controller, client, recorder))
        self._apps = Apps(controller, client, recorder, timeout_s=timeout_s)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        deadline = deadline_of(request, self._timeout_s)
        target = await self._controller.known_target(called_name(request), timeout_s=deadline.remaining_s())
        name = request[MODEL] = target.model  # counted under its name from here on: it exists
        data = await read_body(request, deadline)
        status = self._controller.status(name)
        profile = status.profile
        if profile is not None and profile.app is not None:
            return await self._apps.forward(request, name, data, deadline)
        # Read before the lease where the profile is known: a body that does not fit must not load a model.
        text, call = None, None
        if profile is not None:
            text, call = await self._read(request, deadline, profile, status.placement, data)
        if text is not None and text.stream:
            return await self._text.stream(request, target, text, deadline)

        async def make(lease: Lease) -> Call:
            if lease.profile.app is not None:
                raise _IsApp
            asked, made = text, call
            if lease.profile != profile or (made is None and not lease.placement.by_vllm):
                # Nobody knew before it was loaded; or another revision arrived, or another runtime serves it than was expected.
                asked, made = await self._read(request, deadline, lease.profile, lease.placement, data)
            if asked is not None and (lease.placement.by_vllm or asked.stream):
                raise _Generates(lease, asked)
            if target.adapter:
                raise InvalidBody(f"{name!r} is served by {lease.placement.runtime.value}, which has no LoRA adapters")
            assert made is not None
            return made

        try:
            inferred = await self._inference.infer(name, make, deadline)
        except _IsApp:  # nobody knew before it was loaded
            return await self._apps.forward(request, name, data, deadline)
        except _Generates as served:  # that lease is released: each generation takes its own
            if served.text.stream:  # nobody knew the model before it was loaded
                return await self._text.stream(request, target, served.text, deadline)
            answer = await self._text.answer(target, served.text, deadline)
            if served.cold:
                self._recorder.cold_start(name, served.waited_s)
            return json_response(answer, headers=waited_headers(served.waited_s, cold=served.cold))
        answer = inferred.call.answer(inferred.outputs)
        if isinstance(answer, Raw):  # the bytes of an image
            return web.Response(body=answer.data, headers=inferred.headers, content_type=answer.content_type)
        return json_response(answer, headers=inferred.headers)

    async def _read(
        self, request: web.Request, deadline: Deadline, profile: ModelProfile, placement: Placement | None, data: bytes
    ) -> tuple[TextCall | None, Call | None]:
        return await work_on(request, deadline, len(data), partial(_read, profile, placement, request.content_type, data))


class _IsApp(Exception):
    """It is an application of the user's, which is asked in its own words."""


class _Generates(Exception):
    """Now that it is loaded: another way of asking, for vLLM serves it or its words shall come as events."""

    def __init__(self, lease: Lease, text: TextCall) -> None:
        super().__init__()
        self.text = text
        self.cold = lease.cold
        self.waited_s = lease.waited_s


def _read(
    profile: ModelProfile, placement: Placement | None, content_type: str, data: bytes
) -> tuple[TextCall | None, Call | None]:
    """The body as a text to continue, where the model does that; and as a call, unless the answer is streamed."""
    text = read_call(data) if profile.task in TEXT_TASKS else None
    streamed = text is not None and text.stream
    return text, None if streamed else _encode(profile, placement, text, content_type, data)


def _encode(
    profile: ModelProfile, placement: Placement | None, text: TextCall | None, content_type: str, data: bytes
) -> Call | None:
    """The call for the python runtime or onnxruntime; None when vLLM may be the one that serves and likes the body."""
    if text is not None and (placement is None or placement.by_vllm):
        try:
            options_for(text)
            return None
        except InvalidBody:
            if placement is not None:
                raise
    return encode(profile, content_type, data)

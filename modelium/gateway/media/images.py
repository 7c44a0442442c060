"""``/v1/images/generations``: a prompt enters, pictures leave, for the pipelines of diffusers that Ray serves."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from aiohttp import web
from typing_extensions import TypedDict

from modelium.gateway.asking import Asked, Asking, Waited
from modelium.gateway.codecs import Body, Raw, encode_body
from modelium.gateway.deadline import Deadline
from modelium.gateway.generation.seeds import nth_seed
from modelium.gateway.http.answers import json_response, waited_headers
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import ASKING, describes
from modelium.gateway.media.requests import ImageRequest
from modelium.gateway.openai.directory import Directory, Served, require
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.reading import read_request
from modelium.values import Gives

if TYPE_CHECKING:
    from modelium.controller import Lease

_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
_SHOWN = 100  # characters of what a stranger sent


class Picture(TypedDict):
    """PNG in base64."""

    b64_json: str


class Pictures(TypedDict):
    """The answer of ``/v1/images/generations``."""

    created: int
    data: list[Picture]
    output_format: str


class Images:
    """The handler."""

    def __init__(self, directory: Directory, asking: Asking, *, timeout_s: float) -> None:
        self._directory = directory
        self._asking = asking
        self._timeout_s = timeout_s

    @describes(
        "Pictures of a prompt.",
        takes=ImageRequest,
        gives=Pictures,
        fails=ASKING,
        example={"model": "NAME", "prompt": "a red house"},
    )
    async def generate(self, request: web.Request) -> web.Response:
        """``POST /v1/images/generations``. Raises ``BadRequest`` and what asking a model raises."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(ImageRequest, request, deadline)
        _check(asked)
        served = await self._directory.find(request, asked.model, deadline)
        require(served, lambda row: row.gives is Gives.PICTURE, "pictures")
        bodies = list(_bodies(asked))
        for body in bodies:  # before anything is loaded
            encode_body(served.profile, body)
        painted = await self._paint(served, bodies, deadline)
        data: list[Picture] = [{"b64_json": base64.b64encode(one.answer.data).decode()} for one in painted]
        answer: Pictures = {"created": int(time.time()), "data": data, "output_format": "png"}
        waited = Waited(seconds=max(one.waited.seconds for one in painted), cold=any(one.waited.cold for one in painted))
        return json_response(answer, headers=waited_headers(waited.seconds, cold=waited.cold))

    async def _paint(self, served: Served, bodies: list[Body], deadline: Deadline) -> list[Asked[Raw]]:
        """One after the other: a picture is work enough for a device. Who else asks comes between them."""
        return [await self._one(served, body, deadline) for body in bodies]

    async def _one(self, served: Served, body: Body, deadline: Deadline) -> Asked[Raw]:
        async def ask(lease: Lease) -> Raw:
            call = encode_body(lease.profile, body)
            answer = call.answer(await self._asking.infer(lease, call, deadline))
            assert isinstance(answer, Raw)
            return answer

        return await self._asking.once(served.name, ask, deadline)


def _check(asked: ImageRequest) -> None:
    """Raises ``BadRequest`` for what would change the answer and is not made here."""
    if asked.response_format == "url":
        raise BadRequest(
            "response_format: nothing here keeps pictures for an address; send b64_json",
            param="response_format",
            code="unsupported_parameter",
        )
    if asked.output_format not in (None, "png"):
        raise BadRequest(
            f"output_format: pictures are png here, not {asked.output_format}; leave it out",
            param="output_format",
            code="unsupported_parameter",
        )
    if asked.stream:
        raise BadRequest("stream: pictures come whole; leave it out", param="stream", code="unsupported_parameter")


def _bodies(asked: ImageRequest) -> Iterator[Body]:
    """In ``/predict``'s words, one a picture. With a seed, the i-th has that seed + i, as in chats."""
    parameters: dict[str, object] = {
        "negative_prompt": asked.negative_prompt,
        "num_inference_steps": asked.num_inference_steps,
        "guidance_scale": asked.guidance_scale,
    }
    if asked.size not in (None, "auto"):
        assert asked.size is not None
        if (found := _SIZE.fullmatch(asked.size)) is None:
            raise BadRequest(f"size: expected WIDTHxHEIGHT or auto, found {asked.size[:_SHOWN]!r}", param="size")
        parameters |= {"width": int(found[1]), "height": int(found[2])}
    for place in range(asked.n or 1):
        seed = {} if asked.seed is None else {"seed": nth_seed(asked.seed, place)}
        yield Body(inputs=asked.prompt, parameters=parameters | seed)

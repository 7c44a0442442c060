"""``/classify`` and ``/pooling``, as vLLM has them: texts enter, what the model's head makes of each leaves."""

from __future__ import annotations

import base64
import time
from secrets import token_hex
from typing import Any, Literal

import numpy as np
from aiohttp import web

from modelium.gateway.asking import Asked, Asking
from modelium.gateway.codecs import Body
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.answers import json_response
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import ASKING, describes
from modelium.gateway.neighbours import shapes
from modelium.gateway.neighbours.inferring import answer_to, headers_of, probabilities_of
from modelium.gateway.openai import OpenAI
from modelium.gateway.openai.completion import prompts_of
from modelium.gateway.openai.directory import Served
from modelium.gateway.openai.embeddings import check_dimensions, shortened
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.fields import Texts
from modelium.gateway.openai.reading import read_request
from modelium.gateway.openai.requests import Count, Request


class ClassifyRequest(Request):
    """The body of ``/classify``. Token ids are those of the model's own tokenizer, as ``/tokenize`` gives them.
    ``use_activation`` false asks for the head's own numbers."""

    input: Texts
    use_activation: bool | None = None


class PoolingRequest(ClassifyRequest):
    """The body of ``/pooling``."""

    task: Literal["embed", "classify", "token_embed", "token_classify"] | None = None
    dimensions: Count | None = None
    encoding_format: Literal["float", "base64"] = "float"


class Pooling:
    """The handlers."""

    def __init__(self, openai: OpenAI, asking: Asking, *, timeout_s: float) -> None:
        self._openai = openai
        self._asking = asking
        self._timeout_s = timeout_s

    @describes(
        "The probabilities of a classifier's labels.",
        takes=ClassifyRequest,
        gives=shapes.Classes,
        fails=ASKING,
        example={"model": "NAME", "input": "I like it."},
    )
    async def classify(self, request: web.Request) -> web.Response:
        """``POST /classify``. Raises ``BadRequest`` and what asking a model raises."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(ClassifyRequest, request, deadline)
        served, texts = await self._find(request, asked, deadline)
        judged = await probabilities_of(self._asking, served, texts, deadline, activated=asked.use_activation is not False)
        labels = served.profile.labels
        data = []
        for index, row in enumerate(judged.answer):
            best = max(range(len(row)), key=row.__getitem__)
            label = labels[best] if best < len(labels) else None
            data.append({"index": index, "label": label, "probs": row, "num_classes": len(row)})
        return await self._answer("classify", asked, served, texts, data, judged, deadline)

    @describes(
        "A model's vector or probabilities.",
        takes=PoolingRequest,
        gives=shapes.Poolings,
        fails=ASKING,
        example={"model": "NAME", "input": "I like it."},
    )
    async def pool(self, request: web.Request) -> web.Response:
        """``POST /pooling``. Raises the same."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(PoolingRequest, request, deadline)
        served, texts = await self._find(request, asked, deadline)
        embeds = served.profile.task.row.embeds_texts and served.profile.onnx is None
        check_dimensions(served, asked.dimensions)
        if asked.task in ("token_embed", "token_classify"):
            does = "embed" if embeds else "classify"
            raise BadRequest(
                f"task: a text has one answer here, not one for each token; {served.name!r} does {does}",
                param="task",
                code="unsupported_parameter",
            )
        if asked.task is not None and asked.task != ("embed" if embeds else "classify"):
            raise BadRequest(f"task: {served.name!r} does {served.profile.task.value}", param="task")
        if embeds:
            parameters = {} if asked.use_activation is None else {"normalize": asked.use_activation}
            pooled = await answer_to(self._asking, served, Body(inputs=texts, at_root=parameters), deadline)
            if asked.dimensions is not None:
                vectors = pooled.answer.astype(np.float32, copy=False)
                pooled = Asked(answer=shortened(vectors, asked.dimensions), waited=pooled.waited)
        else:
            pooled = await probabilities_of(self._asking, served, texts, deadline, activated=asked.use_activation is not False)
        data: list[dict[str, object]] = [
            {"index": index, "object": "pooling", "data": _written(row, asked.encoding_format)}
            for index, row in enumerate(pooled.answer)
        ]
        return await self._answer("pooling", asked, served, texts, data, pooled, deadline)

    async def _find(self, request: web.Request, asked: ClassifyRequest, deadline: Deadline) -> tuple[Served, list[str]]:
        """The model and its texts."""
        served = await self._openai.directory.find(request, asked.model, deadline)
        return served, await prompts_of(asked.input, served.profile, "input", self._openai.tokenizing, deadline)

    async def _answer(
        self,
        kind: str,
        asked: ClassifyRequest,
        served: Served,
        texts: list[str],
        data: object,
        answered: Asked[Any],
        deadline: Deadline,
    ) -> web.Response:
        within_s = deadline.timeout_s - deadline.elapsed_s()
        tokens = await self._openai.tokenizing.count(served.profile, texts, within_s=within_s)
        body = {
            "id": f"{kind}-{token_hex(16)}",
            "object": "list",
            "created": int(time.time()),
            "model": asked.model,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None},
        }
        return json_response(body, headers=headers_of(answered))


def _written(row: object, form: str) -> object:
    """base64 of little-endian float32, as in ``/v1/embeddings``."""
    return base64.b64encode(np.asarray(row, dtype="<f4").tobytes()).decode() if form == "base64" else row

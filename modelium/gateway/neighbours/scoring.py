"""``/v1/score``, ``/v1/rerank`` and their other names, as vLLM has them (Jina's and Cohere's bodies): pairs of texts enter, how
well they go together leaves.

Models that rank judge each pair; of models that embed, it is the cosine of the two vectors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from secrets import token_hex
from typing import Annotated

import numpy as np
from aiohttp import web
from pydantic import BaseModel, Field

from modelium.gateway.asking import Asked, Asking
from modelium.gateway.codecs import Body
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.answers import json_response
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import ASKING, describes
from modelium.gateway.neighbours import shapes
from modelium.gateway.neighbours.inferring import answer_to, cosines, headers_of
from modelium.gateway.openai import OpenAI
from modelium.gateway.openai.directory import Served
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.fields import Many, Text
from modelium.gateway.openai.reading import read_request
from modelium.gateway.openai.requests import Natural, Request
from modelium.values import Task

_DOCUMENTS_AT_ONCE = 1000  # as many as the python runtime takes in a row
_PAIRS = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))


class _Part(BaseModel):
    type: str
    text: Text | None = None


class Document(BaseModel):
    """Cohere's and Jina's ``{"text"}``, and vLLM's ``{"content": [parts]}``; other fields are left alone."""

    text: Text | None = None
    content: Many[_Part] | None = None


Said = Text | Document
Several = Annotated[Text | Document | Many[Said], Field()]


class _Scoring(Request):
    use_activation: bool | None = None


class ScoreRequest(_Scoring):
    """The body of ``/v1/score``: one text with many, or as many with as many; under one of four pairs of names."""

    text_1: Several | None = None
    text_2: Several | None = None
    queries: Several | None = None
    documents: Several | None = None
    items: Several | None = None
    data_1: Several | None = None
    data_2: Several | None = None


class RerankRequest(_Scoring):
    """The body of ``/v1/rerank``. ``top_n``: how many are wanted; 0: all."""

    query: Said
    documents: Several
    top_n: Natural | None = None
    return_documents: bool | None = None


class Scoring:
    """The handlers."""

    def __init__(self, openai: OpenAI, asking: Asking, *, timeout_s: float) -> None:
        self._openai = openai
        self._asking = asking
        self._timeout_s = timeout_s

    @describes(
        "How well pairs of texts go together.",
        takes=ScoreRequest,
        gives=shapes.Scores,
        fails=ASKING,
        example={"model": "NAME", "text_1": "A cat", "text_2": ["A kitten", "A car"]},
    )
    async def score(self, request: web.Request) -> web.Response:
        """``POST /v1/score``. Raises ``BadRequest`` and what asking a model raises."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(ScoreRequest, request, deadline)
        left, right = pairs_of(asked)
        served, scores = await self._judge(request, asked, left, right, deadline)
        tokens = await self._count(served, left, right, deadline)
        body = {
            "id": f"score-{token_hex(16)}",
            "object": "list",
            "created": int(time.time()),
            "model": asked.model,
            "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores.answer)],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None},
        }
        return json_response(body, headers=headers_of(scores))

    @describes(
        "Documents in the order in which they fit a query.",
        takes=RerankRequest,
        gives=shapes.Ranking,
        fails=ASKING,
        example={"model": "NAME", "query": "A cat", "documents": ["A kitten", "A car"]},
    )
    async def rerank(self, request: web.Request) -> web.Response:
        """``POST /v1/rerank`` · ``/rerank`` · ``/v2/rerank``. Raises the same."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(RerankRequest, request, deadline)
        query, documents = texts_of(asked.query, "query"), texts_of(asked.documents, "documents")
        served, scores = await self._judge(request, asked, query, documents, deadline)
        tokens = await self._count(served, query, documents, deadline)
        best = sorted(range(len(documents)), key=lambda place: -scores.answer[place])[: asked.top_n or None]
        results: list[dict[str, object]] = [{"index": place, "relevance_score": scores.answer[place]} for place in best]
        if asked.return_documents is not False:
            results = [{**one, "document": {"text": documents[place]}} for one, place in zip(results, best, strict=True)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        body = {"id": f"rerank-{token_hex(16)}", "model": asked.model, "usage": usage, "results": results}
        return json_response(body, headers=headers_of(scores))

    async def _judge(
        self, request: web.Request, asked: _Scoring, left: Sequence[str], right: Sequence[str], deadline: Deadline
    ) -> tuple[Served, Asked[list[float]]]:
        """A score for each text on the right."""
        if asked.use_activation is False:
            raise BadRequest("use_activation: scores come as the model's own function makes them", param="use_activation")
        served = await self._openai.directory.find(request, asked.model, deadline)
        if served.profile.task is Task.TEXT_RANKING:
            return served, await rank(self._asking, served, left, right, deadline)
        if served.profile.task.row.embeds_texts and served.profile.onnx is None:
            return served, await self._compare(served, left, right, deadline)
        raise BadRequest(
            f"model: {served.name!r} neither ranks nor embeds texts; it does {served.profile.task.value}: "
            f"ask POST /predict/{served.name}",
            param="model",
            code="unsupported_model",
        )

    async def _compare(
        self, served: Served, left: Sequence[str], right: Sequence[str], deadline: Deadline
    ) -> Asked[list[float]]:
        asked = await answer_to(self._asking, served, Body(inputs=[*left, *right]), deadline)
        vectors = asked.answer.astype(np.float64)
        return Asked(answer=cosines(vectors[: len(left)], vectors[len(left) :]), waited=asked.waited)

    async def _count(self, served: Served, left: Sequence[str], right: Sequence[str], deadline: Deadline) -> int:
        """Of models that rank, each pair is read together; of the others, each text alone."""
        read: list[str | tuple[str, str]] = [*left, *right]
        if served.profile.task is Task.TEXT_RANKING:
            read = [(left[index] if len(left) > 1 else left[0], text) for index, text in enumerate(right)]
        within_s = deadline.timeout_s - deadline.elapsed_s()
        return await self._openai.tokenizing.count(served.profile, read, within_s=within_s)


async def rank(
    asking: Asking, served: Served, left: Sequence[str], right: Sequence[str], deadline: Deadline
) -> Asked[list[float]]:
    """A score of a model that ranks for each text on the right: with the one on the left, or with the one at its place."""
    if len(left) == 1:
        parts = [list(right[start : start + _DOCUMENTS_AT_ONCE]) for start in range(0, len(right), _DOCUMENTS_AT_ONCE)]
        inputs = [{"query": left[0], "documents": part} for part in parts]
    else:
        inputs = [{"query": query, "documents": [text]} for query, text in zip(left, right, strict=True)]
    asked = await answer_to(asking, served, Body(inputs=inputs), deadline)
    scores = [one["score"] for row in asked.answer for one in sorted(row, key=lambda one: one["index"])]
    return Asked(answer=scores, waited=asked.waited)


def pairs_of(asked: ScoreRequest) -> tuple[list[str], list[str]]:
    """The texts on the left and on the right. Raises ``BadRequest``."""
    for first, second in _PAIRS:
        one, other = getattr(asked, first), getattr(asked, second)
        if one is None or other is None:
            continue
        left, right = texts_of(one, first), texts_of(other, second)
        if len(left) not in (1, len(right)):
            raise BadRequest(f"{first}: one text, or as many as {second} has; found {len(left)} and {len(right)}", param=first)
        return left, right
    raise BadRequest("text_1: is missing, or text_2 is; send both", param="text_1", code="missing_required_parameter")


def texts_of(sent: str | Document | list[str | Document], param: str) -> list[str]:
    """What each of them says. Raises ``BadRequest``."""
    items = sent if isinstance(sent, list) else [sent]
    if not items:
        raise BadRequest(f"{param}: the list is empty", param=param)
    texts = [item if isinstance(item, str) else _text_of(item, param) for item in items]
    if "" in texts:
        raise BadRequest(f"{param}: a text is empty", param=param, code="invalid_value")
    return texts


def _text_of(document: Document, param: str) -> str:
    if document.text is not None:
        return document.text
    for part in document.content or ():
        if part.type != "text":
            raise BadRequest(f"{param}: parts of type {part.type[:100]!r} are not ranked here; text is", param=param)
    return "\n".join(part.text or "" for part in document.content or ())

"""The servers of Hugging Face below a model's own address: text-generation-inference's ``/generate`` and ``/generate_stream``,
text-embeddings-inference's ``/embed``, ``/rerank`` and ``/predict``. Their bodies enter, their answers leave.
"""

from __future__ import annotations

import numpy as np
import orjson
from aiohttp import web

from modelium.gateway.asking import Asking
from modelium.gateway.codecs import Body
from modelium.gateway.http.answers import json_response
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import ASKING, EVENTS, Reply, describes
from modelium.gateway.neighbours import shapes
from modelium.gateway.neighbours.inferring import answer_to, headers_of
from modelium.gateway.neighbours.scoring import rank
from modelium.gateway.openai import OpenAI
from modelium.gateway.openai.directory import require
from modelium.gateway.openai.embeddings import check_dimensions, shortened
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.fields import Many, Text
from modelium.gateway.openai.reading import read_request
from modelium.gateway.openai.requests import Count, Request, Sentence
from modelium.gateway.predict.endpoint import Predict
from modelium.gateway.predict.shapes import PredictBody, Prediction
from modelium.values import Task

Json = dict[str, object]


class EmbedAsked(Request):
    """The body of ``/embed``. Vectors have length 1 unless ``normalize`` is false."""

    inputs: Text | Many[Text]
    normalize: bool | None = None
    truncate: bool | None = None
    prompt_name: Sentence | None = None
    dimensions: Count | None = None


class RerankAsked(Request):
    """The body of ``/rerank``."""

    query: Text
    texts: Many[Text]
    return_text: bool | None = None
    raw_scores: bool | None = None


class PredictAsked(Request):
    """The body of ``/predict``: a text, a pair of texts, or a list of lists of one or two."""

    inputs: Text | Many[Text] | Many[Many[Text]]
    raw_scores: bool | None = None


class HuggingFace:
    """The handlers. ``predict``: who answers ``/predict/NAME``."""

    def __init__(self, openai: OpenAI, asking: Asking, predict: Predict, *, timeout_s: float) -> None:
        self._openai = openai
        self._asking = asking
        self._predict = predict
        self._timeout_s = timeout_s

    def routes(self) -> list[web.RouteDef]:
        """All below ``/predict/NAME``."""
        return [
            web.post("/predict/{model:.+}/generate", self.generate),
            web.post("/predict/{model:.+}/generate_stream", self.generate_stream),
            web.post("/predict/{model:.+}/embed", self.embed),
            web.post("/predict/{model:.+}/rerank", self.rerank),
            web.post("/predict/{model:.+}/predict", self.classify),
        ]

    @describes(
        "text-generation-inference's route: a text, continued.",
        takes=PredictBody,
        gives=Prediction,
        fails=ASKING,
        example={"inputs": "Once upon a time", "parameters": {"max_new_tokens": 16}},
    )
    async def generate(self, request: web.Request) -> web.StreamResponse:
        """``POST …/generate``: the answer of ``/predict``, which is a list, without the list. Raises what that raises."""
        answer = await self._predict.answer(request, stream=False)
        if not isinstance(answer, web.Response) or not isinstance(answer.body, bytes):
            return answer
        said = orjson.loads(answer.body)
        while isinstance(said, list) and len(said) == 1:
            said = said[0]
        answer.body = orjson.dumps(said)
        return answer

    @describes(
        "The same, streamed.",
        takes=PredictBody,
        gives=Reply(content_type=EVENTS, says="an event for each token"),
        fails=ASKING,
        example={"inputs": "Once upon a time", "parameters": {"max_new_tokens": 16}},
    )
    async def generate_stream(self, request: web.Request) -> web.StreamResponse:
        """``POST …/generate_stream``. Raises the same."""
        return await self._predict.answer(request, stream=True)

    @describes(
        "text-embeddings-inference's route: a list of vectors.",
        takes=EmbedAsked,
        gives=list[list[float]],
        fails=(*ASKING, BadRequest),
        example={"inputs": "Hello"},
    )
    async def embed(self, request: web.Request) -> web.Response:
        """``POST …/embed``: a list of vectors, of one text too. Raises ``BadRequest`` and what asking a model raises."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(EmbedAsked, request, deadline)
        served = await self._openai.directory.find(request, asked.model, deadline)
        require(served, lambda row: row.embeds_texts, "embeddings")
        check_dimensions(served, asked.dimensions)
        texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
        wanted: Json = {"normalize": asked.normalize is not False, "truncate": asked.truncate, "prompt_name": asked.prompt_name}
        root = {name: value for name, value in wanted.items() if value is not None}
        answered = await answer_to(self._asking, served, Body(inputs=texts, at_root=root), deadline)
        vectors = answered.answer.astype(np.float32, copy=False)
        if asked.dimensions is not None:
            vectors = shortened(vectors, asked.dimensions)
        return json_response(vectors, headers=headers_of(answered))

    @describes(
        "The same, for models that rank: best first.",
        takes=RerankAsked,
        gives=list[shapes.Scored],
        fails=(*ASKING, BadRequest),
        example={"query": "A cat", "texts": ["A kitten", "A car"]},
    )
    async def rerank(self, request: web.Request) -> web.Response:
        """``POST …/rerank``: places and scores, best first. Raises the same."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(RerankAsked, request, deadline)
        served = await self._openai.directory.find(request, asked.model, deadline)
        if served.profile.task is not Task.TEXT_RANKING:
            raise BadRequest(f"model: {served.name!r} does not rank texts; it does {served.profile.task.value}", param="model")
        if asked.raw_scores:
            raise BadRequest("raw_scores: scores come as the model's own function makes them", param="raw_scores")
        if not asked.texts:
            raise BadRequest("texts: the list is empty", param="texts")
        scores = await rank(self._asking, served, [asked.query], asked.texts, deadline)
        best = sorted(range(len(asked.texts)), key=lambda place: -scores.answer[place])
        found: list[Json] = [{"index": place, "score": scores.answer[place]} for place in best]
        if asked.return_text:
            found = [one | {"text": asked.texts[place]} for one, place in zip(found, best, strict=True)]
        return json_response(found, headers=headers_of(scores))

    @describes(
        "The same, for models that classify: best first; of several texts a list of lists.",
        takes=PredictAsked,
        gives=list[shapes.Labelled] | list[list[shapes.Labelled]],
        fails=(*ASKING, BadRequest),
        example={"inputs": "I like it."},
    )
    async def classify(self, request: web.Request) -> web.Response:
        """``POST …/predict``: labels and scores, best first; of several texts a list of lists. Raises the same."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(PredictAsked, request, deadline)
        served = await self._openai.directory.find(request, asked.model, deadline)
        if served.profile.task is not Task.TEXT_CLASSIFICATION or served.profile.onnx is not None:
            said = f"model: {served.name!r} does not classify texts; it does {served.profile.task.value}"
            raise BadRequest(said, param="model")
        several = isinstance(asked.inputs, list) and any(isinstance(one, list) for one in asked.inputs)
        inputs = [_input(one) for one in asked.inputs] if several else [_input(asked.inputs)]
        parameters = {"function_to_apply": "none"} if asked.raw_scores else {}
        answered = await answer_to(self._asking, served, Body(inputs=inputs, parameters=parameters), deadline)
        found = [sorted(row, key=lambda one: -one["score"]) for row in answered.answer]
        return json_response(found if several else found[0], headers=headers_of(answered))


def _input(sent: object) -> object:
    """A text, or a pair of texts."""
    match sent:
        case str() as text:
            return text
        case [str() as text]:
            return text
        case [str() as text, str() as pair]:
            return {"text": text, "text_pair": pair}
        case _:
            raise BadRequest("inputs: a text, a pair of texts, or a list of lists of one or two", param="inputs")

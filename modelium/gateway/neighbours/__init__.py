"""The routes of other servers' clients, besides OpenAI's: their requests enter, answers in their shapes leave.

Each file reads one neighbour's requests into those of ``openai`` or of ``codecs``, asks in the same way, and writes the
answer in the neighbour's words.
"""

from __future__ import annotations

from aiohttp import web

from modelium import __version__
from modelium.gateway.asking import Asking
from modelium.gateway.http.answers import json_response
from modelium.gateway.http.describing import Reply, describes
from modelium.gateway.neighbours import shapes
from modelium.gateway.neighbours.anthropic import Anthropic
from modelium.gateway.neighbours.errors import answer_refusal, answer_shaped_errors
from modelium.gateway.neighbours.huggingface import HuggingFace
from modelium.gateway.neighbours.ollama import Ollama
from modelium.gateway.neighbours.pooling import Pooling
from modelium.gateway.neighbours.responses import Responses
from modelium.gateway.neighbours.scoring import Scoring
from modelium.gateway.neighbours.tokens import Tokens
from modelium.gateway.openai import OpenAI
from modelium.gateway.openai.shapes import Json
from modelium.gateway.predict.endpoint import Predict

__all__ = ["Neighbours", "answer_refusal", "answer_shaped_errors"]


class Neighbours:
    """The handlers."""

    def __init__(self, openai: OpenAI, asking: Asking, predict: Predict, *, timeout_s: float) -> None:
        self._openai = openai
        self._huggingface = HuggingFace(openai, asking, predict, timeout_s=timeout_s)
        self._anthropic = Anthropic(openai, asking, timeout_s=timeout_s)
        self._responses = Responses(openai, asking, timeout_s=timeout_s)
        self._scoring = Scoring(openai, asking, timeout_s=timeout_s)
        self._pooling = Pooling(openai, asking, timeout_s=timeout_s)
        self._tokens = Tokens(openai, timeout_s=timeout_s)
        self._ollama = Ollama(openai, asking, timeout_s=timeout_s)

    def routes_of_models(self) -> list[web.RouteDef]:
        """Those below a model's own address."""
        return self._huggingface.routes()

    def routes(self) -> list[web.RouteDef]:
        """The others."""
        return [
            web.post("/tokenize", self._tokens.tokenize),
            web.post("/detokenize", self._tokens.detokenize),
            *(web.post(path, self._scoring.score) for path in ("/v1/score", "/score")),
            *(web.post(path, self._scoring.rerank) for path in ("/v1/rerank", "/v2/rerank", "/rerank")),
            web.post("/classify", self._pooling.classify),
            web.post("/pooling", self._pooling.pool),
            *self._ollama.routes(),
            *self._anthropic.routes(),
            web.post("/v1/responses", self._responses.answer),
            web.get("/ping", self.ping),
            web.post("/ping", self.ping),
            web.get("/version", self.version),
            *self._azure(),
        ]

    @describes("Whether the controller's loop runs, as SageMaker asks it.", gives=Json, also=(Reply(kind=Json, status=503),))
    async def ping(self, _request: web.Request) -> web.Response:
        """``/ping``, SageMaker's probe: 503 when the controller's loop stands still."""
        return json_response({}, status=200 if self._openai.directory.controller.alive() else 503)

    @describes("The version of Modelium.", gives=shapes.Version)
    async def version(self, _request: web.Request) -> web.Response:
        """``GET /version``."""
        return json_response({"version": __version__})

    def _azure(self) -> list[web.RouteDef]:
        """OpenAI's handlers; the deployment in the path is the model. Any ``api-version`` will do."""
        deployment = "/openai/deployments/{model:.+}"
        return [
            web.post(f"{deployment}/chat/completions", self._openai.chat.answer),
            web.post(f"{deployment}/completions", self._openai.completion.answer),
            web.post(f"{deployment}/embeddings", self._openai.embeddings.answer),
        ]

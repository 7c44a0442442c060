"""The routes of other servers' clients, besides OpenAI's: their requests enter, answers in their shapes leave.

Each file reads one neighbour's requests into those of ``openai`` or of ``codecs``, asks in the same way, and writes the
answer in the neighbour's words.
"""

from __future__ import annotations

from aiohttp import web

from modelium.gateway.asking import Asking
from modelium.gateway.neighbours.errors import answer_neighbours_errors, answer_refusal
from modelium.gateway.neighbours.ollama import Ollama
from modelium.gateway.neighbours.pooling import Pooling
from modelium.gateway.neighbours.scoring import Scoring
from modelium.gateway.neighbours.tokens import Tokens
from modelium.gateway.openai import OpenAI

__all__ = ["Neighbours", "answer_neighbours_errors", "answer_refusal"]


class Neighbours:
    """The handlers."""

    def __init__(self, openai: OpenAI, asking: Asking, *, timeout_s: float) -> None:
        self._scoring = Scoring(openai, asking, timeout_s=timeout_s)
        self._pooling = Pooling(openai, asking, timeout_s=timeout_s)
        self._tokens = Tokens(openai, timeout_s=timeout_s)
        self._ollama = Ollama(openai, asking, timeout_s=timeout_s)

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.post("/tokenize", self._tokens.tokenize),
            web.post("/detokenize", self._tokens.detokenize),
            *(web.post(path, self._scoring.score) for path in ("/v1/score", "/score")),
            *(web.post(path, self._scoring.rerank) for path in ("/v1/rerank", "/v2/rerank", "/rerank")),
            web.post("/classify", self._pooling.classify),
            web.post("/pooling", self._pooling.pool),
            *self._ollama.routes(),
        ]

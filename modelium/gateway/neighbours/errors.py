"""Errors of the neighbours' routes: exceptions enter, answers in the shape that a route's clients know leave.

vLLM's routes outside of /v1 and Azure's paths have OpenAI's shape, /v1/messages has Anthropic's. Others have Modelium's own,
``{"error": "…"}``, which is what clients of Ollama, text-generation-inference and text-embeddings-inference read.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from modelium.errors import ModeliumError
from modelium.gateway.http.answers import json_response
from modelium.gateway.neighbours.anthropic import error_body
from modelium.gateway.openai import answer_in_shape
from modelium.gateway.openai.errors import Description, described, described_any

_IN_OPENAIS_SHAPE = frozenset({"/tokenize", "/detokenize", "/score", "/rerank", "/v2/rerank", "/classify", "/pooling"})

_IN_ANTHROPICS_SHAPE = ("/v1/messages",)


@web.middleware
async def answer_neighbours_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Inside of ``answer_openai_errors``."""
    if not _is_ours(request):
        return await handler(request)
    try:
        return await handler(request)
    except ConnectionError:
        raise
    except Exception as error:
        return _response(described_any(error, request), request)


def answer_refusal(error: ModeliumError, request: web.Request) -> web.Response:
    """For what is refused before any route is asked, in the shape of its path."""
    return _response(described(error), request) if _is_ours(request) else answer_in_shape(error, request)


def _is_ours(request: web.Request) -> bool:
    return request.path in _IN_OPENAIS_SHAPE or request.path.startswith(("/openai/", *_IN_ANTHROPICS_SHAPE))


def _response(said: Description, request: web.Request) -> web.Response:
    body = said.body
    if request.path.startswith(_IN_ANTHROPICS_SHAPE):
        body = error_body(said.status, said.message)
    return json_response(body, status=said.status, headers=said.headers)

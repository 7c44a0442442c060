"""Errors as answers in the shape that a route's clients know: exceptions enter, each with its path; answers leave.

One table says which path has which shape. What is not in it has Modelium's own, ``{"error": "…"}``, which is what clients of
Ollama, text-generation-inference and text-embeddings-inference read.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from modelium.errors import ModeliumError
from modelium.gateway.http.answers import json_response
from modelium.gateway.http.errors import error_response
from modelium.gateway.neighbours.anthropic import error_body
from modelium.gateway.openai.errors import Description, described, described_any

Shape = Callable[[Description], dict[str, object]]


def openais(said: Description) -> dict[str, object]:
    """``{"error": {"message", "type", "param", "code"}}``."""
    return said.body


def anthropics(said: Description) -> dict[str, object]:
    """``{"type": "error", "error": {"type", "message"}}``."""
    return error_body(said.status, said.message)


# The first that fits a path is its shape: Anthropic's paths are below /v1 too. A model's own address has OpenAI's API as well,
# vLLM's other routes and Azure's have its errors.
_SHAPES: tuple[tuple[re.Pattern[str], Shape], ...] = (
    (re.compile(r"/v1/messages(/.*)?", re.DOTALL), anthropics),
    (re.compile(r"/(v1|openai)/.*", re.DOTALL), openais),
    (re.compile(r"/predict/.+/v1/(chat/completions|completions|embeddings|models)", re.DOTALL), openais),
    (re.compile(r"/predict/.+/v1/(audio/(transcriptions|translations)|images/generations)", re.DOTALL), openais),
    (re.compile(r"/(tokenize|detokenize|score|rerank|v2/rerank|classify|pooling)"), openais),
)


def shape_of(path: str) -> Shape | None:
    """None: Modelium's own.

    >>> [shape_of(path) is not None for path in ("/v1/models", "/predict/m/v1/models", "/predict/v1/models", "/predict/m")]
    [True, True, False, False]
    """
    return next((shape for pattern, shape in _SHAPES if pattern.fullmatch(path)), None)


@web.middleware
async def answer_shaped_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Inside of ``answer_errors``: whatever goes wrong at a path of another server's is answered in its shape."""
    if (shape := shape_of(request.path)) is None:
        return await handler(request)
    try:
        return await handler(request)
    except ConnectionError:
        raise
    except Exception as error:
        return _response(described_any(error, request), shape)


def answer_refusal(error: ModeliumError, request: web.Request) -> web.Response:
    """For what is refused before any route is asked, in the shape of its path."""
    shape = shape_of(request.path)
    return error_response(error, request) if shape is None else _response(described(error), shape)


def _response(said: Description, shape: Shape) -> web.Response:
    return json_response(shape(said), status=said.status, headers=said.headers)

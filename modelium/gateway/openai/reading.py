"""Requests to ``/v1``: an HTTP request enters, what it asks for leaves, checked."""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import quote

from aiohttp import web

from modelium.gateway.deadline import Deadline
from modelium.gateway.http.bodies import read_body, work_on
from modelium.gateway.openai.parsing import parse
from modelium.gateway.openai.requests import ChatRequest, CompletionRequest, EmbeddingRequest

HEADER = "X-Modelium-Ignored"
_IGNORED: web.RequestKey[tuple[str, ...]] = web.RequestKey("ignored", tuple)

R = TypeVar("R", ChatRequest, CompletionRequest, EmbeddingRequest)


async def read_request(kind: type[R], request: web.Request, deadline: Deadline) -> R:
    """Raises ``BadRequest`` with the first field that does not fit, and what ``read_body`` raises."""
    data = await read_body(request, deadline)
    asked = await work_on(request, deadline, len(data), lambda: parse(kind, data))
    request[_IGNORED] = asked.ignored
    return asked


async def name_ignored(request: web.Request, response: web.StreamResponse) -> None:
    """For the application's ``on_response_prepare``: streamed answers have the header as well."""
    if names := request.get(_IGNORED):
        response.headers[HEADER] = ", ".join(quote(name, safe=" .") for name in names)

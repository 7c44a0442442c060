"""Requests to ``/v1``: an HTTP request enters, what it asks for leaves, checked."""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web

from modelium.gateway.bodies import read_body, work_on
from modelium.gateway.deadline import Deadline
from modelium.gateway.openai.requests import ChatRequest, CompletionRequest, EmbeddingRequest, parse

R = TypeVar("R", ChatRequest, CompletionRequest, EmbeddingRequest)


async def read_request(kind: type[R], request: web.Request, deadline: Deadline) -> R:
    """Raises ``Refused`` with the first field that does not fit, and what ``read_body`` raises."""
    data = await read_body(request, deadline)
    return await work_on(request, deadline, len(data), lambda: parse(kind, data))

"""Requests to ``/v1``: an HTTP request enters, what it asks for leaves, checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote

from aiohttp import web

from modelium.gateway.codecs.fields import shown
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.bodies import read_body, work_on
from modelium.gateway.http.paths import called_name
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.parsing import checked, parse
from modelium.gateway.openai.requests import Request
from modelium.gateway.openai.unknown import Unknown

HEADER = "X-Modelium-Ignored"
STRICT: web.AppKey[bool] = web.AppKey("strict", bool)  # gateway.strict
_IGNORED: web.RequestKey[tuple[Unknown, ...]] = web.RequestKey("ignored", tuple)
_SIZE: web.RequestKey[int] = web.RequestKey("size", int)

R = TypeVar("R", bound=Request)
T = TypeVar("T")


async def read_request(kind: type[R], request: web.Request, deadline: Deadline) -> R:
    """Raises ``BadRequest`` with the first field that does not fit, and what ``read_body`` raises.

    Where the path names the model, it is the one that is asked: clients of such paths send any name in the body, or none.
    """
    data = await read_body(request, deadline)
    called = called_name(request) if "model" in request.match_info else None
    strict = request.app[STRICT]
    asked = await work_on(request, deadline, len(data), lambda: parse(kind, data, strict=strict, model=called))
    request[_IGNORED] = tuple(asked.ignored)
    request[_SIZE] = len(data)
    return asked


def read_fields(kind: type[R], fields: dict[str, object], request: web.Request) -> R:
    """The same of the fields of a form. Raises ``BadRequest``."""
    called = called_name(request) if "model" in request.match_info else None
    asked = checked(kind, fields, strict=request.app[STRICT], model=called)
    request[_IGNORED] = tuple(asked.ignored)
    return asked


async def make(request: web.Request, deadline: Deadline, made: Callable[[], T]) -> T:
    """What is ``made`` of all that a request holds, once it was read: as its body was, beside the loop where it is large."""
    return await work_on(request, deadline, request[_SIZE], made)


def ignore(request: web.Request, *paths: str) -> None:
    """What turned out to mean nothing for this model joins the list. Raises ``BadRequest`` where nothing is to be ignored."""
    strict = request.app[STRICT]
    if paths and strict:
        raise BadRequest(f"{paths[0]}: means nothing to this model", param=paths[0], code="unsupported_parameter")
    request[_IGNORED] = (*request.get(_IGNORED, ()), *(Unknown(path=path, name=path) for path in paths))


async def name_ignored(request: web.Request, response: web.StreamResponse) -> None:
    """For the application's ``on_response_prepare``: streamed answers have the header as well."""
    if names := request.get(_IGNORED):
        response.headers[HEADER] = ", ".join(_written(one) for one in names)


def _written(one: Unknown) -> str:
    """As RFC 9651 writes a list whose items have parameters."""
    name = quote(shown(one.path), safe=" .")
    return f"{name}; did-you-mean={one.meant}" if one.meant else name

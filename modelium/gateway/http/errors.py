"""Errors as answers: exceptions enter, ``{"error": …, "type": …}`` with the right status leaves.

One middleware is the only place that does this, so aiohttp's own 404 and 405 have the same form, and nothing unexpected
shows its insides: it leaves an id that is in the log.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from uuid import uuid4

from aiohttp import web
from aiohttp.typedefs import Handler

from modelium.errors import BodyTooLarge, ModeliumError, NoModelCalled, QueueFull, Unauthorized
from modelium.gateway.http.answers import json_response
from modelium.gateway.http.counting import BROKEN_OFF, CLIENT_GONE
from modelium.gateway.http.keys import CHALLENGE
from modelium.gateway.http.paths import nearest_path, shown_path
from modelium.gateway.http.statuses import status_of
from modelium.gateway.http.telling import TELLING
from modelium.names import printable
from modelium.sizes import human_bytes

logger = logging.getLogger(__name__)

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
MAX_BODY_BYTES: web.AppKey[int] = web.AppKey("max_body_bytes", int)
# How an application answers what is refused before any route is asked; by default ``error_response``.
ANSWER_REFUSAL: web.AppKey[Callable[[ModeliumError, web.Request], web.Response]] = web.AppKey("answer_refusal")
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give each request an id (the client's, if it sent a sane one) and each exception its answer."""
    known_as = request[REQUEST_ID] = request_id(request.headers.get("X-Request-Id", ""))
    try:
        response = await handler(request)
    except ConnectionError:
        raise  # a write to a client that went away; there is nobody to answer
    except Exception as error:
        response = error_response(error, request)
    response.headers["X-Request-Id"] = known_as
    return response


def request_id(sent: str) -> str:
    """What a request is known as: as its client says, if that is sane."""
    return sent if _SANE_ID.fullmatch(sent) else uuid4().hex[:16]


def error_response(error: Exception, request: web.Request) -> web.Response:
    """The answer in Modelium's own shape: ``{"error", "type"}``."""
    match error:
        case web.HTTPRequestEntityTooLarge():
            return _said(body_too_large(request))
        case web.HTTPNotFound():
            meant = nearest_path(request.path) or "/predict/NAME or /models"
            return _response(f"nothing is served at {shown_path(request.path)}; try {meant}", "not_found", 404)
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            message = f"{shown_path(request.path)} takes {allowed}, not {request.method}"
            return _response(message, "method_not_allowed", 405, {"Allow": allowed})
        case web.HTTPException():
            return _response(error.reason, "bad_request", error.status)
        case QueueFull():
            return _said(error, {"Retry-After": str(math.ceil(error.retry_after_s))})
        case Unauthorized():
            return _said(error, CHALLENGE)
        case NoModelCalled() if sent := request.match_info.get("model"):  # in the words that the client used
            return _said(type(error)(printable(sent, longest=None), error.hint))
        case _:
            said = presentable(error, request)
            telling = request.app.get(TELLING)
            if telling is None:  # the port of the metrics has no models
                return _said(said)
            words, headers = telling.words(said, request), telling.headers(said, request)
            return _response(words, said.type, status_of(said), headers)


def body_too_large(request: web.Request) -> BodyTooLarge:
    """The error for a body beyond the limit of the application that ``request`` went to."""
    limit = human_bytes(request.app[MAX_BODY_BYTES])
    return BodyTooLarge(f"the body is larger than {limit}; gateway.max_body_bytes allows more")


def presentable(error: Exception, request: web.Request) -> ModeliumError:
    """What may be said of ``error``: itself, or for what nobody expected an id that is in the log."""
    if isinstance(error, ModeliumError) and status_of(error) != 500:
        return error
    known_as = request[REQUEST_ID]
    logger.error("request %s: %s %s failed", known_as, request.method, request.path, exc_info=error)
    return ModeliumError(f"something broke inside Modelium; its log has the cause under {known_as}")


def break_off(request: web.Request, response: web.StreamResponse, error: Exception) -> web.StreamResponse:
    """What has begun cannot become an error, and a whole body would look like a whole answer."""
    request[BROKEN_OFF] = CLIENT_GONE if isinstance(error, ConnectionError) else status_of(presentable(error, request))
    if request.transport is not None:
        request.transport.close()
    return response


def _said(error: ModeliumError, headers: Mapping[str, str] | None = None) -> web.Response:
    return _response(str(error), error.type, status_of(error), headers)


def _response(message: str, kind: str, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    return json_response({"error": message, "type": kind}, status=status, headers=headers)

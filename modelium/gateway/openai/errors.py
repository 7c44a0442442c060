"""Errors in OpenAI's shape: exceptions enter, ``{"error": {"message", "type", "param", "code"}}`` leaves.

The statuses are chosen by what OpenAI's clients do with them: they try again on 408, 409, 429 and 5xx unless
``x-should-retry`` says no, and they know a class for each of 400, 404, 409, 422, 429 and 5xx.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from aiohttp import web

from modelium.errors import (
    BodyTooLarge,
    ContextExceeded,
    DeadlineExceeded,
    InferenceFailed,
    LoadFailed,
    ModeliumError,
    NotFinite,
    NotServable,
    QueueFull,
    RequestError,
    TooMuchUnderWay,
    Unauthorized,
    UnknownModel,
)
from modelium.gateway.http.errors import body_too_large, presentable
from modelium.gateway.http.keys import CHALLENGE
from modelium.gateway.http.paths import nearest_path, shown_path
from modelium.gateway.http.statuses import status_of
from modelium.gateway.http.telling import TELLING

_AGAIN_IS_NO_USE = {"x-should-retry": "false"}


class BadRequest(RequestError):
    """A request that cannot be answered as it stands; ``param`` is the field that is to blame."""

    type = "invalid_request_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a client is told about an error."""

    status: int
    kind: str
    message: str
    code: str | None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, object]:
        """The answer's JSON."""
        said = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": said}


def described(error: ModeliumError) -> Description:
    """``error`` in OpenAI's words."""
    kind, status, code, param = "invalid_request_error", status_of(error), error.type, None
    headers: Mapping[str, str] = {}
    match error:
        case BadRequest():
            return Description(status=status, kind=kind, message=str(error), code=error.code, param=error.param)
        case Unauthorized():
            code, headers = "invalid_api_key", CHALLENGE
        case UnknownModel():
            code, param = "model_not_found", "model"
        case NotFinite():
            kind, code, headers = "server_error", error.type, _AGAIN_IS_NO_USE
        case TooMuchUnderWay():
            kind, headers = "server_error", {"Retry-After": str(math.ceil(error.retry_after_s))}
        case QueueFull():  # the one that a client should take at its word: come back later
            kind, status, headers = "rate_limit_error", 429, {"Retry-After": str(math.ceil(error.retry_after_s))}
        case NotServable() | DeadlineExceeded() | LoadFailed():
            kind, headers = "server_error", _AGAIN_IS_NO_USE
        case ContextExceeded():
            status, code = 400, "context_length_exceeded"
        case InferenceFailed():
            status = 400
        case BodyTooLarge():
            pass
        case RequestError():
            status, param = 400 if status == 422 else status, error.param
        case _:
            kind = "server_error"
            headers = _AGAIN_IS_NO_USE if status == 500 else {}
    return Description(status=status, kind=kind, message=str(error), code=code, param=param, headers=headers)


def told(error: ModeliumError, request: web.Request) -> Description:
    """The same for who asked: without places on this machine, and with when to come back where a load goes on."""
    said, telling = described(error), request.app[TELLING]
    return replace(said, message=telling.words(error, request), headers={**said.headers, **telling.headers(error, request)})


def described_any(error: Exception, request: web.Request) -> Description:
    """Whatever went wrong, in OpenAI's words."""
    match error:
        case web.HTTPRequestEntityTooLarge():
            return described(body_too_large(request))
        case web.HTTPNotFound():
            served = nearest_path(request.path) or "/v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models"
            return _plain(404, f"nothing is served at {shown_path(request.path)}; there are {served}", "unknown_url")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            message = f"{shown_path(request.path)} takes {allowed}, not {request.method}"
            return _plain(405, message, "method_not_supported", {"Allow": allowed})
        case web.HTTPException():
            return _plain(error.status, error.reason, "bad_request")
        case _:
            return told(presentable(error, request), request)


def _plain(status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> Description:
    return Description(status=status, kind="invalid_request_error", message=message, code=code, headers=headers or {})

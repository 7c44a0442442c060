"""The time that a request has: the configuration and the ``X-Request-Timeout`` header enter, a ``Deadline`` leaves."""

from __future__ import annotations

import math

from aiohttp import web

from modelium.errors import InvalidBody
from modelium.gateway.deadline import Deadline

HEADER = "X-Request-Timeout"
MAX_TIMEOUT_S: web.AppKey[float] = web.AppKey("max_timeout_s", float)


def deadline_of(request: web.Request, default_s: float) -> Deadline:
    """The request's deadline: the header if it has one, in seconds, as far as the configuration lets it."""
    most_s = max(request.app[MAX_TIMEOUT_S], default_s)
    sent = request.headers.get(HEADER)
    if sent is None:
        return usual_deadline(default_s, most_s)
    try:
        timeout_s = float(sent)
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s < math.inf:
        raise InvalidBody(f"{HEADER}: expected a number of seconds above 0, found {sent!r}")
    return _deadline(min(timeout_s, most_s), most_s)


def usual_deadline(default_s: float, most_s: float) -> Deadline:
    """That of a request that does not say how long it may take; ``most_s``: what it could have said."""
    return _deadline(default_s, max(most_s, default_s))


def _deadline(timeout_s: float, most_s: float) -> Deadline:
    if timeout_s < most_s:
        return Deadline(timeout_s, f"allow more with the {HEADER} header or gateway.request_timeout_seconds")
    return Deadline(timeout_s, "gateway.max_request_timeout_seconds allows more")

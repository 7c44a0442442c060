"""The time that a request has: the configuration and the ``X-Request-Timeout`` header enter, remaining seconds leave."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from time import monotonic

from aiohttp import web

from modelium.errors import DeadlineExceeded, InvalidBody

HEADER = "X-Request-Timeout"
MAX_TIMEOUT_S: web.AppKey[float] = web.AppKey("max_timeout_s", float)


@dataclass(frozen=True, slots=True)
class Deadline:
    """Counts from its making."""

    timeout_s: float
    most_s: float = math.inf  # that a header may ask for
    started_at: float = field(default_factory=monotonic)

    def elapsed_s(self) -> float:
        return monotonic() - self.started_at

    def remaining_s(self) -> float:
        """Seconds left; raises ``DeadlineExceeded`` when there are none."""
        left = self.timeout_s - self.elapsed_s()
        if left <= 0:
            raise self.exceeded()
        return left

    def exceeded(self, during: str = "") -> DeadlineExceeded:
        more = (
            f"allow more with the {HEADER} header or gateway.request_timeout_seconds"
            if self.timeout_s < self.most_s
            else "gateway.max_request_timeout_seconds allows more"
        )
        return DeadlineExceeded(f"no answer within {self.timeout_s:g} s{during}; {more}")


def deadline_of(request: web.Request, default_s: float) -> Deadline:
    """The request's deadline: the header if it has one, in seconds, as far as the configuration lets it."""
    most_s = max(request.app[MAX_TIMEOUT_S], default_s)
    sent = request.headers.get(HEADER)
    if sent is None:
        return Deadline(default_s, most_s)
    try:
        timeout_s = float(sent)
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s < math.inf:
        raise InvalidBody(f"{HEADER}: expected a number of seconds above 0, found {sent!r}")
    return Deadline(min(timeout_s, most_s), most_s)

"""What a client is told of an error beside its words: an error and a request enter, the sentence and headers leave.

Whether it helps to come back depends on what the model is doing now, and a folder of the server's machine is nobody's business
but its owner's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aiohttp import web

from modelium.errors import (
    DeadlineExceeded,
    LoadFailed,
    ModelGone,
    ModeliumError,
    NotServable,
    TritonUnavailable,
    UnknownModel,
)
from modelium.gateway.http.counting import MODEL
from modelium.gateway.places import Places
from modelium.values import State

if TYPE_CHECKING:
    from modelium.controller import Controller
    from modelium.values import ModelStatus

_WAIT_S, _LONGEST_WAIT_S = 5.0, 30.0  # for a load of which nothing is known; clients take no more than a minute for serious


class Telling:
    """``places``: what is left out of all words."""

    def __init__(self, controller: Controller, places: Places) -> None:
        self._controller = controller
        self._places = places

    def words(self, error: ModeliumError, request: web.Request) -> str:
        """The sentence, without places on this machine."""
        status, said = self._status(request), str(error)
        left = status is not None and (status.state.leaves or status.state is State.UNLOADED)
        if status is not None and left and isinstance(error, ModelGone | TritonUnavailable):
            said = f"{status.name!r} was unloaded in the middle of its answer: {status.reason}"
        return self._places.left_out_of(said)

    def without_places(self, said: str) -> str:
        """The same of what is no error."""
        return self._places.left_out_of(said)

    def again_in_s(self, error: ModeliumError, request: web.Request) -> int | None:
        """When to come back; None where that is no use, or not known. A load goes on without who asked for it."""
        status = self._status(request)
        if status is None or not isinstance(error, NotServable | DeadlineExceeded | LoadFailed | ModelGone | TritonUnavailable):
            return None
        if status.state is State.LOADING:
            seconds = min(status.load_seconds or _WAIT_S, _LONGEST_WAIT_S)
        elif status.retry_in_s is not None and not status.quarantined:
            seconds = status.retry_in_s
        elif isinstance(error, DeadlineExceeded) and (status.state is State.UNLOADED or status.state.leaves):
            seconds = _WAIT_S  # it waits for its turn, or for room
        else:
            return None
        return max(1, math.ceil(seconds))

    def headers(self, error: ModeliumError, request: web.Request) -> Mapping[str, str]:
        """OpenAI's clients try again where ``x-should-retry`` says so."""
        seconds = self.again_in_s(error, request)
        return {} if seconds is None else {"Retry-After": str(seconds), "x-should-retry": "true"}

    def _status(self, request: web.Request) -> ModelStatus | None:
        if not (name := request.get(MODEL)):
            return None
        try:
            return self._controller.status(name)
        except UnknownModel:
            return None


TELLING: web.AppKey[Telling] = web.AppKey("telling", Telling)

"""What a client is told of an error beside its words: an error and a request enter, the sentence and headers leave.

Whether it helps to come back depends on what the model is doing now, and a folder of the server's machine is nobody's business
but its owner's.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from modelium.config import Settings
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
from modelium.values import State

if TYPE_CHECKING:
    from modelium.controller import Controller
    from modelium.values import ModelStatus

_WAIT_S, _LONGEST_WAIT_S = 5.0, 30.0  # for a load of which nothing is known; clients take no more than a minute for serious


class Telling:
    """``directories``: of this machine; in an answer what lies in them has no more than its name there."""

    def __init__(self, controller: Controller, directories: Iterable[Path]) -> None:
        self._controller = controller
        names = sorted({path for each in directories for path in _spellings(each)}, key=len, reverse=True)
        self._places = re.compile("|".join(f"{re.escape(name)}(?![\\w.-])/?" for name in names)) if names else None

    def words(self, error: ModeliumError, request: web.Request) -> str:
        """The sentence, without places on this machine."""
        status, said = self._status(request), str(error)
        left = status is not None and (status.state.leaves or status.state is State.UNLOADED)
        if status is not None and left and isinstance(error, ModelGone | TritonUnavailable):
            said = f"{status.name!r} was unloaded in the middle of its answer: {status.reason}"
        return self._places.sub(_inside, said) if self._places is not None else said

    def again_in_s(self, error: ModeliumError, request: web.Request) -> int | None:
        """When to come back; None where that is no use, or not known. A load goes on without who asked for it."""
        status = self._status(request)
        if status is None or not isinstance(error, NotServable | DeadlineExceeded | LoadFailed | ModelGone | TritonUnavailable):
            return None
        if status.state is State.LOADING:
            seconds = min(status.load_seconds or _WAIT_S, _LONGEST_WAIT_S)
        elif status.retry_in_s is not None and not status.quarantined:
            seconds = status.retry_in_s
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


def directories_of(settings: Settings) -> list[Path]:
    """Where Modelium keeps and reads things."""
    own = (settings.triton.model_repository, settings.triton.state_directory, settings.triton.runtime_directory)
    return [
        *settings.orchestration.model_discovery.watch_directories,
        *own,
        Path.cwd(),
        Path.home(),
        Path(tempfile.gettempdir()),
    ]


def _spellings(directory: Path) -> set[str]:
    """As it is written, and as it is; not the root, and not a place that is written from here."""
    found = {str(directory.absolute()), str(directory.resolve())}
    return {name for name in found if len(Path(name).parts) > 1}


def _inside(found: re.Match[str]) -> str:
    """``/a/incoming/m/x`` is ``m/x``; the directory alone has its last name."""
    return "" if found[0].endswith("/") else Path(found[0]).name

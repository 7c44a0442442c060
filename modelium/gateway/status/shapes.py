"""What is answered about Modelium itself, where ``views`` has no kind for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NotRequired

from typing_extensions import TypedDict

from modelium.views import Listing, Server, Summary


class Error(TypedDict):
    """What happened and what to do. Clients may branch on ``type``."""

    error: str
    type: str
    error_type: NotRequired[str]


class Alive(TypedDict):
    """Whether the controller's loop runs."""

    alive: bool


class Ready(TypedDict):
    """Whether requests for models can be answered."""

    ready: bool
    scanned: bool
    triton: Server


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModels(Listing):
    """``GET /models``."""

    models: tuple[Summary, ...] = ()  # type: ignore[assignment]

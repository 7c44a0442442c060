"""What a route is: what a handler takes, gives and fails with enters beside it, for whoever documents the routes (``openapi``).

A handler has its description where it is written, so that who changes the one sees the other. The kinds are those that the
code reads bodies into and makes answers of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from modelium import errors

JSON = "application/json"
EVENTS = "text/event-stream"
FORM = "multipart/form-data"
TEXT = "text/plain"
ANYTHING = "*/*"

H = TypeVar("H", bound=Callable[..., Any])
Failures = tuple[type[errors.ModeliumError], ...]

# What a request can run into, by what is done with it.
ANYWHERE: Failures = (
    errors.ModeliumError, errors.Unauthorized, errors.OtherSite, errors.UnknownHost, errors.UnsupportedMediaType,
    errors.QueueFull, errors.InvalidBody,
)  # fmt: skip
READING: Failures = (
    errors.RequestError, errors.BodyTooLarge, errors.UnsupportedEncoding, errors.TooMuchUnderWay, errors.DeadlineExceeded,
)  # fmt: skip
NAMING: Failures = (errors.UnknownModel, errors.DeadlineExceeded)
ASKING: Failures = (
    *NAMING, errors.NotServable, errors.LoadFailed, errors.KeyQueueFull, errors.TritonUnavailable, errors.RayUnavailable,
    errors.ModelGone, errors.TritonError, errors.NotFinite, errors.InferenceFailed,
)  # fmt: skip
LOADING: Failures = (
    *NAMING, errors.NotServable, errors.LoadFailed, errors.KeyQueueFull, errors.Conflict, errors.TritonUnavailable,
    errors.RayUnavailable, errors.TritonError,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer that is no error. ``kind``: of its body, as JSON; None: nothing, or no JSON. ``status``: 0 for whichever
    somebody else answers with, which is passed on."""

    kind: Any = None
    content_type: str = JSON
    status: int = 200
    says: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """``takes``: the kind of the body, None for none; ``file``: the part of a form that has the file. ``fails``: besides what
    any request can run into. ``query``: names, and what each is for. ``example``: a body. ``at``: of which of a handler's
    routes this is said: those whose path ends so."""

    says: str
    takes: Any = None
    takes_as: str = JSON
    file: str = ""
    gives: tuple[Reply, ...] = ()
    fails: Failures = ()
    query: Mapping[str, str] = field(default_factory=dict)
    example: object = None
    at: str = ""

    @property
    def failures(self) -> Failures:
        """All of them, each once."""
        return tuple(dict.fromkeys((*ANYWHERE, *self.fails)))


def describes(
    says: str,
    *,
    takes: Any = None,
    takes_as: str = JSON,
    file: str = "",
    gives: Any = None,
    also: tuple[Reply, ...] = (),
    fails: Failures = (),
    query: Mapping[str, str] | None = None,
    example: object = None,
    at: str = "",
) -> Callable[[H], H]:
    """Of the handler below it. ``gives``: the kind of its JSON, or a ``Reply``; ``also``: what else it may answer."""
    first = gives if isinstance(gives, Reply) else Reply(kind=gives)
    described = Described(
        says=says,
        takes=takes,
        takes_as=takes_as,
        file=file,
        gives=(first, *also),
        fails=(*READING, *fails) if takes is not None else fails,
        query=query or {},
        example=example,
        at=at,
    )

    def remember(handler: H) -> H:
        handler.__dict__.setdefault(_KEY, []).append(described)
        return handler

    return remember


def description_of(route: web.AbstractRoute) -> Described | None:
    """What is said of the route, most precisely."""
    path = route.resource.canonical if route.resource is not None else ""
    said: list[Described] = getattr(route.handler, _KEY, [])
    return max((one for one in said if path.endswith(one.at)), key=lambda one: len(one.at), default=None)


_KEY = "described"

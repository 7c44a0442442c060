"""The errors of a route as a document lists them: a path and its description enter, statuses and codes leave, in the shape that
the path's clients know. The tables are those by which errors are answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelium.errors import BodyTooLarge, ModeliumError, QueueFull
from modelium.gateway.http.describing import Described
from modelium.gateway.http.statuses import status_of
from modelium.gateway.neighbours.errors import Shape, anthropics, openais, shape_of
from modelium.gateway.neighbours.shapes import AnthropicError
from modelium.gateway.openai.errors import described
from modelium.gateway.openai.shapes import OpenAIError
from modelium.gateway.status.shapes import Error

_OF_SHAPES: Mapping[Shape | None, Any] = {None: Error, openais: OpenAIError, anthropics: AnthropicError}
KINDS = tuple(_OF_SHAPES.values())
_TOO_SLOW = (408, "bad_request")  # a body that came too slowly


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """All errors of one status. ``codes``: their words, ``types`` where those are all that the field ``type`` can be."""

    status: int
    kind: Any
    codes: tuple[str, ...]
    types: tuple[str, ...] = ()


def failures_of(path: str, one: Described) -> list[Failure]:
    """By status."""
    shape = shape_of(path)
    codes: dict[int, dict[str, None]] = {}
    for status, code in _told(shape, one):
        codes.setdefault(status, {})[code] = None
    return [
        Failure(status=status, kind=_OF_SHAPES[shape], codes=tuple(found), types=tuple(found) if shape is None else ())
        for status, found in sorted(codes.items())
    ]


def words_of(failure: Failure) -> str:
    """For the description of a response."""
    return ", ".join(f"`{code}`" for code in failure.codes)


def _told(shape: Shape | None, one: Described) -> Iterator[tuple[int, str]]:
    for kind in one.failures:
        if shape is None:
            yield status_of(kind), kind.type
        else:
            said = described(_made(kind))
            yield said.status, said.code or said.kind
    if BodyTooLarge in one.failures:
        yield _TOO_SLOW


def _made(kind: type[ModeliumError]) -> ModeliumError:
    return kind("", 1.0) if issubclass(kind, QueueFull) else kind("")

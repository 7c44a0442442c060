"""Names in a request's body that nobody here knows, at every depth: a body and its kind enter, their paths leave.

One rule: a name that the kind has no field for is unknown, unless it is on the kind's list of harmless ones (``harmless``):
what clients send that changes nothing about a local model's answer. Null asks for nothing. Every other value may ask for
something, false as well: it turns off what is on by default.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydantic import BaseModel

_NEARLY = 0.85  # of difflib: temprature is, typical_p (of top_p) is not
_MOST = 20
_LONGEST = 100  # characters that are compared

Kinds = tuple[type[BaseModel], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """``path`` has no places of lists: ``tools.function.strcit``. ``meant``: the nearest name there is, "" for none."""

    path: str
    name: str
    meant: str = ""


def unknown_names(kind: type[BaseModel], body: Mapping[str, object]) -> list[Unknown]:
    """Each path once, in the order of the body, and not more than twenty."""
    found: dict[str, tuple[str, Kinds]] = {}
    for path, name, kinds in _walk((kind,), body, ""):
        found.setdefault(path, (name, kinds))
        if len(found) == _MOST:
            break
    return [Unknown(path=path, name=name, meant=_meant(name, kinds)) for path, (name, kinds) in found.items()]


def _walk(kinds: Kinds, sent: Mapping[str, object], place: str) -> Iterator[tuple[str, str, Kinds]]:
    fields = _fields(kinds)
    for name, value in sent.items():
        inner = fields.get(name)
        if inner is None:
            if value is not None and not any(name in getattr(kind, "harmless", ()) for kind in kinds):
                yield f"{place}{name}", name, kinds
        elif inner:
            for one in value if isinstance(value, list) else (value,):
                if isinstance(one, dict):
                    yield from _walk(inner, one, f"{place}{name}.")


@lru_cache(maxsize=64)
def _fields(kinds: Kinds) -> dict[str, Kinds]:
    """What these kinds have together, each with the kinds of objects in it: a union's fields are those of all its branches."""
    found: dict[str, Kinds] = {}
    for kind in kinds:
        for name, field in kind.model_fields.items():
            for known in {name, field.alias or name}:
                found[known] = (*found.get(known, ()), *_kinds_in(field.annotation))
    return found


def _kinds_in(annotation: object) -> Kinds:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    return tuple(kind for part in typing.get_args(annotation) for kind in _kinds_in(part))


def _meant(name: str, kinds: Kinds) -> str:
    near: Sequence[str] = difflib.get_close_matches(name[:_LONGEST], _fields(kinds), n=1, cutoff=_NEARLY)
    return near[0] if near else ""

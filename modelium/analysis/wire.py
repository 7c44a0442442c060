"""What goes over a worker's pipes: a request is a pickle of ours, an answer is JSON that is held against the types.

A list of requests goes behind its length (4 bytes), a message of the worker behind its kind (1) and its length (4).

A worker that was taken over by what it read may send anything, so its answer is never unpickled: it is bounded, parsed, built
field by field from the types of ``modelium.values``, and cleaned again.
"""

from __future__ import annotations

import functools
import json
import os
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from modelium.analyzers.cleaning import clean
from modelium.values import AdapterProfile, Analysis, Incomplete, ModelProfile, Unsupported

MOST_REMEMBERED = 2**18  # characters
MAX_ANSWER_BYTES = 8 * 2**20  # each list in it is of a mebibyte at most: see cleaning
READY, CHILD, ANSWER, ENDED = b"r", b"c", b"a", b"e"  # what a worker says: its child's pid, an answer, how the child ended
SPENT = b'{"spent": true}'  # it took more memory than it may
_KINDS: dict[str, type[ModelProfile | AdapterProfile | Incomplete | Unsupported]] = {
    kind.__name__: kind for kind in (ModelProfile, AdapterProfile, Incomplete, Unsupported)
}


class BadAnswer(Exception):
    """No answer that a worker of ours gives."""


def encode(analysis: Analysis, remembered: str = "") -> bytes:
    """What ``decode`` takes."""
    return json.dumps({"kind": type(analysis).__name__, "value": _plain(analysis), "remembered": remembered}).encode()


def decode(data: bytes) -> Analysis:
    """The analysis in ``data``. Raises ``BadAnswer``."""
    return decode_both(data)[0]


def decode_both(data: bytes) -> tuple[Analysis, str]:
    """The analysis in ``data``, and what is for the next look at the same folder alone. Raises ``BadAnswer``."""
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        raise BadAnswer("it is no JSON") from None
    if not isinstance(answer, dict) or not isinstance(name := answer.get("kind"), str) or name not in _KINDS:
        raise BadAnswer(f"it is no object whose kind is one of {', '.join(_KINDS)}")
    if "value" not in answer:
        raise BadAnswer("it has no value")
    try:
        kind: Any = _KINDS[name]
        found: Analysis = _builder(kind)(answer["value"])
        remembered = answer.get("remembered", "")
        return clean(found), remembered if isinstance(remembered, str) and len(remembered) <= MOST_REMEMBERED else ""
    except (TypeError, ValueError) as error:
        raise BadAnswer(str(error)[:200]) from None
    except Exception as error:  # whatever was sent
        raise BadAnswer(f"{type(error).__name__}: {error}"[:200]) from None


def _plain(value: object) -> object:
    match value:
        case Enum():
            return value.value
        case Path():
            return os.fspath(value)
        case tuple() | list():
            return [_plain(each) for each in value]
        case Mapping():
            return {key: _plain(each) for key, each in value.items()}
        case _ if is_dataclass(value):
            return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
        case _:
            return value


@functools.cache
def _builder(hint: Any) -> Callable[[Any], Any]:
    """What makes of a value of JSON's what ``hint`` says. It raises ``TypeError`` or ``ValueError``."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        (some,) = (each for each in get_args(hint) if each is not type(None))
        build_some = _builder(some)
        return lambda value: None if value is None else build_some(value)
    if origin is tuple:
        build_each = _builder(get_args(hint)[0])
        return lambda value: tuple([build_each(each) for each in _of(list, value)])
    if origin is not None and issubclass(origin, Mapping):
        return lambda value: _of(dict, value)  # of JSON's own values
    if is_dataclass(hint):
        return _builder_of(hint)  # type: ignore[arg-type]
    if hint is Path or (isinstance(hint, type) and issubclass(hint, Enum)):
        return lambda value: hint(_of(str, value))
    if hint is float:
        return lambda value: float(value) if type(value) is int else _of(float, value)
    return lambda value: _of(hint, value)


def _builder_of(kind: type) -> Callable[[Any], Any]:
    builders = {name: _builder(hint) for name, hint in get_type_hints(kind).items()}
    needed = {each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING}

    def build(value: Any) -> Any:
        given = _of(dict, value)
        if odd := sorted(given.keys() - builders.keys()) or sorted(needed - given.keys()):
            raise TypeError(f"{kind.__name__} {'lacks' if odd[0] in needed else 'has no'} field {odd[0]:.40}")
        return kind(**{name: builders[name](each) for name, each in given.items()})

    return build


_IN_JSON: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "a boolean",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{_IN_JSON[type(value)]} stands where {_IN_JSON.get(kind, kind.__name__)} belongs")
    return value

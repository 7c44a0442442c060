"""What goes over a worker's pipes: a request is a pickle of ours, an answer is JSON that is held against the types.

A worker that was taken over by what it read may send anything, so its answer is never unpickled: it is bounded, parsed, built
field by field from the types of ``modelium.values``, and cleaned again.
"""

from __future__ import annotations

import functools
import json
import os
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from modelium.analyzers.cleaning import clean
from modelium.values import AdapterProfile, Analysis, Incomplete, ModelProfile, Unsupported

MAX_ANSWER_BYTES = 32 * 2**20
READY = b"{}"
SPENT = b'{"spent": true}'  # it took more memory than it may
_KINDS: dict[str, type[ModelProfile | AdapterProfile | Incomplete | Unsupported]] = {
    kind.__name__: kind for kind in (ModelProfile, AdapterProfile, Incomplete, Unsupported)
}


class BadAnswer(Exception):
    """No answer that a worker of ours gives."""


def encode(analysis: Analysis) -> bytes:
    return json.dumps({"kind": type(analysis).__name__, "value": _plain(analysis)}).encode()


def decode(data: bytes) -> Analysis:
    """The analysis in ``data``. Raises ``BadAnswer``."""
    try:
        answer = json.loads(data)
        found: Analysis = _build(_KINDS[answer["kind"]], answer["value"])
        return clean(found)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
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
def _types_of(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _build(hint: Any, value: Any) -> Any:
    """``value`` as what ``hint`` says. Raises ``TypeError`` or ``ValueError``."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        (hint,) = (each for each in get_args(hint) if each is not type(None))
        return _build(hint, value)
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(value)
        return tuple(_build(get_args(hint)[0], each) for each in value)
    if origin is not None and issubclass(origin, Mapping):  # of JSON's own values
        if not isinstance(value, dict):
            raise TypeError(value)
        return value
    if is_dataclass(hint):
        known = _types_of(hint)  # type: ignore[arg-type]
        return hint(**{name: _build(known[name], each) for name, each in value.items()})  # type: ignore[operator]
    if hint is Path or (isinstance(hint, type) and issubclass(hint, Enum)):
        if not isinstance(value, str):
            raise TypeError(value)
        return hint(value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise TypeError(f"{value!r:.40} is no {hint}")
    return value

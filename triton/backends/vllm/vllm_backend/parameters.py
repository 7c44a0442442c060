"""Sampling parameters as clients send them → values of the types of vLLM's fields, or a sentence that names the wrong one.

What enters: a JSON object and the fields with their types (from vLLM's own class, so a new version's fields are known here).
What leaves: typed values. Strings are taken for numbers and flags, as the stock backend takes them ("0.7", "true"): a request's
parameters can carry nothing deeper than strings, so lists and objects may come as JSON text too.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import BadRequest

_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class _Misfit(Exception):
    """A value is not what its field takes."""


def read_parameters(given: Mapping[str, Any], fields: Mapping[str, Any], *, others: Iterable[str] = ()) -> dict[str, Any]:
    """``others`` are names that are known too, but read elsewhere."""
    values = {}
    for name, value in given.items():
        if name not in fields:
            raise BadRequest(f"unknown sampling parameter '{name}'{suggest(name, (*fields, *others))}")
        try:
            values[name] = coerce(value, fields[name])
        except _Misfit as misfit:
            raise BadRequest(f"invalid sampling parameter '{name}': {misfit}") from None
    return values


def suggest(name: str, known: Iterable[str]) -> str:
    """
    >>> suggest("temprature", ["temperature", "top_p"])
    "; did you mean 'temperature'?"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    parts = [one for one in names if min(len(one), len(name)) > 3 and (one in name.lower() or name.lower() in one)]
    near += [one for one in parts if one not in near][:2]
    return f"; did you mean {' or '.join(repr(one) for one in near)}?" if near else f"; known are {', '.join(names)}"


def coerce(value: Any, kind: Any) -> Any:
    """``value`` as a ``kind``, which is a type annotation; a kind that is not understood takes anything."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return coerce(value, inner[0])
    if origin in (typing.Union, types.UnionType):
        return _one_of(value, inner)
    if kind in (bool, int, float, str):
        return _scalar(value, kind)
    if origin is list or kind is list:
        if not isinstance(value := _opened(value), list):
            raise _Misfit(f"{_show(value)} is not a list")
        return [coerce(one, inner[0]) for one in value] if inner else value
    if origin is dict or kind is dict:
        if not isinstance(value := _opened(value), dict):
            raise _Misfit(f"{_show(value)} is not an object")
        return {coerce(key, inner[0]): coerce(one, inner[1]) for key, one in value.items()} if inner else value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _construct(_opened(value), kind)
    return value


def _one_of(value: Any, kinds: tuple[Any, ...]) -> Any:
    """The alternative that fits as it is wins over one that needs a conversion: "5" stays text where text is taken."""
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    exact = [kind for kind in kinds if isinstance(value, typing.get_origin(kind) or (kind if isinstance(kind, type) else ()))]
    misfits = []
    for kind in (*exact, *kinds):
        try:
            return coerce(value, kind)
        except _Misfit as misfit:
            misfits.append(str(misfit))
    raise _Misfit(misfits[0])


def _scalar(value: Any, kind: type) -> Any:
    text = value.strip() if isinstance(value, str) else value
    if kind is str and isinstance(value, str):
        return value
    if kind is bool:
        flag = _FLAGS.get(str(text).lower()) if isinstance(text, (str, bool, int)) else None
        if flag is not None:
            return flag
    elif kind in (int, float) and isinstance(text, (str, int, float)) and not isinstance(text, bool):
        try:
            number = float(text) if kind is float or isinstance(text, float) else int(text)
            if kind is float:
                return number
            if number == int(number):
                return int(number)
        except (ValueError, OverflowError):
            pass
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    raise _Misfit(f"{_show(value)} is not {words[kind]}")


def _opened(value: Any) -> Any:
    """JSON text of a list or an object."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise _Misfit(f"{_show(value)} is not JSON: {error}") from None
    return value


def _construct(value: Any, kind: type) -> Any:
    if not isinstance(value, dict):
        raise _Misfit(f"{_show(value)} is not an object")
    hints = typing.get_type_hints(kind)
    known = [one.name for one in dataclasses.fields(kind) if one.init]
    values = {}
    for name, one in value.items():
        if name not in known:
            raise _Misfit(f"it has no '{name}'{suggest(name, known)}")
        try:
            # A JSON schema may be an object or its text: where a text is taken, text stays what it is.
            values[name] = coerce(one, hints[name])
        except _Misfit as misfit:
            raise _Misfit(f"'{name}': {misfit}") from None
    try:
        return kind(**values)
    except Exception as error:
        raise _Misfit(str(error)) from None


def _show(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}…"

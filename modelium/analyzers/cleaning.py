"""The one place where what a folder says becomes values that everybody can show, send and compute with.

What enters: an ``Analysis`` whose texts and numbers are somebody else's. What leaves: the same with valid Unicode and words
of a bounded length, or ``Unsupported`` where a fact is larger than that of any model: half a surrogate pair, 2^64 parameters
or a class name of 5 MB would otherwise break every list that the model is in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TypeVar

from modelium.analyzers.verdict import Rejected, short_number
from modelium.names import printable
from modelium.values import Analysis, Incomplete, Unsupported

_T = TypeVar("_T")

_MOST_MISSING = 1_000  # parts that are listed
_MOST_ITEMS = 65_536  # of one list: ImageNet has 21,843 labels
_MOST_TEXT = 2**20  # of one list, in characters
_LONGEST = 1_024  # of one text that is a fact; a longer one is refused, since cut it would be another
_LONGEST_OF = {"labels": 4_096, "args": 65_536, "chat_templates": 2**18}
_WORDS = frozenset({"why", "hint", "detail", "file", "task_source"})  # for people: cut where they are longer
_LARGEST = 2**40
_LARGEST_OF = {
    **dict.fromkeys(
        (
            "parameters",
            "weight_bytes",
            "loaded_parameters",
            "loaded_bytes",
            "active_parameters",
            "state_bytes",
            "state_elements",
        ),
        2**50,
    ),
    **dict.fromkeys(("present_bytes", "expected_bytes"), 2**62),
    **dict.fromkeys(("heads", "kv_heads", "head_size", "value_head_size", "latent_width", "experts"), 2**20),
    **dict.fromkeys(("hidden_size", "intermediate_size", "embedding_width", "experts_per_token", "rank"), 2**24),
    "layers": 2**16,
    "dims": 2**63 - 1,
    "args": 2**53,
}


def clean(analysis: Analysis) -> Analysis:
    """``analysis`` as everybody may have it."""
    try:
        match analysis:
            case Incomplete(missing=missing) if len(missing) > _MOST_MISSING:
                analysis = replace(analysis, missing=missing[:_MOST_MISSING])
            case _:
                pass
        return _cleaned(analysis)
    except Rejected as verdict:
        return Unsupported(name=analysis.name, path=analysis.path, why=printable(verdict.why), hint=verdict.hint)


def _cleaned(whole: _T) -> _T:
    """A dataclass with each of its fields cleaned; itself where there was nothing to do."""
    changes: dict[str, object] = {}
    for each in fields(whole):  # type: ignore[arg-type]
        value = getattr(whole, each.name)
        better = _value(value, each.name)
        if better is not value:
            changes[each.name] = better
    return replace(whole, **changes) if changes else whole  # type: ignore[type-var]


def _value(value: object, name: str) -> object:
    match value:
        case None | bool() | float() | Enum() | Path():
            return value
        case str():
            return _text(value, name)
        case int():
            largest = _LARGEST_OF.get(name, _LARGEST)
            if not -largest <= value <= largest:
                raise Rejected(f"its {_said(name)} is {short_number(value)}, more than any model has", "is it damaged?")
            return value
        case tuple() | list():
            _bound_list(value, name)
            better = [_value(each, name) for each in value]
            if all(one is other for one, other in zip(better, value, strict=True)):
                return value
            return better if isinstance(value, list) else tuple(better)
        case Mapping():
            _bound_list(tuple(value), name)
            return {_text(str(key), name): _value(each, name) for key, each in value.items()}
        case _ if is_dataclass(value):
            return _cleaned(value)
        case _:
            raise TypeError(f"{name} is a {type(value).__name__}")  # a defect of ours: values are made of the above


def _bound_list(items: tuple[object, ...] | list[object], name: str) -> None:
    size = sum(len(each) for each in items if isinstance(each, str))
    if len(items) > _MOST_ITEMS or size > _MOST_TEXT:
        raise Rejected(
            f"it has {len(items):,} {_said(name)} of {size:,} characters in all; "
            f"at most {_MOST_ITEMS:,} of {_MOST_TEXT:,} are taken",
            "is it damaged?",
        )


def _text(text: str, name: str) -> str:
    if name in _WORDS:
        return printable(text)
    longest = _LONGEST_OF.get(name, _LONGEST)
    if len(text) > longest:
        raise Rejected(
            f"its {_said(name)} has {len(text):,} characters ({text[:40]!r} …); at most {longest:,} are taken", "is it damaged?"
        )
    return printable(text, longest=None)


def _said(name: str) -> str:
    return "number of " + name if name in ("parameters", "layers", "heads") else name.replace("_", " ")

"""Bodies of ``/v1`` requests: JSON enters, checked requests leave; what does not fit is refused with the field's name.

Four kinds of fields. Those that are honoured are declared in ``requests``; some have another server's name (``ALSO``). Those
that OpenAI's clients send and that change nothing about the answer of a local model are ignored (``harmless`` of each object).
Those that would change it and cannot be honoured are refused in words of their own (``UNAVAILABLE``). Any other, at whatever
depth, is unknown: left out, and the answer's header lists it with the name that may have been meant. A strict gateway refuses.
"""

from __future__ import annotations

import reprlib
from typing import TypeVar

from pydantic import ValidationError

from modelium.gateway.codecs.fields import shown
from modelium.gateway.codecs.json_text import load_json
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.requests import Generating, Request
from modelium.gateway.openai.unknown import Unknown, unknown_names

# What other servers call it: llama.cpp, Ollama, text-generation-inference.
ALSO = {
    "repeat_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
}
_UNLIMITED = frozenset({"n_predict", "num_predict"})  # below 0 they ask for no limit: that is to leave the field out
# Other servers' own fields whose names are near one of ours, beside it: OpenRouter's ``models`` are what to ask when ``model``
# fails.
_OTHERS_BESIDE = {"models": "model"}
_MOST_FIELDS = 128

_SCHEMA = 'send `response_format: {"type": "json_schema", "json_schema": {"schema": …}}` or `guided_json`'
UNAVAILABLE = {
    "functions": "the older form of `tools`; send those",
    "function_call": "the older form of `tool_choice`; send that",
    "audio": "no model here speaks",
    "web_search_options": "there is no web search here",
    "suffix": "text cannot be inserted before a suffix here; put the model's own fill-in-the-middle tokens into the prompt",
    "chat_template": "a request cannot bring its own template; put it into the model's folder as chat_template.jinja",
    "best_of": "sampling several answers and keeping the best is not offered; send `n` and choose",
    "use_beam_search": "beam search is not offered",
    # What llama.cpp, text-generation-inference, SGLang and Ollama call the form of an answer; who sends it relies on it.
    "json_schema": _SCHEMA,
    "format": _SCHEMA,
    "grammar": "send `guided_grammar`, `guided_regex` or `response_format`",
    "ebnf": "send `guided_grammar`",
    "regex": "send `guided_regex`",
}

R = TypeVar("R", bound=Request)


def parse(kind: type[R], data: bytes, *, strict: bool = False, model: str | None = None) -> R:
    """``strict``: unknown names are refused. ``model``: what the path says, which counts more than the body.

    Raises ``BadRequest`` with the first field that does not fit.
    """
    body = load_json(data)
    if not isinstance(body, dict):
        raise BadRequest(f"the body must be a JSON object, found {type(body).__name__}")
    return checked(kind, body, strict=strict, model=model)


def checked(kind: type[R], body: dict[str, object], *, strict: bool = False, model: str | None = None) -> R:
    """The same of a body that was read."""
    if model is not None:
        body["model"] = model
    for theirs, ours in ALSO.items():
        if theirs in _UNLIMITED and isinstance(limit := body.get(theirs), int) and limit < 0:
            continue
        if theirs in body and ours in kind.model_fields and body.get(ours) is None:
            body[ours] = body.pop(theirs)
    if len(body) > _MOST_FIELDS:
        raise BadRequest(f"the body has {len(body):,} fields; {_MOST_FIELDS} are more than any request has")
    for name, value in body.items():
        _check_available(kind, name, value)
    unknown = [_told(one, body) for one in unknown_names(kind, body) if one.path not in UNAVAILABLE]
    if strict and unknown:
        name, near = unknown[0].path, f"; did you mean {unknown[0].meant!r}?" if unknown[0].meant else ""
        raise BadRequest(f"{shown(name)}: unknown parameter{near}", param=shown(name), code="unknown_parameter")
    known = {name: value for name, value in body.items() if name in kind.model_fields and value is not None}
    try:
        request = kind.model_validate(known)
    except ValidationError as error:
        raise _first(error) from None
    if isinstance(request, Generating) and request.stream_options is not None and not request.stream:
        raise BadRequest("stream_options: are those of a stream; send stream: true, or leave them out", param="stream_options")
    request.leave_out(unknown)
    return request


def _check_available(kind: type[Request], name: str, value: object) -> None:
    """Raises ``BadRequest`` for what cannot be honoured, unless it asks for nothing: all of these are off by default."""
    if name not in UNAVAILABLE or name in kind.model_fields or value in (None, False, [], "", {}):
        return
    if name == "best_of" and value == 1:
        return
    raise BadRequest(f"{name}: {UNAVAILABLE[name]}", param=name, code="unsupported_parameter")


def _told(one: Unknown, body: dict[str, object]) -> Unknown:
    if body.get(_OTHERS_BESIDE.get(one.path, "")) is None:
        return one
    return Unknown(path=one.path, name=one.name)


def _first(error: ValidationError) -> BadRequest:
    """The deepest fault of the first field that has one: of a union's branches that is the one which fitted best."""
    faults = error.errors(include_url=False, include_context=False)
    head = faults[0]["loc"][0] if faults[0]["loc"] else ""
    fault = max((f for f in faults if f["loc"][:1] == (head,)), key=lambda f: len(f["loc"]))
    where = [str(part) for part in fault["loc"] if isinstance(part, int) or _is_field(str(part))]
    place = shown(".".join(where))
    if fault["type"] == "extra_forbidden":
        return BadRequest(f"{place}: unknown parameter", param=place, code="unknown_parameter")
    if fault["type"] == "missing":
        return BadRequest(f"{place}: is missing", param=place, code="missing_required_parameter")
    return BadRequest(f"{place}: {fault['msg']} (found {_short(fault['input'])})", param=place, code="invalid_value")


def _is_field(part: str) -> bool:
    """pydantic puts the names of a union's branches (``list[Part]``) into the place; users do not know them."""
    return part.replace("_", "").isalnum() and part.islower() and part not in ("str", "int", "float", "bool", "dict", "list")


_SHORTENED = reprlib.Repr()  # looks at the beginning only
_SHORTENED.maxstring = _SHORTENED.maxother = 80


def _short(value: object) -> str:
    if isinstance(value, dict | list) and len(value) > 20:
        return f"{len(value)} of them"
    text = _SHORTENED.repr(value)
    return text if len(text) <= 80 else text[:77] + "…"

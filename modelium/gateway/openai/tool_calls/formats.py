"""How families of models write tool calls: a stretch of generated text enters, the calls in it leave, or None: it is no call.

Each reader takes what stands between the family's markers. Models make mistakes, so a reader that cannot read says so and the
stretch stays text. What a model writes may be long, so nothing here looks at it more than a few times over.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps

import orjson

from modelium.values import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """``arguments`` is the text of a JSON object."""

    name: str
    arguments: str


Read = Callable[[str], "list[Call] | None"]
_DECODER = json.JSONDecoder(strict=False)  # models write newlines into strings
_BETWEEN = re.compile(r"[\s;]*")


def _careful(read: Read) -> Read:
    """What cannot be JSON in an answer (Infinity, half a character, too deep a nesting) makes no call."""

    @wraps(read)
    def careful(body: str) -> list[Call] | None:
        try:
            return read(body)
        except (ValueError, RecursionError):
            return None

    return careful


@_careful
def read_json(body: str) -> list[Call] | None:
    """One object or a list of them, or several after another: ``{"name": …, "arguments": …}`` (or ``parameters``)."""
    values: list[object] = []
    at = _skip(body, 0)
    while at < len(body):
        value, end = _DECODER.raw_decode(body, at)
        values += value if isinstance(value, list) else [value]
        at = _skip(body, end)
    return _calls(values)


def _skip(body: str, at: int) -> int:
    found = _BETWEEN.match(body, at)
    return found.end() if found is not None else at


@_careful
def read_tagged(body: str) -> list[Call] | None:
    """What ``<tool_call>`` encloses: JSON (Hermes, Qwen), parameters as tags (Qwen3-Coder), keys and values (GLM-4.5)."""
    if "<function=" in body:
        return _read_function_tags(body)
    if "<arg_key>" in body:
        return _read_argument_tags(body)
    return read_json(body)


@_careful
def read_keyed(body: str) -> list[Call] | None:
    """GLM-4.5: as above, and a name alone is a call without arguments."""
    return _read_argument_tags(body) if re.fullmatch(r"\s*[\w.-]+\s*", body) else read_tagged(body)


_FUNCTION = re.compile(r"<function=([^>\s]{1,256})>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]{1,256})>(.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)


def _read_function_tags(body: str) -> list[Call] | None:
    return [
        _call(name, {key: _value(text.removeprefix("\n").removesuffix("\n")) for key, text in _PARAMETER.findall(inside)})
        for name, inside in _FUNCTION.findall(body)
    ] or None


def _read_argument_tags(body: str) -> list[Call] | None:
    """``name``, then ``<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>`` again and again; the last may be unfinished."""
    name = body.partition("<arg_key>")[0].strip()
    arguments: dict[str, JsonValue] = {}
    at = len(body) if not name else 0
    while (key := _between(body, "<arg_key>", "</arg_key>", at)) is not None:
        value = _between(body, "<arg_value>", "</arg_value>", key[1])
        if value is None:
            break
        arguments[key[0].strip()] = _value(value[0])
        at = value[1]
    return [_call(name, arguments)] if name else None


def _between(body: str, start: str, end: str, at: int) -> tuple[str, int] | None:
    """The text from the next ``start`` to the ``end`` after it, and where that ends."""
    begin = body.find(start, at)
    stop = body.find(end, begin + len(start)) if begin >= 0 else -1
    return (body[begin + len(start) : stop], stop + len(end)) if stop >= 0 else None


@_careful
def read_named(body: str) -> list[Call] | None:
    """Mistral: a JSON list, or ``name{…}``, ``name[ARGS]{…}``, ``name[CALL_ID]…[ARGS]{…}``."""
    if body.lstrip().startswith(("[{", "{", "[ {")):
        return read_json(body)
    head, brace, tail = body.partition("{")
    name = re.split(r"\[(?:CALL_ID|ARGS)\]", head.strip())[0].strip()
    return _with_object(name, brace + tail)


@_careful
def read_separated(body: str) -> list[Call] | None:
    """DeepSeek: ``function<｜tool▁sep｜>name`` and JSON in a fence (V3, R1), or ``name<｜tool▁sep｜>{…}`` (V3.1)."""
    kind, _, rest = body.partition("<｜tool▁sep｜>")
    if kind.strip() == "function" and "```" in rest:
        name, _, fenced = rest.partition("\n")
        return _with_object(name.strip(), fenced.strip().removeprefix("```json").removesuffix("```"))
    return _with_object(kind.strip(), rest)


@_careful
def read_numbered(body: str) -> list[Call] | None:
    """Kimi K2: ``functions.name:0<|tool_call_argument_begin|>{…}``."""
    name, _, rest = body.partition("<|tool_call_argument_begin|>")
    return _with_object(name.strip().removeprefix("functions.").partition(":")[0], rest)


@_careful
def read_pythonic(body: str) -> list[Call] | None:
    """Llama 4, and others that write Python: ``[name(key=value), …]``, values being literals."""
    try:
        tree = ast.parse(body.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError, SystemError):  # the last is CPython's own mistake
        return None
    called = tree.elts if isinstance(tree, ast.List) else [tree]
    made: list[Call] = []
    for node in called:
        if not isinstance(node, ast.Call) or node.args:
            return None
        try:
            arguments = {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords if keyword.arg is not None}
            made.append(_call(ast.unparse(node.func), arguments))
        except (ValueError, TypeError, RecursionError):
            return None
    return made or None


def _literal(node: ast.expr) -> JsonValue:
    """A value; models write ``true`` and ``null`` as well."""
    if isinstance(node, ast.Name):
        words: dict[str, JsonValue] = {"true": True, "false": False, "null": None, "none": None}
        if node.id not in words:
            raise ValueError(node.id)
        return words[node.id]
    if isinstance(node, ast.List):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {str(ast.literal_eval(key)): _literal(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    value: JsonValue = ast.literal_eval(node)
    orjson.dumps(value)
    return value


def _value(text: str) -> JsonValue:
    """A parameter between tags: JSON where it is JSON, else the text itself."""
    try:
        value: JsonValue = orjson.loads(text.strip())
    except orjson.JSONDecodeError:
        return text
    return value


def _with_object(name: str, text: str) -> list[Call] | None:
    if not name:
        return None
    value, _ = _DECODER.raw_decode(text.strip())
    return [_call(name, value)] if isinstance(value, dict) else None


def _calls(values: Sequence[object]) -> list[Call] | None:
    made: list[Call] = []
    for value in values:
        if not isinstance(value, dict):
            return None
        inner = value.get("function")
        if isinstance(inner, dict):  # OpenAI's own nesting
            value = inner
        name = value.get("name") or (inner if isinstance(inner, str) else None)
        arguments = value.get("arguments", value.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = _value(arguments)
        if not isinstance(name, str) or not name or not isinstance(arguments, dict | None):
            return None
        made.append(_call(name, arguments or {}))
    return made or None


def _call(name: str, arguments: object) -> Call:
    """Raises ``ValueError`` for what JSON or UTF-8 has no words for."""
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    (name + text).encode()
    return Call(name=name, arguments=text)

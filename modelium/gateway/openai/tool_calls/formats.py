"""How families of models write tool calls: a stretch of generated text enters, the calls in it leave, or None: it is no call.

Each reader takes what stands between the family's markers. Models make mistakes, so a reader that cannot read says so and the
stretch stays text.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from modelium.values import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """``arguments`` is the text of a JSON object."""

    name: str
    arguments: str


Read = Callable[[str], "list[Call] | None"]
_DECODER = json.JSONDecoder(strict=False)  # models write newlines into strings


def read_json(body: str) -> list[Call] | None:
    """One object or a list of them, or several after another: ``{"name": …, "arguments": …}`` (or ``parameters``)."""
    values: list[object] = []
    rest = body.strip().removesuffix(";")
    while rest:
        cut = _decode(rest)
        if cut is None:
            return None
        value, rest = cut
        values += value if isinstance(value, list) else [value]
        rest = rest.lstrip().removeprefix(";").lstrip()
    return _calls(values)


def read_tagged(body: str) -> list[Call] | None:
    """What ``<tool_call>`` encloses: JSON (Hermes, Qwen), parameters as tags (Qwen3-Coder), keys and values (GLM-4.5)."""
    if "<function=" in body:
        return _read_function_tags(body)
    if "<arg_key>" in body or re.fullmatch(r"\s*[\w.-]+\s*", body):
        return _read_argument_tags(body)
    return read_json(body)


_FUNCTION = re.compile(r"<function=([^>\s]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)>(.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)
_ARGUMENT = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)


def _read_function_tags(body: str) -> list[Call] | None:
    return [
        _call(name, {key: _value(text.removeprefix("\n").removesuffix("\n")) for key, text in _PARAMETER.findall(inside)})
        for name, inside in _FUNCTION.findall(body)
    ] or None


def _read_argument_tags(body: str) -> list[Call] | None:
    name = body.partition("<arg_key>")[0].strip()
    return [_call(name, {key.strip(): _value(text) for key, text in _ARGUMENT.findall(body)})] if name else None


def read_named(body: str) -> list[Call] | None:
    """Mistral: a JSON list, or ``name{…}``, ``name[ARGS]{…}``, ``name[CALL_ID]…[ARGS]{…}``."""
    if body.lstrip().startswith(("[{", "{", "[ {")):
        return read_json(body)
    head, brace, tail = body.partition("{")
    name = re.split(r"\[(?:CALL_ID|ARGS)\]", head.strip())[0].strip()
    return _with_object(name, brace + tail)


def read_separated(body: str) -> list[Call] | None:
    """DeepSeek: ``function<｜tool▁sep｜>name`` and JSON in a fence (V3, R1), or ``name<｜tool▁sep｜>{…}`` (V3.1)."""
    kind, _, rest = body.partition("<｜tool▁sep｜>")
    if kind.strip() == "function" and "```" in rest:
        name, _, fenced = rest.partition("\n")
        return _with_object(name.strip(), fenced.strip().removeprefix("```json").removesuffix("```"))
    return _with_object(kind.strip(), rest)


def read_numbered(body: str) -> list[Call] | None:
    """Kimi K2: ``functions.name:0<|tool_call_argument_begin|>{…}``."""
    name, _, rest = body.partition("<|tool_call_argument_begin|>")
    return _with_object(name.strip().removeprefix("functions.").partition(":")[0], rest)


def read_pythonic(body: str) -> list[Call] | None:
    """Llama 4, and others that write Python: ``[name(key=value), …]``, values being literals."""
    try:
        tree = ast.parse(body.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
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
    cut = _decode(text.strip()) if name else None
    return [_call(name, cut[0])] if cut is not None and isinstance(cut[0], dict) else None


def _decode(text: str) -> tuple[object, str] | None:
    """The JSON value at the beginning, and what follows it."""
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return value, text[end:]


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
    return Call(name=name, arguments=json.dumps(arguments, ensure_ascii=False))

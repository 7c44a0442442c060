"""The Jinja environment of chat templates: transformers' own, with limits.

A template comes with a model from somewhere, runs in the controller, and must neither hang nor fill it.

Jinja's sandbox keeps a template away from Python. It does not bound time and memory, so: every turn of a loop and every call of
a macro looks at a deadline, and whatever can make a long string out of short ones (``*``, ``+``, ``~``, ``%``, padding,
``replace``, ``join``) asks a budget first. None of it changes what an honest template writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from time import monotonic
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_STRING = 32 * 2**20  # characters in one string
MAX_MADE = 256 * 2**20  # characters in all strings that one rendering makes
_MAX_WIDTH = 10_000
_MAX_POWER = 10_000
_WIDE_FORMAT = re.compile(r"\d{6}|\*")


class TemplateTooExpensive(SecurityError):
    """The template took more time or memory than any honest one."""


class _Budget:
    __slots__ = ("_ends_at", "_made")

    def __init__(self, seconds: float) -> None:
        self._ends_at = monotonic() + seconds
        self._made = 0

    def check_time(self) -> None:
        if monotonic() > self._ends_at:
            raise TemplateTooExpensive("it did not end in time")

    def spend(self, characters: int) -> None:
        self._made += characters
        if characters > MAX_STRING or self._made > MAX_MADE:
            raise TemplateTooExpensive("it makes too much text")


_budget: ContextVar[_Budget] = ContextVar("template budget")


@contextmanager
def limited(seconds: float) -> Iterator[_Budget]:
    """What is rendered inside (in this thread) has so much time."""
    budget = _Budget(seconds)
    token = _budget.set(budget)
    try:
        yield budget
    finally:
        _budget.reset(token)


class _Generation(Extension):
    """``{% generation %}…{% endgeneration %}`` marks what an assistant said, for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Macro) -> str:
        return caller()


class _Metering(NodeTransformer):
    """Puts a look at the clock into each body that may run often, and ``~`` into a call that can be bounded."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._metered(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._metered(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._metered(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Call(nodes.EnvironmentAttribute("concatenated"), node.nodes, [], None, None).set_lineno(node.lineno)

    def _metered(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Node:
        self.generic_visit(node)
        look = nodes.Call(nodes.EnvironmentAttribute("look_at_the_clock"), [], [], None, None)
        node.body.insert(0, nodes.ExprStmt(look).set_lineno(node.lineno))
        return node


class Environment(ImmutableSandboxedEnvironment):
    """Renders what transformers' ``apply_chat_template`` renders."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        # Without the optimizer nothing is computed while a template is compiled, where no budget is set.
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], optimized=False)
        self.filters["tojson"] = _tojson
        for name in _BOUNDED:
            self.filters[name] = _bounded(name, self.filters[name])
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        del self.globals["lipsum"]

    def look_at_the_clock(self) -> None:
        _budget.get().check_time()

    def concatenated(self, *parts: object) -> str:
        texts = [str(part) for part in parts]
        _budget.get().spend(sum(map(len, texts)))
        return "".join(texts)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Metering().visit(super()._parse(source, name, filename))
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = _budget.get()
        match operator:
            case "*":
                for sized, times in ((left, right), (right, left)):
                    if isinstance(sized, (str, bytes, list, tuple)) and isinstance(times, int):
                        budget.spend(len(sized) * max(0, times))
            case "+" if isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
                budget.spend(len(left) + len(right))
            case "**":
                if (isinstance(right, (int, float)) and abs(right) > _MAX_POWER) or _digits(left) > _MAX_POWER:
                    raise TemplateTooExpensive("it computes a huge power")
            case "%" if isinstance(left, str):
                _check_format(left)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        method = getattr(function, "__wrapped__", function)  # the sandbox wraps str.format
        owner = getattr(method, "__self__", None)
        if isinstance(owner, (str, bytes, int, float, list, tuple, dict)) and not isinstance(owner, bool):
            _check_call(owner, getattr(method, "__name__", ""), args, kwargs)
        return super().call(context, function, *args, **kwargs)


def _check_call(owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Methods of plain values that make much out of little."""
    budget = _budget.get()
    budget.check_time()
    values = (*args, *kwargs.values())
    if name in ("center", "ljust", "rjust", "zfill", "expandtabs", "to_bytes") and any(_is_wide(value) for value in values):
        raise TemplateTooExpensive("it pads text without measure")
    if not isinstance(owner, str):
        return
    match name:
        case "replace" if len(args) >= 2 and all(isinstance(arg, str) for arg in args[:2]):
            budget.spend(len(owner) + owner.count(args[0]) * len(args[1]))
        case "join" if args and isinstance(args[0], (list, tuple, str)):
            budget.spend(len(owner) * len(args[0]) + sum(len(item) for item in args[0] if isinstance(item, str)))
        case "format" | "format_map":
            _check_format(owner)
            budget.spend(len(owner) + sum(len(value) for value in values if isinstance(value, str)) * (1 + owner.count("{")))
        case "translate":
            raise TemplateTooExpensive("it calls str.translate")


def _check_format(pattern: str) -> None:
    if _WIDE_FORMAT.search(pattern):
        raise TemplateTooExpensive("it pads text without measure")


def _is_wide(value: object) -> bool:
    return isinstance(value, int) and value > _MAX_WIDTH


def _digits(value: object) -> int:
    return value.bit_length() if isinstance(value, int) else 0


_BOUNDED = ("center", "indent", "batch", "slice", "format", "replace", "join", "wordwrap", "xmlattr", "urlize", "pprint")


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter ``function``, which first looks at what it is given. Jinja finds how to call it by its attributes."""

    def bounded(*args: Any, **kwargs: Any) -> Any:
        budget = _budget.get()
        budget.check_time()
        given = [*args, *kwargs.values()]
        if any(_is_wide(value) or (name == "indent" and isinstance(value, str) and _many(value, given)) for value in given):
            raise TemplateTooExpensive("it pads text without measure")
        budget.spend(sum(value for value in given if isinstance(value, int) and value > 0))
        texts = [value for value in given if isinstance(value, str)]
        match name:
            case "replace" if len(texts) >= 3:
                budget.spend(len(texts[0]) + texts[0].count(texts[1]) * len(texts[2]))
            case "join" if texts:
                items = max((len(value) for value in given if isinstance(value, (list, tuple))), default=1)
                budget.spend(max(map(len, texts)) * items)
            case "format" if texts:
                _check_format(texts[0])
        return function(*args, **kwargs)

    bounded.__dict__.update(function.__dict__)
    return bounded


def _many(text: str, given: list[Any]) -> bool:
    """Indenting puts one text before each line of another."""
    lines = max((value.count("\n") for value in given if isinstance(value, str)), default=0)
    longest = max((len(value) for value in given if isinstance(value, str)), default=0)
    return len(text) < longest and len(text) * lines > MAX_STRING


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes HTML, which prompts are not."""
    if isinstance(indent, int) and indent > 100:
        raise TemplateTooExpensive("it pads text without measure")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)

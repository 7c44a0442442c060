"""The parameters of a request: the body's ``parameters`` enter, what leaves is checked against the task's row, and flat.

The names are Hugging Face's, so its clients work unchanged. Names that exist there but that no runtime here can honour
are refused by name rather than silently ignored, unless they ask for nothing (``false``, null).
"""

from __future__ import annotations

from collections.abc import Mapping

from modelium.errors import InvalidBody
from modelium.gateway.codecs.fields import excess, nearest, shown, string, strings, wrong
from modelium.values import Task
from modelium.values.parameters import Kind, Rule

LONGEST_TEXT = 10_000  # characters of a parameter
LONGEST_WORD = 1_000  # characters of one of a list
MOST_WORDS = 1_000

# Hugging Face nests the sampling parameters of its encoder-decoder tasks, its pipelines too; the runtime takes them flat.
NESTED = ("generate_parameters", "generation_parameters", "generate_kwargs")

_MOST = 2**18  # characters and values of all of a request's parameters

# In Hugging Face's schema, but nothing here can honour them.
ELSEWHERE = frozenset(
    {
        "adapter_id", "best_of", "decoder_input_details", "dimensions", "encoding_format", "frequency_penalty", "grammar",
        "max_question_len", "return_timestamps", "stream", "top_n_tokens", "watermark",
    }
)  # fmt: skip


def check(task: Task, sent: Mapping[str, object], prefix: str = "parameters") -> dict[str, object]:
    """The parameters that go to the model. Raises ``InvalidBody`` that names the first wrong one."""
    known = task.row.parameters
    if said := excess(sent, size=_MOST, depth=3):
        raise InvalidBody(said, field=prefix) if prefix else InvalidBody(f"the body: {said}")
    checked: dict[str, object] = {}
    for name, value in sent.items():
        field = f"{prefix}.{shown(name)}" if prefix else shown(name)
        if value is None:
            continue
        if name in NESTED and task.row.nested:
            if not isinstance(value, dict):
                raise wrong(field, "an object", value)
            checked |= check(task, value, field)
        elif name in known:
            checked[name] = check_value(known[name], value, field)
        elif name not in ELSEWHERE:
            raise InvalidBody(f"unknown parameter of {task.value}{nearest(name, sorted(known))}", field=field)
        elif value not in (False, "float"):
            raise InvalidBody(f"is not supported for {task.value}; leave it out", field=field)
    return checked


def check_value(rule: Rule, value: object, field: str) -> object:
    """``value`` as ``rule`` has it, or ``InvalidBody`` naming ``field``."""
    match rule.kind:
        case Kind.FLAG:
            if not isinstance(value, bool):
                raise wrong(field, "true or false", value)
        case Kind.WHOLE:
            if isinstance(value, bool) or not isinstance(value, int):
                raise wrong(field, "a whole number", value)
            _within(rule, value, field)
        case Kind.REAL:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise wrong(field, "a number", value)
            _within(rule, value, field)
        case Kind.TEXT:
            word = _short(string(value, field), field, LONGEST_TEXT)
            if rule.choices and word not in rule.choices:
                raise InvalidBody(f"{shown(word)!r} is not one of {', '.join(rule.choices)}", field=field)
        case Kind.WORDS:
            return [] if value == [] else _words(value, field)
        case Kind.STOP:
            return [] if value == [] else _words([value] if isinstance(value, str) else value, field)
    return value


def _words(value: object, field: str) -> list[str]:
    if isinstance(value, list) and len(value) > MOST_WORDS:
        raise InvalidBody(f"has {len(value):,} texts, it may have {MOST_WORDS:,}", field=field)
    return [_short(word, f"{field}[{index}]", LONGEST_WORD) for index, word in enumerate(strings(value, field))]


def _short(text: str, field: str, longest: int) -> str:
    if len(text) > longest:
        raise InvalidBody(f"is {len(text):,} characters long, it may have {longest:,}", field=field)
    return text


def _within(rule: Rule, value: float, field: str) -> None:
    if not value >= rule.low:  # NaN is not
        raise InvalidBody(f"must be at least {rule.low:g}, found {shown(value)}", field=field)
    if not value <= rule.high:
        raise InvalidBody(f"must be at most {rule.high:g}, found {shown(value)}", field=field)

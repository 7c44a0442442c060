"""The parameters of each task: what enters is the body's ``parameters``, what leaves is checked and flat.

The names are Hugging Face's, so its clients work unchanged. Names that exist there but that no runtime here can honour
are refused by name rather than silently ignored, unless they ask for nothing (``false``, null).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from modelium.errors import InvalidBody
from modelium.gateway.codecs.fields import excess, nearest, shown, string, strings, wrong
from modelium.values import Task


class Kind(Enum):
    """What a parameter holds, besides a choice of words."""

    WHOLE = auto()
    REAL = auto()
    FLAG = auto()
    WORDS = auto()
    TEXT = auto()
    STOP = auto()  # a string or a list of strings


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    kind: Kind
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()


COUNT = Rule(kind=Kind.WHOLE, low=1, high=2**31 - 1)
NATURAL = Rule(kind=Kind.WHOLE, low=0, high=2**31 - 1)
_PIXELS = Rule(kind=Kind.WHOLE, low=8, high=8192)  # memory grows with their square
SEED = Rule(kind=Kind.WHOLE, low=0, high=2**63 - 1)
SEQUENCES = Rule(kind=Kind.WHOLE, low=1, high=128)  # as many as OpenAI's n
FLAG = Rule(kind=Kind.FLAG)
WORDS = Rule(kind=Kind.WORDS)
TEXT = Rule(kind=Kind.TEXT)
UNIT = Rule(kind=Kind.REAL, low=0, high=1)
NON_NEGATIVE = Rule(kind=Kind.REAL, low=0, high=1e6)
_BEAMS = Rule(kind=Kind.WHOLE, low=1, high=64)  # each keeps its own keys and values
LONGEST_TEXT = 10_000  # characters of a parameter
_LONGEST_WORD = 1_000  # characters of one of a list
_MOST_WORDS = 1_000


def _choice(*words: str) -> Rule:
    return Rule(kind=Kind.TEXT, choices=words)


_CLASSIFICATION = {"top_k": COUNT, "function_to_apply": _choice("softmax", "sigmoid", "none")}
_SAMPLING = {
    "max_new_tokens": COUNT,
    "do_sample": FLAG,
    "temperature": NON_NEGATIVE,
    "top_k": NATURAL,
    "top_p": UNIT,
    "typical_p": UNIT,
    "repetition_penalty": NON_NEGATIVE,
    "num_beams": _BEAMS,
    "num_return_sequences": SEQUENCES,
    "seed": SEED,
    "stop": Rule(kind=Kind.STOP),
}
_SEQ2SEQ = {
    **_SAMPLING,
    "max_length": COUNT,
    "min_length": NATURAL,
    "no_repeat_ngram_size": NATURAL,
    "length_penalty": Rule(kind=Kind.REAL, low=-10, high=10),
    "clean_up_tokenization_spaces": FLAG,
    "truncation": _choice("do_not_truncate", "longest_first", "only_first", "only_second"),
    "src_lang": TEXT,
    "tgt_lang": TEXT,
}
_EMBEDDING = {
    "normalize": FLAG,
    "truncate": FLAG,
    "truncation_direction": _choice("left", "right"),
    "prompt_name": TEXT,
    "prompt": TEXT,
}

_CONTINUATION = {**_SAMPLING, "return_full_text": FLAG, "truncate": COUNT, "details": FLAG}

KNOWN: Mapping[Task, Mapping[str, Rule]] = {
    Task.FEATURE_EXTRACTION: _EMBEDDING,
    Task.SENTENCE_SIMILARITY: _EMBEDDING,
    Task.TEXT_CLASSIFICATION: _CLASSIFICATION,
    Task.TOKEN_CLASSIFICATION: {
        "aggregation_strategy": _choice("none", "simple", "first", "average", "max"),
        "ignore_labels": WORDS,
        "stride": NATURAL,
    },
    Task.FILL_MASK: {"top_k": COUNT, "targets": WORDS},
    Task.QUESTION_ANSWERING: {
        "top_k": COUNT,
        "doc_stride": COUNT,
        "max_answer_len": COUNT,
        "max_seq_len": COUNT,
        "handle_impossible_answer": FLAG,
        "align_to_words": FLAG,
    },
    Task.ZERO_SHOT_CLASSIFICATION: {"multi_label": FLAG, "hypothesis_template": TEXT},
    Task.TEXT_GENERATION: _CONTINUATION,
    Task.IMAGE_TEXT_TO_TEXT: _CONTINUATION,
    Task.TRANSLATION: _SEQ2SEQ,
    Task.SUMMARIZATION: _SEQ2SEQ,
    Task.TEXT2TEXT_GENERATION: _SEQ2SEQ,
    Task.IMAGE_CLASSIFICATION: _CLASSIFICATION,
    Task.OBJECT_DETECTION: {"threshold": UNIT},
    Task.IMAGE_FEATURE_EXTRACTION: {"normalize": FLAG},
    Task.AUTOMATIC_SPEECH_RECOGNITION: {
        "language": TEXT,
        "task": _choice("transcribe", "translate"),
        "return_timestamps": FLAG,
        "max_new_tokens": COUNT,
        "num_beams": _BEAMS,
    },
    Task.AUDIO_CLASSIFICATION: _CLASSIFICATION,
    Task.TABULAR_CLASSIFICATION: {"top_k": COUNT},
    Task.TABULAR_REGRESSION: {},
    Task.TEXT_RANKING: {"top_k": COUNT},
    Task.TEXT_TO_IMAGE: {
        "negative_prompt": TEXT,
        "height": _PIXELS,
        "width": _PIXELS,
        "num_inference_steps": Rule(kind=Kind.WHOLE, low=1, high=1000),
        "guidance_scale": NON_NEGATIVE,
        "seed": SEED,
    },
    Task.SERVE_APP: {},
    Task.TENSORS: {},
}

# Hugging Face nests the sampling parameters of its encoder-decoder tasks, its pipelines too; the runtime takes them flat.
NESTED = ("generate_parameters", "generation_parameters", "generate_kwargs")
GENERATING = (Task.TRANSLATION, Task.SUMMARIZATION, Task.TEXT2TEXT_GENERATION, Task.AUTOMATIC_SPEECH_RECOGNITION)

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
    known = KNOWN[task]
    if said := excess(sent, size=_MOST, depth=3):
        raise InvalidBody(said, field=prefix) if prefix else InvalidBody(f"the body: {said}")
    checked: dict[str, object] = {}
    for name, value in sent.items():
        field = f"{prefix}.{shown(name)}" if prefix else shown(name)
        if value is None:
            continue
        if name in NESTED and task in GENERATING:
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
            return _words([value] if isinstance(value, str) else value, field)
    return value


def _words(value: object, field: str) -> list[str]:
    if isinstance(value, list) and len(value) > _MOST_WORDS:
        raise InvalidBody(f"has {len(value):,} texts, it may have {_MOST_WORDS:,}", field=field)
    return [_short(word, f"{field}[{index}]", _LONGEST_WORD) for index, word in enumerate(strings(value, field))]


def _short(text: str, field: str, longest: int) -> str:
    if len(text) > longest:
        raise InvalidBody(f"is {len(text):,} characters long, it may have {longest:,}", field=field)
    return text


def _within(rule: Rule, value: float, field: str) -> None:
    if not value >= rule.low:  # NaN is not
        raise InvalidBody(f"must be at least {rule.low:g}, found {shown(value)}", field=field)
    if not value <= rule.high:
        raise InvalidBody(f"must be at most {rule.high:g}, found {shown(value)}", field=field)

"""What a parameter of a request may hold, and the sets of parameters that several tasks share. The names are Hugging Face's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto


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
    """What a parameter takes: its kind, its limits, or the words to choose from."""

    kind: Kind
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()


Rules = Mapping[str, Rule]

COUNT = Rule(kind=Kind.WHOLE, low=1, high=2**31 - 1)
NATURAL = Rule(kind=Kind.WHOLE, low=0, high=2**31 - 1)
PIXELS = Rule(kind=Kind.WHOLE, low=8, high=8192)  # memory grows with their square
SEED = Rule(kind=Kind.WHOLE, low=0, high=2**63 - 1)
SEQUENCES = Rule(kind=Kind.WHOLE, low=1, high=128)  # as many as OpenAI's n
FLAG = Rule(kind=Kind.FLAG)
WORDS = Rule(kind=Kind.WORDS)
TEXT = Rule(kind=Kind.TEXT)
UNIT = Rule(kind=Kind.REAL, low=0, high=1)
NON_NEGATIVE = Rule(kind=Kind.REAL, low=0, high=1e6)
BEAMS = Rule(kind=Kind.WHOLE, low=1, high=64)  # each keeps its own keys and values


def one_of(*words: str) -> Rule:
    """One of these words."""
    return Rule(kind=Kind.TEXT, choices=words)


CLASSIFICATION: Rules = {"top_k": COUNT, "function_to_apply": one_of("softmax", "sigmoid", "none")}
_SAMPLING: Rules = {
    "max_new_tokens": COUNT,
    "do_sample": FLAG,
    "temperature": NON_NEGATIVE,
    "top_k": NATURAL,
    "top_p": UNIT,
    "typical_p": UNIT,
    "repetition_penalty": NON_NEGATIVE,
    "num_beams": BEAMS,
    "num_return_sequences": SEQUENCES,
    "seed": SEED,
    "stop": Rule(kind=Kind.STOP),
}
CONTINUATION: Rules = {**_SAMPLING, "return_full_text": FLAG, "truncate": COUNT, "details": FLAG}
TEXT_TO_TEXT: Rules = {
    **_SAMPLING,
    "max_length": COUNT,
    "min_length": NATURAL,
    "no_repeat_ngram_size": NATURAL,
    "length_penalty": Rule(kind=Kind.REAL, low=-10, high=10),
    "clean_up_tokenization_spaces": FLAG,
    "truncation": one_of("do_not_truncate", "longest_first", "only_first", "only_second"),
    "src_lang": TEXT,
    "tgt_lang": TEXT,
}
EMBEDDING: Rules = {
    "normalize": FLAG,
    "truncate": FLAG,
    "truncation_direction": one_of("left", "right"),
    "prompt_name": TEXT,
    "prompt": TEXT,
}

"""What may be asked of generation, and what it means to transformers' ``generate``.

What enters: parameters with Hugging Face's names. What leaves: checked ones, and options. Greedy unless sampling is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .contract import BadInput, within

G = TypeVar("G", bound="GenerateParameters")

MOST_TOKENS = 2**20
MOST_SEQUENCES = 128
MOST_BEAMS = 64
MOST_STOPS, LONGEST_STOP = 32, 256  # transformers compares each with the whole vocabulary
# Sequences × tokens of one row that is generated more than once over: each keeps its keys and values.
MOST_PLACES = 65_536
# A smaller one makes infinities of logits, and an infinity in a kernel ends a GPU's process. vLLM cuts there as well.
_COLDEST = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateParameters:
    """Hugging Face's names. Rows with equal values share a batch."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool | None = None
    repetition_penalty: float | None = None
    num_return_sequences: int = 1
    num_beams: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    return_full_text: bool | None = None
    truncate: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformParameters(GenerateParameters):
    """What encoder-decoders take besides. ``max_length`` and ``min_length`` count the output's tokens."""

    src_lang: str | None = None
    tgt_lang: str | None = None
    max_length: int | None = None
    min_length: int | None = None
    length_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    clean_up_tokenization_spaces: bool | None = None
    truncation: str | None = None


def check(parameters: G) -> G:
    within(
        parameters,
        max_new_tokens=(1, MOST_TOKENS),
        num_return_sequences=(1, MOST_SEQUENCES),
        num_beams=(1, MOST_BEAMS),
        top_k=(1, MOST_TOKENS),
        truncate=(1, MOST_TOKENS),
        temperature=(0, 100),
        seed=(0, 2**63 - 1),
    )
    if isinstance(parameters, TransformParameters):
        within(
            parameters,
            max_length=(1, MOST_TOKENS),
            min_length=(0, MOST_TOKENS),
            no_repeat_ngram_size=(0, MOST_TOKENS),
            length_penalty=(-10, 10),
        )
    for name in ("top_p", "typical_p"):
        value = getattr(parameters, name)
        if value is not None and not 0 < value <= 1:
            raise BadInput(f"parameter {name!r} must be in (0, 1], found {value}")
    penalty = parameters.repetition_penalty
    if penalty is not None and not 0 < penalty <= 100:
        raise BadInput(f"parameter 'repetition_penalty' must be positive and at most 100, found {penalty}")
    if len(parameters.stop) > MOST_STOPS:
        raise BadInput(f"parameter 'stop' has {len(parameters.stop)} texts, it may have {MOST_STOPS}")
    for stop in parameters.stop:
        if len(stop) > LONGEST_STOP:
            raise BadInput(f"parameter 'stop' has a text of {len(stop)} characters, it may have {LONGEST_STOP}")
    beams = parameters.num_beams or 1
    if (beams > 1 or not samples(parameters)) and parameters.num_return_sequences > beams:
        raise BadInput("parameter 'num_return_sequences' above 1 needs 'do_sample' or as many 'num_beams'")
    return parameters


def samples(parameters: GenerateParameters) -> bool:
    """Sampling is asked for in words (do_sample), or by a parameter that only sampling has."""
    if parameters.do_sample is not None:
        return parameters.do_sample
    if parameters.temperature == 0:
        return False
    knobs = (parameters.temperature, parameters.top_k, parameters.top_p, parameters.typical_p)
    return any(knob is not None for knob in knobs)


def sampling(parameters: GenerateParameters) -> dict[str, Any]:
    """Options of ``generate``, the same for all rows of a batch."""
    options: dict[str, Any] = {"do_sample": samples(parameters), "num_return_sequences": parameters.num_return_sequences}
    names = ["repetition_penalty", "num_beams"]
    if options["do_sample"]:
        names += ["temperature", "top_k", "top_p", "typical_p"]
    options |= {name: getattr(parameters, name) for name in names if getattr(parameters, name) is not None}
    if options.get("temperature") == 0:
        del options["temperature"]
    if "temperature" in options:
        options["temperature"] = max(_COLDEST, options["temperature"])
    return options


def width(parameters: GenerateParameters) -> int:
    """Sequences that are computed side by side for one row."""
    beams = parameters.num_beams or 1
    if beams > 1:  # the sequences are the best of the beams
        return beams
    return parameters.num_return_sequences


def check_places(parameters: GenerateParameters, tokens: int) -> None:
    """Refuse a row whose sequences, of ``tokens`` each, would be more than fits beside others."""
    wide = width(parameters)
    if wide > 1 and wide * tokens > MOST_PLACES:
        raise BadInput(
            f"{wide} sequences of {tokens} tokens are {wide * tokens:,}, a request may have {MOST_PLACES:,}; lower "
            f"'num_beams', 'num_return_sequences' or 'max_new_tokens'"
        )


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """``text`` before the first of ``stops``, and whether one was there."""
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)

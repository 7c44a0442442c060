"""What may be asked of generation, and what it means to transformers' ``generate``.

What enters: parameters with Hugging Face's names. What leaves: checked ones, and options. Greedy unless sampling is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .contract import BadInput

G = TypeVar("G", bound="GenerateParameters")


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
    for name in ("max_new_tokens", "num_return_sequences", "num_beams", "top_k", "truncate"):
        value = getattr(parameters, name)
        if value is not None and value < 1:
            raise BadInput(f"parameter {name!r} must be at least 1, found {value}")
    if parameters.temperature is not None and parameters.temperature < 0:
        raise BadInput(f"parameter 'temperature' must not be negative, found {parameters.temperature}")
    for name in ("top_p", "typical_p"):
        value = getattr(parameters, name)
        if value is not None and not 0 < value <= 1:
            raise BadInput(f"parameter {name!r} must be in (0, 1], found {value}")
    if parameters.repetition_penalty is not None and parameters.repetition_penalty <= 0:
        raise BadInput(f"parameter 'repetition_penalty' must be positive, found {parameters.repetition_penalty}")
    beams = parameters.num_beams or 1
    if not samples(parameters) and parameters.num_return_sequences > beams:
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
    return options


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """``text`` before the first of ``stops``, and whether one was there."""
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)

"""The words of generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelium.values import JsonValue

MOST_GENERATIONS = 1024  # that one request may ask for, over all its texts
# Generations of one request that may be under way at once: enough to fill an engine's batch, too few to fill its queue.
AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One generation. ``sampling`` has the names of vLLM's ``SamplingParams`` (``max_tokens``, ``temperature``, ``stop`` …);
    ``structured_outputs`` is an object in it. ``images`` are base64. ``adapter``: the LoRA adapter's name, "" for none.
    ``logprobs``: the pieces shall carry them (``sampling["logprobs"]`` says how many alternatives, or
    ``sampling["logprob_token_ids"]`` which). ``prompt_ids``: the prompt
    as token ids, in place of the text. ``details``: the pieces shall say which tokens they are made of, the first one what was
    read. ``facts``: they shall say how much of the prompt had been computed before, and what stopped
    the text.
    """

    prompt: str
    prompt_ids: tuple[int, ...] | None = None
    details: bool = False
    facts: bool = False
    sampling: Mapping[str, JsonValue] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    adapter: str = ""
    logprobs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """One generated token; ``alternatives`` are the most probable ones at its place, best first, as (token, logprob)."""

    token: str
    token_id: int
    logprob: float
    alternatives: tuple[tuple[str, float], ...] = ()
    alternative_ids: tuple[int, ...] = ()


Position = Mapping[str, Mapping[str, JsonValue]] | None  # token id → logprob, rank, decoded_token


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRead:
    """A prompt as the engine read it. ``first_token``: the text of the first, which no log-probability names."""

    text: str
    token_ids: tuple[int, ...]
    first_token: str
    logprobs: tuple[Position, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What came since the piece before. ``output_tokens`` and ``logprobs`` are this piece's own; ``prompt_tokens`` is the whole
    prompt's (None where the runtime has not said). ``finish_reason`` is set on the last piece: ``stop``, ``length`` …
    ``token_ids`` and, on the first piece, ``prompt`` are there where the request wants details. ``cached``: how many tokens of
    the prompt had been computed before; None where nobody said. ``stop_reason``: the stop text or token that ended it.
    ``sequence``: which answer of a beam search it belongs to.
    """

    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    token_ids: tuple[int, ...] = ()
    prompt: PromptRead | None = None
    cached: int | None = None
    stop_reason: str | int | None = None
    sequence: int = 0

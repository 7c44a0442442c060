"""Words among a request's parameters that are this backend's own, beside the fields of vLLM's ``SamplingParams``.

What enters: the parameters. What leaves: they without these words, and the words.

- ``prompt_token_ids``: the prompt as numbers; ``text_input`` is then not read.
- ``add_special_tokens``, ``truncate_prompt_tokens``, ``truncation_side``: how a prompt becomes numbers, in the words of vLLM's
  server.
- ``details``: the answer says which tokens it is made of. Each response's ``logprobs`` has then one element more, the last: an
  object with ``token_ids``, a list for each sequence; in the first response also ``prompt`` (its text), ``prompt_token_ids``,
  ``first_token`` (its text) and ``num_cached_tokens``.
- ``facts``: ``logprobs`` ends with an object, in the first response with ``num_cached_tokens`` (of the prompt), and where a
  stop text or token ended sequences with ``stop_reasons``, one for each; also where no log-probabilities are asked for.
  ``details`` say this as well.
- ``beam_width``, ``length_penalty``: beam search, above the engine; the one response has as many sequences. Of the engine's own
  parameters ``max_tokens``, ``temperature``, ``ignore_eos``, ``include_stop_str_in_output`` and ``skip_special_tokens`` count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from .beams import Wish
from .errors import BadRequest

_TOKENIZING: dict[str, tuple[type, ...]] = {
    "add_special_tokens": (bool,),
    "truncate_prompt_tokens": (int,),
    "truncation_side": (str,),
}
NAMES = ("prompt_token_ids", "details", "facts", "beam_width", "length_penalty", *_TOKENIZING)


@dataclass(frozen=True, kw_only=True)
class Words:
    """``tokenizing``: what was said of it, for vLLM's ``TokenizeParams``."""

    token_ids: list[int] | None = None
    details: bool = False
    facts: bool = False
    beams: Wish | None = None
    tokenizing: dict[str, Any] = field(default_factory=dict)

    def prompt(self, text: str) -> dict[str, Any]:
        """As vLLM takes it."""
        return {"prompt": text} if self.token_ids is None else {"prompt_token_ids": self.token_ids}


def take(given: dict[str, Any]) -> Words:
    """Take them out of ``given``. Raises ``BadRequest``."""
    ids = given.pop("prompt_token_ids", None)
    if ids is not None and not (isinstance(ids, list) and all(_is_id(one) for one in ids)):
        raise BadRequest("'prompt_token_ids' has to be a list of whole numbers from 0")
    flags = {name: given.pop(name, False) for name in ("details", "facts")}
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise BadRequest(f"'{name}' has to be true or false")
    said = {name: given.pop(name) for name in _TOKENIZING if name in given}
    for name, value in said.items():
        if type(value) not in _TOKENIZING[name]:
            raise BadRequest(f"'{name}' has to be {_TOKENIZING[name][0].__name__}, not {value!r}")
    return Words(token_ids=ids, beams=_beams(given), tokenizing=said, **flags)


def _beams(given: dict[str, Any]) -> Wish | None:
    width, penalty = given.pop("beam_width", None), given.pop("length_penalty", 1.0)
    if type(penalty) not in (int, float) or not math.isfinite(penalty):
        raise BadRequest("'length_penalty' has to be a number")
    if width is not None and not (type(width) is int and width > 0):
        raise BadRequest("'beam_width' has to be a whole number from 1")
    return None if width is None else Wish(width=width, length_penalty=float(penalty))


def _is_id(one: object) -> bool:
    return type(one) is int and 0 <= one < 2**31

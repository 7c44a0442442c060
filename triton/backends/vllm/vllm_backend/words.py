"""Words among a request's parameters that are this backend's own, beside the fields of vLLM's ``SamplingParams``.

What enters: the parameters. What leaves: they without these words, and the words.

- ``prompt_token_ids``: the prompt as numbers; ``text_input`` is then not read.
- ``add_special_tokens``, ``truncate_prompt_tokens``, ``truncation_side``: how a prompt becomes numbers, in the words of vLLM's
  server.
- ``details``: the answer says which tokens it is made of. Each response's ``logprobs`` has then one element more, the last: an
  object with ``token_ids``, a list for each sequence; in the first response also ``prompt`` (its text), ``prompt_token_ids``,
  ``first_token`` (its text) and ``num_cached_tokens``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .errors import BadRequest

_TOKENIZING: dict[str, tuple[type, ...]] = {
    "add_special_tokens": (bool,),
    "truncate_prompt_tokens": (int,),
    "truncation_side": (str,),
}
NAMES = ("prompt_token_ids", "details", *_TOKENIZING)


@dataclass(frozen=True, kw_only=True)
class Words:
    """``tokenizing``: what was said of it, for vLLM's ``TokenizeParams``."""

    token_ids: list[int] | None = None
    details: bool = False
    tokenizing: dict[str, Any] = field(default_factory=dict)

    def prompt(self, text: str) -> dict[str, Any]:
        """As vLLM takes it."""
        return {"prompt": text} if self.token_ids is None else {"prompt_token_ids": self.token_ids}


def take(given: dict[str, Any]) -> Words:
    """Take them out of ``given``. Raises ``BadRequest``."""
    ids = given.pop("prompt_token_ids", None)
    if ids is not None and not (isinstance(ids, list) and all(_is_id(one) for one in ids)):
        raise BadRequest("'prompt_token_ids' has to be a list of whole numbers from 0")
    details = given.pop("details", False)
    if not isinstance(details, bool):
        raise BadRequest("'details' has to be true or false")
    said = {name: given.pop(name) for name in _TOKENIZING if name in given}
    for name, value in said.items():
        if type(value) not in _TOKENIZING[name]:
            raise BadRequest(f"'{name}' has to be {_TOKENIZING[name][0].__name__}, not {value!r}")
    return Words(token_ids=ids, details=details, tokenizing=said)


def _is_id(one: object) -> bool:
    return type(one) is int and 0 <= one < 2**31

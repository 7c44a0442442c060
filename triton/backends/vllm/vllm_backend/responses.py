"""vLLM's outputs → the tensors of a response (see ``tensors.py`` for what they mean).

What enters: ``RequestOutput``s, with ``DELTA`` in a stream and otherwise the final one. What leaves: name → array.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from .tensors import Ask

_LEAST_LOGPROB = -9999.0  # JSON has no infinity


class Responses:
    """The responses to one request, in order."""

    def __init__(
        self, ask: Ask, sequences: int, decode: Callable[[list[int]], str] | None = None, *, facts: bool = False
    ) -> None:
        """``decode``: token ids to text, where the answer is to say which tokens it is made of. ``facts``: it is to say how
        much of the prompt had been computed before, and what stopped it."""
        self._ask = ask
        self._decode = decode
        self._tells = facts or decode is not None
        self._sequences = sequences
        self._reasons = ["None"] * sequences
        self._likelihoods = [math.nan] * sequences
        self._begun = False

    def tensors(self, output: Any) -> dict[str, np.ndarray]:
        """A stream's outputs hold only the sequences that have something new; a response always has all of them."""
        new = {one.index: one for one in output.outputs}
        for index, one in new.items():
            if one.finish_reason is not None:
                self._reasons[index] = str(one.finish_reason)
            if one.cumulative_logprob is not None:
                self._likelihoods[index] = one.cumulative_logprob
        wanted, every = self._ask.wanted, range(self._sequences)
        prefix = self._ask.prompt if self._ask.prepend_prompt and not self._begun else ""
        arrays = {"text_output": _texts(prefix + (new[i].text if i in new else "") for i in every)}
        if "finish_reason" in wanted:
            arrays["finish_reason"] = _texts(self._reasons)
        if "cumulative_logprob" in wanted:
            arrays["cumulative_logprob"] = np.array(self._likelihoods, dtype=np.float32)
        facts = self._facts(output, new) if self._tells else {}
        if "logprobs" in wanted or facts:
            texts = [logprobs_json(new[i].logprobs if i in new else None) for i in every]
            if not self._begun and output.prompt_logprobs is not None:
                texts.append(logprobs_json(output.prompt_logprobs))
            if self._decode is not None:
                facts |= self._details(output, [new[i].token_ids if i in new else () for i in every])
            if facts:
                texts.append(json.dumps(facts))
            arrays["logprobs"] = _texts(texts)
        if "num_input_tokens" in wanted:
            arrays["num_input_tokens"] = np.array([len(output.prompt_token_ids or ())], dtype=np.uint32)
        if "num_output_tokens" in wanted:
            counts = [len(new[i].token_ids) if i in new else 0 for i in every]
            arrays["num_output_tokens"] = np.array(counts, dtype=np.uint32)
        self._begun = True
        return arrays

    def _details(self, output: Any, tokens: list[Iterable[int]]) -> dict[str, Any]:
        assert self._decode is not None
        said: dict[str, Any] = {"token_ids": [list(ids) for ids in tokens]}
        if not self._begun:
            ids = list(output.prompt_token_ids or ())
            said |= {
                "prompt": output.prompt if output.prompt is not None else self._decode(ids),
                "prompt_token_ids": ids,
                "first_token": self._decode(ids[:1]),
            }
        return said

    def _facts(self, output: Any, new: Mapping[int, Any]) -> dict[str, Any]:
        """Nothing of most responses. The end token, which every text ends with, is no reason."""
        said = {} if self._begun else {"num_cached_tokens": output.num_cached_tokens}
        reasons = [getattr(new.get(index), "stop_reason", None) for index in range(self._sequences)]
        return said | ({"stop_reasons": reasons} if any(reason is not None for reason in reasons) else {})


def embedding_tensors(output: Any, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    """The vector as JSON text; nothing is generated for it."""
    arrays = {"text_output": _texts([json.dumps(output.outputs.data.float().tolist())])}
    if "num_input_tokens" in wanted:
        arrays["num_input_tokens"] = np.array([len(output.prompt_token_ids)], dtype=np.uint32)
    if "num_output_tokens" in wanted:
        arrays["num_output_tokens"] = np.array([0], dtype=np.uint32)
    return arrays


def logprobs_json(positions: Iterable[Mapping[int, Any] | None] | None) -> str:
    """``null``, or an object a token; the prompt's first token has nothing before it, and ``null``."""
    if positions is None:
        return "null"
    return json.dumps(
        [None if position is None else {i: _candidate(one) for i, one in position.items()} for position in positions]
    )


def _candidate(one: Any) -> dict[str, Any]:
    return {
        "logprob": max(_LEAST_LOGPROB, one.logprob),
        "rank": one.rank,
        "decoded_token": one.decoded_token,
    }


def _texts(texts: Iterable[str]) -> np.ndarray:
    return np.array([text.encode("utf-8", "replace") for text in texts], dtype=np.object_)

"""Generation by Triton's vLLM backend, the stock one or the embedded server's: a request enters, the contract's tensors leave;
the tensors of a response enter, a ``Piece`` leaves.

The contract is ``modelium.signatures.VLLM``. Of the stock backend's habits that matter here: ``structured_outputs`` is JSON
inside JSON, a missing ``max_tokens`` means 16, a finish reason that is none is the word "None", and the log-probabilities of
a token are an object by token id, the token that was taken first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from modelium.errors import InferenceFailed, InvalidBody, ModelGone, TritonError
from modelium.gateway.codecs import Tensors
from modelium.gateway.generation.values import GenerationRequest, Piece, PromptRead, TokenLogprob
from modelium.values import EnginePlan, JsonValue

_TRUE = np.array([True])
_TRUE.flags.writeable = False
ALL = -1
_ENDLESS = 2**31 - 1  # vLLM itself ends a sequence at max_model_len


def tensors_of(request: GenerationRequest, engine: EnginePlan | None) -> Tensors:
    """The inputs of one generation. Raises ``InvalidBody`` for what cannot be written down."""
    sampling: dict[str, JsonValue] = dict(request.sampling)
    if sampling.get("max_tokens") is None:
        sampling["max_tokens"] = engine.max_model_len if engine is not None else _ENDLESS
    if isinstance(sampling.get("structured_outputs"), dict):
        sampling["structured_outputs"] = _json(sampling["structured_outputs"])
    if request.adapter:
        sampling["lora_name"] = request.adapter
    if request.logprobs and "logprob_token_ids" not in sampling:
        sampling.setdefault("logprobs", 0)
    if request.prompt_ids is not None:
        sampling["prompt_token_ids"] = list(request.prompt_ids)
    if request.details:
        sampling["details"] = True
    elif request.facts:
        sampling["facts"] = True
    inputs = {
        "text_input": _strings(request.prompt),
        "sampling_parameters": _strings(_json(sampling)),
        "stream": _TRUE,
        "exclude_input_in_output": _TRUE,
        "return_finish_reason": _TRUE,
        "return_num_input_tokens": _TRUE,
        "return_num_output_tokens": _TRUE,
    }
    if request.logprobs or request.details:
        inputs["return_logprobs"] = _TRUE
    if request.images:
        inputs["image"] = _strings(*request.images)
    return inputs


class PieceReader:
    """Reads the responses of one generation, in their order."""

    def __init__(self, request: GenerationRequest) -> None:
        wanted = request.sampling.get("logprobs")
        self._alternatives = ALL if "logprob_token_ids" in request.sampling else wanted if isinstance(wanted, int) else 0
        self._tells = request.details or request.facts

    def pieces(self, outputs: Tensors) -> list[Piece]:
        """What one response says of each sequence: of one, but for beam searches. Raises ``TritonError`` when it is not one of
        this contract, and when the engine gave up."""
        count = max(1, outputs["text_output"].size) if "text_output" in outputs else 1
        return [self._piece(outputs, sequence, count) for sequence in range(count)]

    def _piece(self, outputs: Tensors, at: int, of: int) -> Piece:
        try:
            text = outputs["text_output"].item(at)
            reason = outputs["finish_reason"].item(at) if "finish_reason" in outputs else b""
            logprobs = self._logprobs(outputs["logprobs"].item(at)) if "logprobs" in outputs else ()
            _check_ended_well(reason)
            count = _count(outputs, "num_output_tokens", at)
            said = self._said(outputs, of)
            return Piece(
                text=text.decode("utf-8", "replace"),
                finish_reason=reason.decode() if reason not in (b"", b"None") else None,
                prompt_tokens=_count(outputs, "num_input_tokens"),
                output_tokens=count if count is not None else len(logprobs) or bool(text),
                logprobs=logprobs,
                token_ids=tuple(said["token_ids"][at]) if "token_ids" in said else (),
                prompt=_prompt_read(said, outputs["logprobs"], of) if "prompt" in said else None,
                cached=said.get("num_cached_tokens") if at == 0 else None,
                stop_reason=said["stop_reasons"][at] if "stop_reasons" in said else None,
                sequence=at,
            )
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise TritonError(f"the vLLM backend answered with something else than its contract: {error!r}") from None

    def _said(self, outputs: Tensors, of: int) -> Mapping[str, Any]:
        """What the answer says of itself: the last element, behind those of the sequences."""
        if "logprobs" not in outputs or not self._tells:
            return {}
        logprobs = outputs["logprobs"]
        said: dict[str, Any] = orjson.loads(logprobs.item(logprobs.size - 1)) if logprobs.size > of else {}
        return said

    def _logprobs(self, raw: bytes) -> tuple[TokenLogprob, ...]:
        return tuple(token_of(token, self._alternatives) for token in _read(raw))


def _prompt_read(said: Mapping[str, Any], logprobs: Any, of: int) -> PromptRead:
    """Its log-probabilities stand behind those of the sequences, where they were asked for."""
    positions = _read(logprobs.item(of)) if logprobs.size > of + 1 else []
    return PromptRead(
        text=said["prompt"],
        token_ids=tuple(said["prompt_token_ids"]),
        first_token=said["first_token"],
        logprobs=tuple(positions),
    )


def token_of(by_id: Mapping[str, Mapping[str, Any]], alternatives: int) -> TokenLogprob:
    """The token that was taken is the first. ``alternatives``: how many, or ``ALL`` in their order."""
    (taken, facts), *_ = by_id.items()
    best: list[tuple[str, Mapping[str, Any]]] = []
    if alternatives == ALL:
        best = list(by_id.items())
    elif alternatives:
        best = sorted(by_id.items(), key=lambda entry: entry[1]["logprob"], reverse=True)[:alternatives]
    return TokenLogprob(
        token=facts["decoded_token"] or "",
        token_id=int(taken),
        logprob=facts["logprob"],
        alternatives=tuple((entry["decoded_token"] or "", entry["logprob"]) for _, entry in best),
        alternative_ids=tuple(int(one) for one, _ in best),
    )


def _read(raw: bytes) -> list[Any]:
    if raw in (b"", b"null"):
        return []
    try:
        tokens: list[Any] = orjson.loads(raw)
    except orjson.JSONDecodeError:
        tokens = json.loads(raw)  # Python's own JSON, which has -Infinity
    return tokens


def _check_ended_well(reason: bytes) -> None:
    """Half an answer must not look like a whole one."""
    match reason:
        case b"abort":  # nobody here asked for it: the engine is being stopped
            raise ModelGone("vLLM broke the generation off")
        case b"error":
            raise InferenceFailed("vLLM could not finish the generation; its log has the cause")


def _json(value: JsonValue) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise InvalidBody(f"the parameters cannot be written as JSON: {error}") from None


def _strings(*values: str) -> np.ndarray[Any, np.dtype[np.object_]]:
    array = np.empty(len(values), dtype=np.object_)
    try:
        array[:] = [value.encode() for value in values]
    except UnicodeEncodeError as error:  # JSON and templates can hold halves of a pair
        raise InvalidBody(f"the prompt cannot be written as UTF-8: {error.reason}") from None
    return array


def _count(outputs: Tensors, name: str, at: int = 0) -> int | None:
    array = outputs.get(name)
    return int(array.item(at)) if array is not None and array.size > at else None

"""Sampling: a checked request and the model's own defaults enter, parameters in vLLM's words leave."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from modelium.gateway.codecs.fields import shown
from modelium.gateway.generation.seeds import nth_seed
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.requests import ChatRequest, CompletionRequest, Generating, ResponseFormat
from modelium.values import JsonValue

Sampling = dict[str, JsonValue]

# What generation_config.json may say that vLLM's own server takes over as well.
_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_SAME_NAME = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "stop_token_ids",
    "bad_words", "allowed_token_ids", "include_stop_str_in_output", "ignore_eos", "min_tokens", "skip_special_tokens",
    "spaces_between_special_tokens", "prompt_logprobs", "truncate_prompt_tokens", "truncation_side",
)  # fmt: skip
_OF_BEAMS = frozenset(
    {
        "temperature", "ignore_eos", "include_stop_str_in_output", "skip_special_tokens", "truncate_prompt_tokens",
        "truncation_side", "add_special_tokens", "logprobs",
    }
)  # fmt: skip
_OF_SAMPLES = (
    "top_p", "top_k", "min_p", "seed", "stop", "stop_token_ids", "presence_penalty", "frequency_penalty", "repetition_penalty",
    "logit_bias", "bad_words", "allowed_token_ids", "min_tokens",
)  # fmt: skip
_MOST_NAMED = 20
COMPLETION_TOKENS = 16  # OpenAI's


def sampling_of(request: Generating, defaults: Mapping[str, JsonValue]) -> Sampling:
    """All but ``max_tokens`` and ``seed``, which depend on the engine and on the choice.

    ``defaults`` (generation_config.json) speak where the request is silent.
    """
    sampling: Sampling = {name: defaults[name] for name in _DEFAULTS if defaults.get(name) is not None}
    if defaults.get("do_sample") is False and "temperature" not in sampling:
        sampling["temperature"] = 0.0
    for name in _SAME_NAME:
        if (value := getattr(request, name)) is not None:
            sampling[name] = value
    if request.stop:
        sampling["stop"] = [request.stop] if isinstance(request.stop, str) else list(request.stop)
    if request.logit_bias:
        sampling["logit_bias"] = _biases(request.logit_bias)
    if request.prompt_logprobs and request.stream:  # vLLM's own rule
        raise BadRequest("prompt_logprobs: are not available in a stream", param="prompt_logprobs")
    if isinstance(request, CompletionRequest):
        if request.add_special_tokens is False:
            sampling["add_special_tokens"] = False
        if request.echo and request.logprobs is not None:
            sampling.setdefault("prompt_logprobs", request.logprobs)
    if (shape := _shape(request)) is not None:
        sampling["structured_outputs"] = shape
    if (wanted := _logprobs(request)) is not None:
        sampling["logprobs"] = wanted
    if request.logprob_token_ids:
        _choose_tokens(request, sampling)
    return _of_beams(request, sampling) if request.use_beam_search else sampling


def unheard(request: Generating) -> list[str]:
    """What changes nothing of this answer: beams are followed by their log-probabilities alone, and only they have lengths."""
    if not request.use_beam_search:
        return ["length_penalty"] if request.length_penalty is not None else []
    return [name for name in _OF_SAMPLES if getattr(request, name) is not None]


def _choose_tokens(request: Generating, sampling: Sampling) -> None:
    """Raises ``BadRequest``."""
    if "logprobs" not in sampling:
        raise BadRequest("logprob_token_ids: needs logprobs", param="logprob_token_ids")
    if request.use_beam_search:
        raise BadRequest("logprob_token_ids: is not there in a beam search", param="logprob_token_ids")
    if request.echo and request.max_tokens == 0:
        raise BadRequest("logprob_token_ids: are of written tokens, and max_tokens 0 asks for none", param="logprob_token_ids")
    del sampling["logprobs"]
    sampling["logprob_token_ids"] = list(request.logprob_token_ids or ())


def _of_beams(request: Generating, sampling: Sampling) -> Sampling:
    """Of ``sampling`` what a beam search heeds. Raises ``BadRequest`` for what would be broken by one."""
    if "structured_outputs" in sampling:
        raise BadRequest("use_beam_search: beams cannot be held to the form of an answer", param="use_beam_search")
    if "prompt_logprobs" in sampling:
        raise BadRequest("use_beam_search: tells no log-probabilities of the prompt", param="use_beam_search")
    if isinstance(request, CompletionRequest) and request.stream:
        raise BadRequest("use_beam_search: the best beams are known at the end; leave stream out", param="use_beam_search")
    kept = {name: value for name, value in sampling.items() if name in _OF_BEAMS}
    return kept | {
        "beam_width": request.choices,
        "length_penalty": 1.0 if request.length_penalty is None else request.length_penalty,
    }


def max_tokens(request: Generating, max_model_len: int | None) -> int:
    """A chat goes on to the end of the context, a completion for OpenAI's 16 tokens, unless the request says more or less."""
    asked = request.max_tokens
    if isinstance(request, ChatRequest):
        asked = request.max_completion_tokens or asked or max_model_len or 1024
    elif asked == 0:
        if not request.echo:
            raise BadRequest("max_tokens: must be at least 1, found 0", param="max_tokens")
        asked = 1  # an engine writes one at least
    asked = asked or COMPLETION_TOKENS
    return min(asked, max_model_len) if max_model_len is not None else asked


def seed_of(request: Generating, index: int) -> int | None:
    """Each of n choices has a seed of its own, and the same one in the next request."""
    return None if request.seed is None or request.use_beam_search else nth_seed(request.seed, index)


def _logprobs(request: Generating) -> int | None:
    match request:
        case ChatRequest(top_logprobs=int(), logprobs=None | False):
            raise BadRequest("top_logprobs: needs logprobs: true", param="top_logprobs")
        case ChatRequest(logprobs=True):
            return request.top_logprobs or 0
        case CompletionRequest():
            return request.logprobs
        case _:
            return None


def _shape(request: Generating) -> Sampling | None:
    """What the text must look like, from whichever of the three ways it was said in."""
    said: dict[str, Sampling] = {}
    if request.response_format is not None and (asked := _form(request.response_format)) is not None:
        said["response_format"] = asked
    if request.structured_outputs is not None:
        said["structured_outputs"] = request.structured_outputs.model_dump(by_alias=True, exclude_none=True)
    guided = {kind: getattr(request, f"guided_{kind}") for kind in ("json", "regex", "choice", "grammar")}
    for kind, value in guided.items():
        if value is not None:
            said[f"guided_{kind}"] = {kind: value}
    if len(said) > 1:
        names = " and ".join(said)
        raise BadRequest(f"{names}: say in one way what the answer must look like", param=next(iter(said)))
    return next(iter(said.values()), None)


def _form(form: ResponseFormat) -> Sampling | None:
    """What ``response_format`` asks for. A schema may be in its own place, or where other servers want it."""
    beside = form.schema_ if form.schema_ is not None else form.value
    match form.type:
        case "text":
            return None
        case "json_schema" if form.json_schema is not None:
            return {"json": form.json_schema.schema_}
        case "json_object" | "json" | "json_schema" if beside is not None:
            return {"json": beside}
        case "json_object" | "json":
            return {"json_object": True}
        case "regex" if isinstance(form.value, str):
            return {"regex": form.value}
        case "structural_tag" if form.format is not None:
            return {"structural_tag": _written({"type": "structural_tag", "format": form.format})}
        case "structural_tag" if form.structures is not None:
            tag = {"type": "structural_tag", "structures": form.structures, "triggers": form.triggers or []}
            return {"structural_tag": _written(tag)}
    missing = {"json_schema": "json_schema", "regex": "value", "structural_tag": "format"}[form.type]
    raise BadRequest(f"response_format.{missing}: is missing", param="response_format")


def _written(value: object) -> str:
    return orjson.dumps(value).decode()


def _biases(sent: Mapping[str, float]) -> Sampling:
    """Raises ``BadRequest`` with every key that is no token id, as far as a line goes."""
    wrong = [shown(token) for token in sent if not (token.isascii() and token.isdigit())]
    if wrong:
        more = f" and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
        names = ", ".join(map(repr, wrong[:_MOST_NAMED]))
        raise BadRequest(f"logit_bias: expected token ids, found {names}{more}", param="logit_bias")
    return {token: min(100.0, max(-100.0, bias)) for token, bias in sent.items()}  # vLLM's own bounds

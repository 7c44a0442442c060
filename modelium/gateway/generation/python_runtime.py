"""Generation by the python runtime: a request in vLLM's words enters, tensors leave; its one answer enters, a ``Piece`` leaves.

What transformers' ``generate`` has no word for is refused by name, unless it asks for nothing (``frequency_penalty: 0``).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import orjson

from modelium.errors import InvalidBody
from modelium.gateway.codecs import Tensors
from modelium.gateway.codecs.call import byte_rows
from modelium.gateway.generation.values import GenerationRequest, Piece
from modelium.values import JsonValue, ModelProfile

# What each of vLLM's parameters is when it asks for nothing.
_NEUTRAL: Mapping[str, tuple[JsonValue, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "min_p": (0,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "logit_bias": ({},),
}


def tensors_of(request: GenerationRequest, profile: ModelProfile) -> Tensors:
    """The inputs of one generation. Raises ``InvalidBody`` that names what this runtime cannot do."""
    if request.adapter:
        raise InvalidBody(f"{profile.name!r} is served by the python runtime, which has no LoRA adapters", field="model")
    if request.logprobs or request.details:
        raise _unsupported("logprobs" if request.logprobs else "return_token_ids", profile)
    columns = {"TEXT": [request.prompt.encode()], "PARAMETERS": [orjson.dumps(_parameters(request.sampling, profile))]}
    if request.images:
        if not profile.task.row.takes_images:
            raise InvalidBody(f"{profile.name!r} takes no images, found {len(request.images)}", field="image")
        try:
            columns["IMAGE"] = [base64.b64decode(image) for image in request.images]
        except binascii.Error as error:
            raise InvalidBody(f"is not base64: {error}", field="image") from error
    return {name: byte_rows([values]) for name, values in columns.items()}


def piece_of(outputs: Tensors) -> Piece:
    """All of the answer."""
    return Piece(
        text=outputs["GENERATED_TEXT"].item(0).decode("utf-8", "replace"),
        finish_reason=outputs["FINISH_REASON"].item(0).decode(),
        prompt_tokens=int(outputs["INPUT_TOKENS"].item(0)),
        output_tokens=int(outputs["OUTPUT_TOKENS"].item(0)),
    )


def _parameters(sampling: Mapping[str, JsonValue], profile: ModelProfile) -> dict[str, JsonValue]:
    # vLLM samples at temperature 1 unless it is told otherwise, the python runtime is greedy.
    greedy = sampling.get("temperature", 1) == 0
    parameters: dict[str, JsonValue] = {"do_sample": not greedy}
    for name, value in sampling.items():
        match name:
            case _ if value is None:
                pass
            case "max_tokens":
                parameters["max_new_tokens"] = value
            case "temperature" | "top_p" | "top_k" if greedy or (name == "top_k" and value in (0, -1)):
                pass
            case "stop":
                parameters["stop"] = [value] if isinstance(value, str) else value
            case "temperature" | "top_p" | "top_k" | "seed" | "repetition_penalty":
                parameters[name] = value
            case _ if value in _NEUTRAL.get(name, ()):
                pass
            case _:
                raise _unsupported(name, profile)
    return parameters


def _unsupported(name: str, profile: ModelProfile) -> InvalidBody:
    return InvalidBody(f"is not supported by {profile.name!r}, which the python runtime serves; leave it out", field=name)

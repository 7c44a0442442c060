"""The tensors of Triton's vLLM backend, and how they are read: what enters are a request's tensors, what leaves is an ``Ask``,
whose pictures are decoded later, where it keeps nobody waiting.

Names, types and dims are the stock backend's. Nothing here imports vLLM.

Inputs: ``text_input`` the prompt; ``image`` base64, any number; ``stream`` a response a step with what is new instead of one at
the end; ``sampling_parameters`` a JSON object with the fields of vLLM's ``SamplingParams`` and ``lora_name`` (the request's own
parameters say the same); ``exclude_input_in_output`` false or absent puts the prompt in front of an answer that is not
streamed; ``return_*`` ask for the other outputs; ``embedding_request`` a JSON object ``{"input": text or token ids,
"pooling_params": {"dimensions": [n]}}``, whose answer is a JSON list of numbers in ``text_output``.

Outputs have one element for each of the ``n`` sequences: ``text_output``; ``finish_reason`` (``stop``, ``length``, ``None`` as
long as there is more to come); ``cumulative_logprob`` (NaN unless ``logprobs`` was asked for); ``logprobs`` a JSON list with an
object a token, ``{"token id": {"logprob": -0.1, "rank": 1, "decoded_token": "a"}, …}``, the sampled token first (``null``
unless ``logprobs`` was asked for); ``num_input_tokens`` one number; ``num_output_tokens``. In a stream text, logprobs and
``num_output_tokens`` are those of this response only, the others are totals. With ``prompt_logprobs`` the first response's
``logprobs`` has one element more, at the end: the prompt's, in the same shape, its first token ``null``. ``words`` has more.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
from dataclasses import dataclass, field
from typing import Any

from .errors import BadRequest

_MOST_PIXELS = 64 * 2**20  # 192 MiB as RGB
RETURNS = (
    "return_finish_reason",
    "return_cumulative_logprob",
    "return_logprobs",
    "return_num_input_tokens",
    "return_num_output_tokens",
)
INPUTS: list[dict[str, Any]] = [
    {"name": "text_input", "data_type": "TYPE_STRING", "dims": [1]},
    {"name": "image", "data_type": "TYPE_STRING", "dims": [-1], "optional": True},
    {"name": "stream", "data_type": "TYPE_BOOL", "dims": [1], "optional": True},
    {"name": "sampling_parameters", "data_type": "TYPE_STRING", "dims": [1], "optional": True},
    {"name": "exclude_input_in_output", "data_type": "TYPE_BOOL", "dims": [1], "optional": True},
    *({"name": name, "data_type": "TYPE_BOOL", "dims": [1], "optional": True} for name in RETURNS),
    {"name": "embedding_request", "data_type": "TYPE_STRING", "dims": [1], "optional": True},
]
OUTPUTS: list[dict[str, Any]] = [
    {"name": "text_output", "data_type": "TYPE_STRING", "dims": [-1]},
    {"name": "finish_reason", "data_type": "TYPE_STRING", "dims": [-1]},
    {"name": "cumulative_logprob", "data_type": "TYPE_FP32", "dims": [-1]},
    {"name": "logprobs", "data_type": "TYPE_STRING", "dims": [-1]},
    {"name": "num_input_tokens", "data_type": "TYPE_UINT32", "dims": [1]},
    {"name": "num_output_tokens", "data_type": "TYPE_UINT32", "dims": [-1]},
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request, read. ``embedding`` is the whole embedding request; the rest is then unused, except ``wanted``."""

    prompt: str = ""
    images: tuple[bytes, ...] = ()
    stream: bool = False
    prepend_prompt: bool = False
    wanted: frozenset[str] = frozenset()
    parameters: dict[str, Any] = field(default_factory=dict)
    embedding: dict[str, Any] | None = None


def read(request: Any, find: Any) -> Ask:
    """``find`` is Triton's ``get_input_tensor_by_name``."""
    given = {one["name"]: tensor.as_numpy().reshape(-1) for one in INPUTS if (tensor := find(request, one["name"])) is not None}
    wanted = frozenset(name.removeprefix("return_") for name in RETURNS if _flag(given, name))
    if "embedding_request" in given:
        return Ask(wanted=wanted, embedding=_json_object(_text(given, "embedding_request"), "embedding_request"))
    stream = _flag(given, "stream")
    exclude = _flag(given, "exclude_input_in_output") if "exclude_input_in_output" in given else stream
    if stream and not exclude:
        raise BadRequest("When streaming, `exclude_input_in_output` = False is not allowed.")
    return Ask(
        prompt=_text(given, "text_input"),
        images=tuple(given.get("image", ())),
        stream=stream,
        prepend_prompt=not exclude,
        wanted=wanted,
        parameters=_parameters(given, request),
    )


def _parameters(given: dict[str, Any], request: Any) -> dict[str, Any]:
    """The tensor's object with the request's own parameters; one that both state has to be the same in both."""
    own = {key: value for key, value in json.loads(request.parameters() or "{}").items() if not key.startswith("triton_")}
    if "sampling_parameters" not in given:
        return own
    stated = _json_object(_text(given, "sampling_parameters") or "{}", "sampling_parameters")
    for key, value in own.items():
        if key in stated and str(stated[key]) != str(value):
            raise BadRequest(f"'{key}' is {stated[key]!r} in sampling_parameters and {value!r} in the request's parameters")
    return own | stated


def _flag(given: dict[str, Any], name: str) -> bool:
    return name in given and given[name].size > 0 and bool(given[name][0])


def _text(given: dict[str, Any], name: str) -> str:
    value = given[name][0] if name in given and given[name].size else b""
    try:
        return value if isinstance(value, str) else value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"{name} is not UTF-8: {error}") from None


def _json_object(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"{name} has to be a JSON object, not {text[:80]!r}")
    return value


def decode(images: tuple[bytes, ...]) -> list[Any]:
    """The pictures, decoded. Raises ``BadRequest``."""
    return [_image(value, number) for number, value in enumerate(images)]


def _image(value: bytes, number: int) -> Any:
    """As people see it and as vLLM's own server has it: upright, on white where it is transparent, in RGB."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(value, validate=True))) as image:
            width, height = image.size  # stated by the file; nothing is decoded yet
            if width * height > _MOST_PIXELS:
                raise ValueError(f"it has {width} × {height} pixels, more than {_MOST_PIXELS}")
            return _on_white(_upright(image))
    except Exception as error:  # decoders raise whatever they like, SyntaxError among it
        raise BadRequest(f"image {number} cannot be read (it has to be a picture file in base64): {error}") from None


def _upright(image: Any) -> Any:
    """Turned as its EXIF data say; as it lies where they are broken."""
    from PIL import ImageOps

    image.load()  # what is wrong with the pixels is said, not passed over
    with contextlib.suppress(Exception):
        return ImageOps.exif_transpose(image)
    return image


def _on_white(image: Any) -> Any:
    from PIL import Image

    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    page = Image.new("RGB", layer.size, (255, 255, 255))
    page.paste(layer, mask=layer.getchannel("A"))
    return page

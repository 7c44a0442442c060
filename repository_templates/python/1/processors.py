"""A folder's multimodal processor: a prompt with its pictures enters, what its model takes leaves.

Pictures are prepared with Pillow, torchvision is not needed. For videos there is nothing but torchvision: a processor that
could prepare them too is loaded without that half where torchvision is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import torch
from PIL import Image
from transformers import PretrainedConfig
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, processor_class_from_name
from transformers.processing_utils import ProcessorMixin
from transformers.utils.import_utils import is_torchvision_available

from .contract import BadInput, Settings
from .loading import load_processor, read_object

_VIDEO = "video_processor"
_INTERLEAVES = "IdeficsProcessor"  # takes texts and pictures in one row, and would fetch a text that is a URL
# Their models begin by themselves. Of an empty text their tokenizers make an end, after which nothing can begin.
_CAPTIONERS = frozenset({"BlipProcessor", "GitProcessor", "Pix2StructProcessor"})
# What processors raise for a request that they cannot take: none of them has an error of its own for it.
_REFUSALS = (ValueError, TypeError, LookupError, AttributeError, UnboundLocalError, StopIteration)
# What belongs around a placeholder: a chat template would write it.
_FRAMES = {
    "<|image_pad|>": ("<|vision_start|>", "<|vision_end|>"),
    "<|image|>": ("<|begin_of_image|>", "<|end_of_image|>"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """``whole`` is the folder's processor. Without it ``eye`` prepares the picture, and the text is how the answer begins."""

    tokenizer: Any
    whole: Any = None
    eye: Any = None

    @classmethod
    def of(cls, settings: Settings, config: PretrainedConfig) -> Processor:
        kind = None if settings.custom_code else _kind(settings, config)
        if kind is not None and _VIDEO in kind.get_attributes() and not is_torchvision_available():
            whole = _without_videos(kind).from_pretrained(settings.model_path, local_files_only=True)
        else:
            whole = load_processor(settings, "AutoProcessor")
        if not isinstance(whole, ProcessorMixin):
            return cls(eye=_eye(settings), tokenizer=load_processor(settings, "AutoTokenizer"))
        if config.model_type == "vision-encoder-decoder":  # Donut, TrOCR: for them a text is what is to be learnt
            return cls(eye=whole.image_processor, tokenizer=whole.tokenizer)
        return cls(whole=whole, tokenizer=whole.tokenizer)

    def encode(self, text: str, pictures: list[Image.Image]) -> dict[str, Any]:
        """A batch of one prompt. ``BadInput`` for what the processor refuses."""
        token = str(getattr(self.whole, "image_token", None) or getattr(self.tokenizer, "image_token", None) or "")
        if len(pictures) > 1 and not token and type(self.whole).__name__ != _INTERLEAVES:
            raise BadInput(f"IMAGE has {len(pictures)} pictures, this model takes one")
        if self.whole is None:
            if pictures and self.eye is None:
                raise BadInput("IMAGE: this folder has no image processor, so its model takes no pictures")
            inputs = dict(self.eye(images=pictures, return_tensors="pt")) if pictures else {}
            return inputs | (
                dict(self.tokenizer(text, return_tensors="pt", add_special_tokens=self.eye is None)) if text else {}
            )
        there = text.count(token) if token else 0
        if there and there != len(pictures):
            raise BadInput(f"TEXT has {there} × {token}, IMAGE has {len(pictures)} of them")
        if not token or not pictures or there:
            return self._encode(text, pictures)
        try:  # some processors place pictures themselves
            inputs = self._encode(text, pictures)
        except BadInput:
            inputs = {}
        ids = inputs.get("input_ids")
        if ids is not None and bool((ids == self.tokenizer.convert_tokens_to_ids(token)).any()):
            return inputs
        return self._encode(self._framed(token) * len(pictures) + text, pictures)

    def _framed(self, token: str) -> str:
        before, after = _FRAMES.get(token, ("", ""))
        return f"{before}{token}{after}" if before in self.tokenizer.get_vocab() else token

    def _encode(self, text: str, pictures: list[Image.Image]) -> dict[str, Any]:
        name = type(self.whole).__name__
        try:
            if name == _INTERLEAVES:
                if _is_url(text):
                    raise BadInput("TEXT is a URL, and nothing is fetched here; send the picture itself in IMAGE")
                return dict(self.whole(text=[[*pictures, text]], return_tensors="pt"))
            if not pictures:
                return dict(self.whole(text=text, return_tensors="pt"))
            words = None if name in _CAPTIONERS and not text else text
            return dict(self.whole(images=pictures, text=words, return_tensors="pt"))
        except _REFUSALS as error:
            raise BadInput(f"{name} refuses TEXT with {len(pictures)} pictures: {error}") from error


def move(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """On the device, floating numbers in ``dtype``; lists (a tensor a picture) item by item."""
    match value:
        case torch.Tensor():
            return value.to(device, dtype if value.is_floating_point() else None)
        case list() | tuple():
            return [move(item, device, dtype) for item in value]
    return value


def _kind(settings: Settings, config: PretrainedConfig) -> Any:
    """The class that ``AutoProcessor`` would take, None where it would take none of transformers' own."""
    for file in (
        "processor_config.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "tokenizer_config.json",
    ):
        named = read_object(settings.model_path, file).get("processor_class")
        if isinstance(named, str):
            return processor_class_from_name(named)
    return PROCESSOR_MAPPING.get(type(config), None)


def _eye(settings: Settings) -> Any:
    """The folder's image processor, None where it has none."""
    try:
        return load_processor(settings, "AutoImageProcessor")
    except (OSError, ValueError):
        return None


def _without_videos(kind: Any) -> Any:
    names = kind.get_attributes()

    class Still(kind):
        """Loads everything but the video half."""

        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in names if name != _VIDEO]

    class Whole(kind):
        """Takes None for the video half."""

        @classmethod
        def _get_arguments_from_pretrained(cls, *args: Any, **options: Any) -> list[Any]:
            parts = list(Still._get_arguments_from_pretrained(*args, **options))
            parts.insert(names.index(_VIDEO), None)
            return parts

        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            return None if argument is None else super().check_argument_for_proper_class(argument_name, argument)

    Whole.__name__ = kind.__name__
    return Whole


def _is_url(text: str) -> bool:
    """As Idefics' processor judges it."""
    stripped = text.strip(" ")
    try:
        parts = urlsplit(stripped)
    except ValueError:
        return False
    return " " not in stripped and bool(parts.scheme and parts.netloc)

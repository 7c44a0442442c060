"""Where in a ``config.json`` the part that generates text is described.

What enters: the whole object. What leaves: ``Facts`` of the whole and of its decoder (the same for a plain language model).
"""

from __future__ import annotations

from dataclasses import dataclass

from modelium.analyzers.formats.json_text import JsonObject, nested, text
from modelium.analyzers.language.config_classes import UNKNOWN, class_of_part, class_of_type
from modelium.analyzers.language.facts import Facts

# In the order of asking: an omni model's thinker has a text_config, an encoder-decoder of two parts a decoder.
_PARTS = (
    "thinker_config",
    "text_config",
    "llm_config",
    "language_config",
    "decoder",
    "decoder_config",
    "generator",
    "text_model_config",
    "vlm_config",
    "transf_decoder",
    "config_dict",
)
_DEEPEST = 4
_ASSUMED_TYPE = "llama"  # what transformers takes for a nested text config that names no model_type
_IMAGE_KEYS = (
    "vision_config",
    "vision_encoder_config",
    "vision_tower",
    "visual",
    "mm_vision_tower",
    "img_processor",
    "vit_config",
    "vq_config",
    "image_size",
    "image_token_id",
    "image_token_index",
    "vision_n_layers",
)
_VIDEO_KEYS = ("video_token_id", "video_token_index")
_AUDIO_KEYS = ("audio_config", "audio_token_id", "audio_token_index", "speech_config", "sound_config", "audio_encoder_config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """``whole`` and ``decoder`` are one where nothing is nested. ``modalities``: what is taken besides text."""

    whole: Facts
    decoder: Facts
    modalities: tuple[str, ...]


def find_decoder(config: JsonObject) -> Parts:
    """The decoder's facts.

    1. A nested object under one of the usual keys, as deep as there are such.
    2. A class that has such a part, of which the file says nothing: the part's class, with the file's own top level as its
       values (Qwen2-VL and its like used to be flat).
    """
    whole = Facts(given=config, known=class_of_type(text(config, "model_type")))
    decoder, modalities = whole, {*_modalities(whole), *_modalities(whole.part("encoder"))}
    for _ in range(_DEEPEST):
        inner = _step(decoder)
        if inner is None:
            break
        decoder = inner
        modalities |= set(_modalities(decoder))
    order = ("image", "video", "audio")
    return Parts(whole=whole, decoder=decoder, modalities=tuple(word for word in order if word in modalities))


def are_tied(parts: Parts) -> bool:
    """Whether the head is the embeddings: the file's word, of the whole before the decoder's, else the class's."""
    given = [part.given.get("tie_word_embeddings") for part in (parts.whole, parts.decoder)]
    said = next((value for value in given if isinstance(value, bool)), None)
    if said is not None:
        return said
    return (parts.decoder.flag("tie_word_embeddings") or parts.whole.flag("tie_word_embeddings")) is True


def _step(outer: Facts) -> Facts | None:
    for key in _PARTS:
        inner = nested(outer.given, key)
        if not inner and key not in outer.known.parts:
            continue
        if inner:
            part = outer.part(key)
            untyped = part.known is UNKNOWN and not text(inner, "model_type") and key in outer.known.parts
            return Facts(given=inner, known=class_of_type(_ASSUMED_TYPE)) if untyped else part
        known = class_of_part(outer.known, key)
        flat = {name: value for name, value in outer.given.items() if not isinstance(value, dict) and name != "model_type"}
        return Facts(given=flat, known=known if known is not UNKNOWN else class_of_type(_ASSUMED_TYPE))
    return None


def _modalities(part: Facts) -> list[str]:
    found = []
    for word, keys in (("image", _IMAGE_KEYS), ("video", _VIDEO_KEYS), ("audio", _AUDIO_KEYS)):
        if any(part.given.get(key) is not None or key in part.known.parts or key in part.known.defaults for key in keys):
            found.append(word)
    return found

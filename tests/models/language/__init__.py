"""Tiny language models that have learnt something by heart, and what ``transformers.generate`` writes with them.

What enters: nothing. What leaves: a directory with a folder and ``NAME.reference.json`` for each of ``LANGUAGE_MODELS``
(and for ``ADAPTERS``, which lie beside their base). They have a cache key of their own: a test that needs no language model
does not wait for them. They are trained, not random: the two likeliest next tokens lie far apart, so that greedy decoding
gives the same tokens whatever order an engine sums in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.models import CACHE, ensure_models, reference

LLAMA = "tiny-llama"
GPT2 = "tiny-gpt2"
MIXTURE = "tiny-mixtral"
LATENT = "tiny-deepseek"
PICTURES = "tiny-idefics"
LANGUAGE_MODELS = (LLAMA, GPT2, MIXTURE, LATENT, PICTURES)
ADAPTER = "tiny-pirate"  # on LLAMA
LANGUAGE_CACHE = CACHE / "language"  # with a lock of its own: nobody waits for what he does not need


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One greedy continuation. ``prompt`` is text without the tokenizer's own first token; ``new_tokens`` end with what ended
    it; ``text`` is them decoded without special tokens; ``finish`` is ``stop`` or ``length``. ``margin`` is by how much the
    chosen token's logit lay above the next at the closest call. ``messages`` and ``tools``: the chat that ``prompt`` is.
    ``image``: the file of the picture that it is about.
    """

    prompt: str
    prompt_tokens: tuple[int, ...]
    new_tokens: tuple[int, ...]
    text: str
    finish: str
    max_new_tokens: int
    margin: float
    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    image: Path | None = None


def ensure_language_models(cache: Path = LANGUAGE_CACHE) -> Path:
    """The directory that holds them all; made when they are missing or their makers changed (half a minute on two cores)."""
    return ensure_models(cache, LANGUAGE_MODELS)


def continuations(cache: Path, name: str) -> list[Written]:
    """What the model or adapter of that name writes, in the order of its reference."""
    found = []
    for one in reference(cache, name)["cases"]:
        details = dict(one["details"])
        for key in ("prompt_tokens", "new_tokens", "messages", "tools"):
            details[key] = tuple(details.get(key, ()))
        image = cache / "files" / one["inputs"]["IMAGE"]["file"] if "IMAGE" in one["inputs"] else None
        written = Written(
            prompt=one["inputs"]["TEXT"],
            text=one["answer"],
            max_new_tokens=one["parameters"]["max_new_tokens"],
            image=image,
            **details,
        )
        found.append(written)
    return found

"""Embedders with prompts; sentence-transformers answers. Runs in the model runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer, models

from tests.models.common import Reference, case, wordpiece
from tests.models.sentences import TEXTS, tiny

_PROMPTS = {"query": "the lazy fox: ", "other": ""}
_LITERAL = "A model jumps over several lines. "
_ASKED: list[dict[str, str]] = [{}, {"prompt_name": "query"}, {"prompt_name": "other"}, {"prompt": _LITERAL}, {"prompt": ""}]


def make_left_out(folder: Path, files: Path) -> Reference:
    """A prompt is read, but not pooled (``include_prompt: false``)."""
    pooling = models.Pooling(48, pooling_mode="mean", include_prompt=False)
    return _make(folder, [tiny(folder, 32), pooling], default=None)


def make_default(folder: Path, files: Path) -> Reference:
    """A prompt is before every text that does not ask for another; the last token's vector, padded at the left."""
    transformer = tiny(folder, 32)
    transformer.tokenizer.padding_side = "left"
    return _make(folder, [transformer, models.Pooling(48, pooling_mode="cls", include_prompt=False)], default="query")


def make_static(folder: Path, files: Path) -> Reference:
    """A table with a default."""
    torch.manual_seed(5)
    tokenizer = wordpiece([*TEXTS, *_PROMPTS.values()], size=300).backend_tokenizer
    core = models.StaticEmbedding(tokenizer, embedding_weights=torch.randn(tokenizer.get_vocab_size(), 16))
    return _make(folder, [core, models.Normalize()], default="query")


def _make(folder: Path, modules: list[Any], default: str | None) -> Reference:
    model = SentenceTransformer(modules=modules, device="cpu", prompts=_PROMPTS, default_prompt_name=default)
    model.save(str(folder))
    model = SentenceTransformer(str(folder), device="cpu")
    cases = []
    for text in TEXTS:
        cases += [case({"TEXT": text}, model.encode(text, **asked).tolist(), **asked) for asked in _ASKED]
    answer = model.encode(TEXTS[0], prompt=_LITERAL, prompt_name="query").tolist()
    cases.append(case({"TEXT": TEXTS[0]}, answer, prompt=_LITERAL, prompt_name="query"))
    return {"task": "sentence-similarity", "cases": cases}

"""Text → one vector without a transformer: the mean of its tokens' rows in one table.

What enters: rows with TEXT. What leaves: EMBEDDING. Two libraries write such folders: sentence-transformers (StaticEmbedding,
named in modules.json) and model2vec. They differ in small things: model2vec leaves out words that its vocabulary has not and
cuts a text, sentence-transformers does neither.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from .contract import Answer, BadInput, Row, Settings, attempt, parse_parameters
from .embeddings import EmbedParameters, check
from .loading import read_object, read_tensors
from .prompts import Prompts

_STATIC = "StaticEmbedding"
S = TypeVar("S", str, list[int])


def is_static(folder: str) -> bool:
    """Whether the folder is of one of the two kinds."""
    return _static_path(folder) is not None or _is_model2vec(folder)


class StaticEmbeddings:
    """feature-extraction and sentence-similarity of a folder that ``is_static``."""

    def __init__(self, settings: Settings) -> None:
        from tokenizers import Tokenizer

        place = Path(settings.model_path) / (_static_path(settings.model_path) or "")
        self._tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._table = _read_table(place)
        self._normalize = settings.normalize
        self._cut_characters = self._cut_tokens = None
        self._unknown = None
        if _static_path(settings.model_path) is None:
            self._cut_tokens = settings.max_length
            vocabulary = self._tokenizer.get_vocab()
            self._unknown = vocabulary.get(getattr(self._tokenizer.model, "unk_token", None) or "")
            if self._cut_tokens is not None:
                self._cut_characters = self._cut_tokens * int(np.median([len(token) for token in vocabulary]))
        self._prompts = Prompts(settings.model_path)

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        for index, (ids, normalize) in good.items():
            vector = self._table[ids].mean(dim=0) if ids else torch.zeros(self._table.shape[1])
            answers[index] = {"EMBEDDING": (torch.nn.functional.normalize(vector, dim=0) if normalize else vector).numpy()}
        return answers

    def _read(self, row: Row) -> tuple[list[int], bool]:
        parameters = check(parse_parameters(EmbedParameters, row.parameters))
        text = self._prompts.choose(parameters) + row.text("TEXT")
        left = parameters.truncation_direction == "left"
        most = self._cut_characters if parameters.truncate else None
        ids = self._tokenizer.encode(_part(text, most, left=left), add_special_tokens=False).ids
        ids = [token for token in ids if token != self._unknown]
        if not parameters.truncate and self._cut_tokens is not None and len(ids) > self._cut_tokens:
            raise BadInput(f"the input is {len(ids)} tokens long, this model takes at most {self._cut_tokens}")
        normalize = self._normalize if parameters.normalize is None else parameters.normalize
        return _part(ids, self._cut_tokens, left=left), normalize


def _part(whole: S, most: int | None, *, left: bool) -> S:
    """At most so much of a text, or of its tokens; ``left`` cuts the beginning off."""
    if most is None or len(whole) <= most:
        return whole
    return whole[len(whole) - most :] if left else whole[:most]


def _read_table(place: Path) -> torch.Tensor:
    """One row a token. model2vec may keep fewer rows and say in ``mapping`` which is whose, and weigh them."""
    safe = place / "model.safetensors"
    tensors = read_tensors(safe if safe.is_file() else place / "pytorch_model.bin")
    if "embedding.weight" in tensors:
        return tensors["embedding.weight"].float()
    table = tensors["embeddings"].float()
    if "mapping" in tensors:
        table = table[tensors["mapping"].long()]
    if "weights" in tensors:
        table = table * tensors["weights"].float()[:, None]
    return table.contiguous()


def _static_path(folder: str) -> str | None:
    """Where modules.json has its StaticEmbedding."""
    listed = Path(folder) / "modules.json"
    modules: Any = json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else []
    for module in modules if isinstance(modules, list) else []:
        if str(module.get("type", "")).rpartition(".")[2] == _STATIC:
            return str(module.get("path", ""))
    return None


def _is_model2vec(folder: str) -> bool:
    return not (Path(folder) / "modules.json").is_file() and read_object(folder, "config.json").get("model_type") == "model2vec"

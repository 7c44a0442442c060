"""A query and documents → a score for each, as sentence-transformers' CrossEncoder gives it.

What enters: rows with QUERY and DOCUMENTS. What leaves: SCORE, one a document in their order, and COUNT.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .batching import Encoding, Text, run_in_buckets
from .contract import Answer, BadInput, Row, Settings, attempt, floats, ints, parse_parameters
from .finite import finite
from .loading import load_model, load_processor, move, read_object

# Names that folders give to what is applied to the model's number. Nothing else is imported by name.
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Sigmoid": torch.sigmoid,
    "Identity": lambda scores: scores,
    "Tanh": torch.tanh,
    "ReLU": torch.relu,
    "LogSigmoid": torch.nn.functional.logsigmoid,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RankParameters:
    """``top_k`` is the gateway's: it sorts and cuts, here every document is answered in its place."""

    top_k: int | None = None


class Ranking:
    """All pairs of all rows, those of a length together."""

    def __init__(self, settings: Settings) -> None:
        self._model = load_model(settings, "AutoModelForSequenceClassification")
        labels = self._model.config.num_labels
        if labels != 1:
            raise RuntimeError(f"it has {labels} labels: a model that ranks has one (task: text-classification serves it)")
        self._text = Text.of(load_processor(settings, "AutoTokenizer"), settings, self._model)
        own = read_object(settings.model_path, "config_sentence_transformers.json")
        self._activation = _activation(own, self._model.config)
        prompts = own.get("prompts") or {}
        self._prompt = str(prompts.get(own.get("default_prompt_name") or "") or "")
        self._lower_case = bool(read_object(settings.model_path, "sentence_bert_config.json").get("do_lower_case", False))

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        scores = run_in_buckets(self._text, [pair for pairs in good.values() for pair in pairs], self._forward)
        start = 0
        for index, pairs in good.items():
            own = [score.item() for score in scores[start : start + len(pairs)]]
            answers[index] = {"SCORE": floats(own), "COUNT": ints([len(own)])}
            start += len(pairs)
        return answers

    def _read(self, row: Row) -> list[Encoding]:
        parse_parameters(RankParameters, row.parameters)
        query, documents = self._prompt + row.text("QUERY"), row.texts("DOCUMENTS")
        if not documents:
            raise BadInput("DOCUMENTS is empty: send at least one text to rank")
        if self._lower_case:
            query, documents = query.lower(), tuple(document.lower() for document in documents)
        return [self._text.encode(query, document) for document in documents]

    def _forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = self._model(**move(batch, self._model)).logits.float().squeeze(-1).cpu()
        finite(logits.numpy())
        return self._activation(logits)


def _activation(own: dict[str, Any], config: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Where CrossEncoder looks, in its order; a sigmoid where nothing is said, or where it would be code from elsewhere."""
    said = own.get("activation_fn")
    if said is None:
        kept = getattr(config, "sentence_transformers", None)
        said = kept.get("activation_fn") if isinstance(kept, dict) else None
    if said is None:
        said = getattr(config, "sbert_ce_default_activation_function", None)
    if not isinstance(said, str) or not said.startswith("torch."):
        return torch.sigmoid
    name = said.rpartition(".")[2]
    if name not in _ACTIVATIONS:
        raise RuntimeError(f"its activation function {said!r} is none of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]

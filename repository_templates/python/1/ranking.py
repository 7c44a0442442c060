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
from .next_words import NextWord

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
        own = read_object(settings.model_path, "config_sentence_transformers.json")
        prompts = own.get("prompts") or {}
        prompt = str(prompts.get(own.get("default_prompt_name") or "") or "")
        config = read_object(settings.model_path, "config.json")
        by_words = any(str(name).endswith("ForCausalLM") for name in config.get("architectures") or [])
        self._scorer = NextWord(settings, prompt) if by_words else Head(settings, prompt)
        self._activation = _activation(own, self._scorer.model.config)

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        every = [pair for pairs in good.values() for pair in pairs]
        scores = run_in_buckets(self._scorer.text, every, self._forward, side=self._scorer.side)
        start = 0
        for index, pairs in good.items():
            own = [score.item() for score in scores[start : start + len(pairs)]]
            answers[index] = {"SCORE": floats(own), "COUNT": ints([len(own)])}
            start += len(pairs)
        return answers

    def _read(self, row: Row) -> list[Encoding]:
        parse_parameters(RankParameters, row.parameters)
        query, documents = row.text("QUERY"), row.texts("DOCUMENTS")
        if not documents:
            raise BadInput("DOCUMENTS is empty: send at least one text to rank")
        return [self._scorer.encode(query, document) for document in documents]

    def _forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = self._scorer.forward(batch)
        finite(logits.numpy())
        return self._activation(logits)


class Head:
    """A classification head with one label."""

    side = ""  # the tokenizer's own

    def __init__(self, settings: Settings, prompt: str) -> None:
        self.model = load_model(settings, "AutoModelForSequenceClassification")
        labels = self.model.config.num_labels
        if labels != 1:
            raise RuntimeError(f"it has {labels} labels: a model that ranks has one (task: text-classification serves it)")
        self.text = Text.of(load_processor(settings, "AutoTokenizer"), settings, self.model)
        self._prompt = prompt
        self._lower_case = bool(read_object(settings.model_path, "sentence_bert_config.json").get("do_lower_case", False))

    def encode(self, query: str, document: str) -> Encoding:
        query = self._prompt + query
        if self._lower_case:
            query, document = query.lower(), document.lower()
        return self.text.encode(query, document)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.model(**move(batch, self.model)).logits.float().squeeze(-1).cpu()


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

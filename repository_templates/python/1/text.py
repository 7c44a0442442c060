"""Encoders of text: classification, zero-shot classification, masks to fill.

What enters: rows with TEXT (and TEXT_PAIR, CANDIDATE_LABELS). What leaves: LABEL and SCORE, or filled masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from .batching import Encoding, run_in_buckets
from .contract import (
    Answer,
    BadInput,
    Row,
    Settings,
    as_bytes,
    attempt,
    floats,
    ints,
    parse_parameters,
    short_text,
    within,
)
from .loading import load_text_model, move
from .scores import ClassifyParameters, check, rank, softmax
from .templates import fill

_MOST_MASKS, _MOST_FILLINGS = 100, 1_000
_LARGEST_LOGITS = 2**28  # numbers: 1 GB


class TextClassification:
    """One text, or a pair, → its labels."""

    def __init__(self, settings: Settings) -> None:
        self._model, self._text = load_text_model(settings, "AutoModelForSequenceClassification")

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        logits = run_in_buckets(self._text, [encoding for encoding, _ in good.values()], self._forward)
        for (index, (_, parameters)), one in zip(good.items(), logits, strict=True):
            answers[index] = rank(one.numpy(), self._model.config, parameters)
        return answers

    def _read(self, row: Row) -> tuple[Encoding, ClassifyParameters]:
        parameters = check(parse_parameters(ClassifyParameters, row.parameters))
        return self._text.encode(row.text("TEXT"), row.optional_text("TEXT_PAIR")), parameters

    def _forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self._model(**move(batch, self._model)).logits.float().cpu()


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShotParameters:
    hypothesis_template: str = "This example is {}."
    multi_label: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hypotheses:
    labels: tuple[str, ...]
    encodings: list[Encoding]
    multi_label: bool


class ZeroShotClassification:
    """Labels that the request brings, each asked of a model of natural language inference."""

    def __init__(self, settings: Settings) -> None:
        self._model, self._text = load_text_model(settings, "AutoModelForSequenceClassification")
        ids = self._model.config.label2id
        self._entailment = next((i for label, i in ids.items() if label.lower().startswith("entail")), -1)

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        pairs = [encoding for question in good.values() for encoding in question.encodings]
        logits = run_in_buckets(self._text, pairs, self._forward)
        start = 0
        for index, question in good.items():
            count = len(question.labels)
            answers[index] = self._decide(torch.stack(logits[start : start + count]).numpy(), question)
            start += count
        return answers

    def _read(self, row: Row) -> _Hypotheses:
        parameters = parse_parameters(ZeroShotParameters, row.parameters)
        text, labels = row.text("TEXT"), row.texts("CANDIDATE_LABELS")
        if not labels:
            raise BadInput("CANDIDATE_LABELS is empty: give at least one label")
        template = parameters.hypothesis_template
        hypotheses = [fill(template, short_text("CANDIDATE_LABELS", label)) for label in labels]
        # Only the text is cut: a cut hypothesis would be a different question.
        encodings = self._text.encode_with_each(text, hypotheses)
        return _Hypotheses(labels=labels, encodings=encodings, multi_label=parameters.multi_label)

    def _forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self._model(**move(batch, self._model)).logits.float().cpu()

    def _decide(self, logits: np.ndarray, question: _Hypotheses) -> Answer:
        if question.multi_label or len(question.labels) == 1:
            contradiction = -1 if self._entailment == 0 else 0
            scores = softmax(logits[:, [contradiction, self._entailment]])[:, 1]
        else:
            scores = softmax(logits[:, self._entailment])
        order = scores.argsort()[::-1]
        return {"LABEL": as_bytes([question.labels[i] for i in order]), "SCORE": floats(scores[order])}


@dataclass(frozen=True, slots=True, kw_only=True)
class FillParameters:
    top_k: int = 5
    targets: tuple[str, ...] | None = None


class FillMask:
    """What could stand at each mask of a text."""

    def __init__(self, settings: Settings) -> None:
        self._model, self._text = load_text_model(settings, "AutoModelForMaskedLM")
        self._tokenizer = self._text.tokenizer
        self._vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        # A pass makes a number for each token and each word of the vocabulary.
        budget = max(512, min(self._text.budget, _LARGEST_LOGITS // max(1, len(self._vocabulary))))
        self._text = replace(self._text, budget=budget)
        if self._tokenizer.mask_token_id is None:
            raise RuntimeError("fill-mask needs a tokenizer with a mask token; this folder's tokenizer has none")

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        logits = run_in_buckets(self._text, [encoding for encoding, _, _ in good.values()], self._forward)
        for (index, (encoding, top_k, targets)), one in zip(good.items(), logits, strict=True):
            answers[index] = self._fill(one, encoding["input_ids"], top_k, targets)
        return answers

    def _read(self, row: Row) -> tuple[Encoding, int, list[int]]:
        parameters = parse_parameters(FillParameters, row.parameters)
        within(parameters, top_k=(1, _MOST_FILLINGS))
        encoding = self._text.encode(row.text("TEXT"))
        masks = encoding["input_ids"].count(self._tokenizer.mask_token_id)
        if not masks:
            raise BadInput(f"TEXT has no {self._tokenizer.mask_token} to fill (or it lies past the longest input)")
        if masks > _MOST_MASKS or masks * parameters.top_k > _MOST_FILLINGS:
            raise BadInput(
                f"TEXT has {masks} masks to fill in {parameters.top_k} ways each; a text may have {_MOST_MASKS} masks and "
                f"{_MOST_FILLINGS} fillings"
            )
        targets = sorted({self._token_of(target) for target in parameters.targets or ()})
        return encoding, min(parameters.top_k, len(targets) or self._model.config.vocab_size), targets

    def _token_of(self, target: str) -> int:
        known = self._vocabulary.get(target)
        if known is not None:
            return int(known)
        tokens = self._tokenizer(target, add_special_tokens=False)["input_ids"]
        if not tokens:
            raise BadInput(f"parameter 'targets': {target!r} is no token of this model")
        return int(tokens[0])

    def _forward(self, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        logits = self._model(**move(batch, self._model)).logits
        masks = batch["input_ids"] == self._tokenizer.mask_token_id
        return [one[mask].float().softmax(dim=-1).cpu() for one, mask in zip(logits, masks.to(logits.device), strict=True)]

    def _fill(self, probabilities: torch.Tensor, ids: list[int], top_k: int, targets: list[int]) -> Answer:
        places = [place for place, token in enumerate(ids) if token == self._tokenizer.mask_token_id]
        scores, tokens, sequences, masks = [], [], [], []
        for number, (place, row) in enumerate(zip(places, probabilities, strict=True)):
            best = (row[targets] if targets else row).topk(top_k)
            for score, chosen in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                token = targets[chosen] if targets else chosen
                filled = [*ids[:place], token, *ids[place + 1 :]]
                # With several masks the others stay visible; they are special tokens and would vanish.
                sequences.append(self._tokenizer.decode(filled, skip_special_tokens=len(places) == 1))
                scores.append(score)
                tokens.append(token)
                masks.append(number)
        return {
            "SCORE": floats(scores),
            "TOKEN": np.asarray(tokens, dtype=np.int64),
            "TOKEN_STR": as_bytes([self._tokenizer.decode([token]) for token in tokens]),
            "SEQUENCE": as_bytes(sequences),
            "MASK": ints(masks),
            "COUNT": ints([len(scores)]),
        }

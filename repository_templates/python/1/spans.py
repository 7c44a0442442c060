"""Parts of a text: entities and answers, with their character offsets.

What enters: rows with TEXT, or QUESTION and CONTEXT. What leaves: spans with scores, best or first first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .alignment import Style, align
from .batching import run_in_buckets
from .contract import Answer, BadInput, Row, Settings, as_bytes, attempt, floats, ints, parse_parameters, short_text, within
from .finite import finite
from .loading import load_text_model, move
from .scores import softmax


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityParameters:
    aggregation_strategy: str = "none"
    ignore_labels: tuple[str, ...] = ("O",)
    stride: int | None = None


class TokenClassification:
    """Entities of a text. Grouping is transformers' own: its pipeline's code runs on logits that were computed in batches."""

    def __init__(self, settings: Settings) -> None:
        from transformers.pipelines.token_classification import TokenClassificationPipeline

        self._model, self._text = load_text_model(settings, "AutoModelForTokenClassification")
        self._pipeline = TokenClassificationPipeline(
            model=self._model, tokenizer=self._text.tokenizer, device=self._model.device
        )
        # A tokenizer that is Python's does not say where its tokens stand.
        self._style = None if self._text.tokenizer.is_fast else Style.of(self._text.tokenizer.get_vocab())

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        encodings = [encoding for windows, _, _ in good.values() for encoding in self._text.rows_of(windows)]
        logits = iter(run_in_buckets(self._text, encodings, self._forward, "right"))
        for index, (windows, text, parameters) in good.items():
            answers[index] = self._group(windows, text, parameters, [next(logits) for _ in windows["input_ids"]])
        return answers

    def _read(self, row: Row) -> tuple[Any, str, EntityParameters]:
        parameters = parse_parameters(EntityParameters, row.parameters)
        strategy = parameters.aggregation_strategy
        if strategy not in _STRATEGIES:
            raise BadInput(f"parameter 'aggregation_strategy' must be one of {', '.join(_STRATEGIES)}, found {strategy!r}")
        text = row.text("TEXT")
        if parameters.stride is None:
            return self._text.first_window(text), text, parameters
        if self._style is not None:
            raise BadInput("parameter 'stride': this model's tokenizer makes no windows; send a long text in parts")
        if strategy == "none":
            raise BadInput("parameter 'stride' needs an 'aggregation_strategy' other than none")
        if not 0 <= parameters.stride < (self._text.max_length or 2**31) - 2:
            raise BadInput(f"parameter 'stride' must be less than the longest input ({self._text.max_length} tokens)")
        return self._text.windows(text, stride=parameters.stride), text, parameters

    def _forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self._model(**move(batch, self._model)).logits.float().cpu()

    def _group(self, windows: Any, text: str, parameters: EntityParameters, logits: list[torch.Tensor]) -> Answer:
        from transformers.pipelines.token_classification import AggregationStrategy

        strategy = AggregationStrategy(parameters.aggregation_strategy)
        if self._style is not None:
            entities = self._find_places(windows, text, parameters, logits[0], self._style)
            return _answer(entities)
        outputs = []
        for number, ids in enumerate(windows["input_ids"]):
            finite(logits[number][: len(ids)].numpy())
            outputs.append(
                {
                    "logits": logits[number][None, : len(ids)],
                    "input_ids": torch.tensor([ids]),
                    "offset_mapping": torch.tensor([windows["offset_mapping"][number]]),
                    "special_tokens_mask": torch.tensor([windows["special_tokens_mask"][number]]),
                    "sentence": text,
                }
            )
        return _answer(self._pipeline.postprocess(outputs, strategy, list(parameters.ignore_labels)))

    def _find_places(
        self, windows: Any, text: str, parameters: EntityParameters, logits: torch.Tensor, style: Style
    ) -> list[dict[str, Any]]:
        """As the pipeline's ``postprocess``, with places that are found in the text; what has none has -1."""
        from transformers.pipelines.token_classification import AggregationStrategy

        strategy = AggregationStrategy(parameters.aggregation_strategy)
        ids, special = windows["input_ids"][0], np.array(windows["special_tokens_mask"][0])
        scores = softmax(finite(logits[: len(ids)].numpy()))
        words = [number for number, is_special in enumerate(special) if not is_special]
        tokens, places = self._tokens(text, len(words), style)
        all_places = [(-1, -1)] * len(ids)
        for number, place in zip(words, places, strict=True):
            all_places[number] = place or (-1, -1)
        found = self._pipeline.gather_pre_entities(text, np.array(ids), scores, all_places, special, strategy)
        for number, entity in enumerate(found):
            goes_on = style.goes_on(tokens[number], tokens[number - 1]) if number else False
            entity["is_subword"] = entity["is_subword"] if goes_on is None else goes_on
            entity["word"] = entity["word"] or tokens[number]
        return [
            entity
            for entity in self._pipeline.aggregate(found, strategy)
            if entity.get("entity_group", entity.get("entity")) not in parameters.ignore_labels
        ]

    def _tokens(self, text: str, count: int, style: Style) -> tuple[list[str], list[tuple[int, int] | None]]:
        """The ``count`` tokens of a text that were not cut off, and their places."""
        tokenizer = self._text.tokenizer
        seen = self._text.cut(text)
        tokens: list[str] = tokenizer.tokenize(seen)
        if len(tokens) < count:
            seen, tokens = text, tokenizer.tokenize(text)
        if len(tokens) < count:
            return [""] * count, [None] * count
        places = align(seen, tokens, style, tokenizer.unk_token)
        if tokenizer.truncation_side != "left":
            return tokens[:count], places[:count]
        left_out, before = len(tokens) - count, len(text) - len(seen)
        return tokens[left_out:], [place and (place[0] + before, place[1] + before) for place in places[left_out:]]


def _answer(entities: list[dict[str, Any]]) -> Answer:
    """What has no place (or only half of one) has -1 for both ends."""
    placed = [entity["start"] >= 0 and entity["end"] >= 0 for entity in entities]
    starts = [entity["start"] if is_placed else -1 for entity, is_placed in zip(entities, placed, strict=True)]
    ends = [entity["end"] if is_placed else -1 for entity, is_placed in zip(entities, placed, strict=True)]
    return {
        "ENTITY": as_bytes([entity.get("entity_group", entity.get("entity", "")) for entity in entities]),
        "SCORE": floats([float(entity["score"]) for entity in entities]),
        "WORD": as_bytes([entity["word"] for entity in entities]),
        "INDEX": ints([entity.get("index", -1) for entity in entities]),
        "START": ints(starts),
        "END": ints(ends),
        "COUNT": ints([len(entities)]),
    }


_STRATEGIES = ("none", "simple", "first", "average", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerParameters:
    top_k: int = 1
    doc_stride: int | None = None
    max_answer_len: int = 15
    max_seq_len: int | None = None
    handle_impossible_answer: bool = False
    align_to_words: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class _Span:
    score: float
    start: int
    end: int


class QuestionAnswering:
    """The parts of a context that answer a question. A long context is read in overlapping windows."""

    def __init__(self, settings: Settings) -> None:
        self._model, self._text = load_text_model(settings, "AutoModelForQuestionAnswering")
        if not self._text.tokenizer.is_fast:
            kind = type(self._text.tokenizer).__name__
            raise RuntimeError(f"question-answering needs a tokenizer that says where its tokens stand; {kind} does not")

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        encodings = [encoding for windows, _, _ in good.values() for encoding in self._text.rows_of(windows)]
        logits = iter(run_in_buckets(self._text, encodings, self._forward, "right"))
        for index, (windows, context, parameters) in good.items():
            spans: dict[tuple[int, int], _Span] = {}
            nothing = 1.0
            for number in range(len(windows["input_ids"])):
                found, null = find_spans(next(logits).numpy(), windows.encodings[number], parameters)
                nothing = min(nothing, null)
                for span in found:
                    place = (span.start, span.end)
                    spans[place] = max(span, spans.get(place, span))  # windows overlap: the same span comes twice
            if parameters.handle_impossible_answer:
                spans[0, 0] = _Span(score=nothing, start=0, end=0)
            best = sorted(spans.values(), reverse=True)[: parameters.top_k]
            answers[index] = {
                "ANSWER": as_bytes([context[span.start : span.end] for span in best]),
                "SCORE": floats([span.score for span in best]),
                "START": ints([span.start for span in best]),
                "END": ints([span.end for span in best]),
                "COUNT": ints([len(best)]),
            }
        return answers

    def _read(self, row: Row) -> tuple[Any, str, AnswerParameters]:
        parameters = parse_parameters(AnswerParameters, row.parameters)
        within(parameters, top_k=(1, 1000), max_answer_len=(1, 10**6), max_seq_len=(1, 10**6), doc_stride=(0, 10**6))
        question, context = row.text("QUESTION"), row.text("CONTEXT")
        if not question.strip() or not context.strip():
            raise BadInput("QUESTION and CONTEXT must not be empty")
        length = min(self._text.max_length or 384, parameters.max_seq_len or 384)
        short_text("QUESTION", question, 50 * length)
        room = length - len(self._text.tokenizer(question)["input_ids"]) - 2
        stride = min(length // 2, 128) if parameters.doc_stride is None else parameters.doc_stride
        if room < 8:
            raise BadInput(f"QUESTION leaves no room for the context in a window of {length} tokens")
        windows = self._text.windows(
            question, context, length=length, stride=max(0, min(stride, room // 2)), truncation="only_second"
        )
        return windows, context, parameters

    def _forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        output = self._model(**move(batch, self._model))
        return torch.stack([output.start_logits, output.end_logits], dim=1).float().cpu()


def find_spans(logits: np.ndarray, encoding: Any, parameters: AnswerParameters) -> tuple[list[_Span], float]:
    """The best spans of one window in the context's characters, and the score of "no answer" (the first token's).

    Scores are probabilities over the context's tokens and the first token, as transformers' question-answering pipeline
    computed them until version 5 dropped it.
    """
    in_context = np.array([sequence == 1 for sequence in encoding.sequence_ids])
    allowed = in_context.copy()
    allowed[0] = True
    starts, ends = softmax(np.where(allowed, finite(logits[:, : len(allowed)]), -10000.0))
    null = float(starts[0] * ends[0])
    starts, ends = np.where(in_context, starts, 0.0), np.where(in_context, ends, 0.0)
    scores = np.tril(np.triu(np.outer(starts, ends)), parameters.max_answer_len - 1)
    spans = []
    for flat in np.argsort(-scores, axis=None)[: parameters.top_k]:
        first, last = (int(i) for i in np.unravel_index(flat, scores.shape))
        if not (in_context[first] and in_context[last]):
            continue
        start, end = encoding.offsets[first][0], encoding.offsets[last][1]
        if parameters.align_to_words and encoding.word_ids[first] is not None and encoding.word_ids[last] is not None:
            start = encoding.word_to_chars(encoding.word_ids[first], 1)[0]
            end = encoding.word_to_chars(encoding.word_ids[last], 1)[1]
        spans.append(_Span(score=float(scores[first, last]), start=start, end=end))
    return spans, null

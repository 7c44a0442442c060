"""Rows of any length → few forward passes. What enters: token lists or tensors; what leaves: padded batches and their places.

A batch is capped by padded tokens, not by rows, so that one long text does not multiply the memory of 63 short ones.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from .contract import LONGEST_TEXT, BadInput, Settings, TooLong

Encoding = dict[str, list[int]]
K = TypeVar("K", bound=Hashable)

TOKENS_PER_BATCH = {"cpu": 8192, "cuda": 65536}
MOST_TOKENS = 2**20  # of all windows, or of a text with all its labels
_ROOM = 8  # tokens: those that stand between and around two texts, and a few of the text


def buckets(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in order of length, cut where padding to the longest would pass ``budget`` (a bucket has at least one row)."""
    bucket: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if bucket and lengths[index] * (len(bucket) + 1) > budget:
            yield bucket
            bucket = []
        bucket.append(index)
    if bucket:
        yield bucket


def group(keys: Mapping[int, K]) -> dict[K, list[int]]:
    """Row numbers by key, in order of first appearance."""
    groups: dict[K, list[int]] = {}
    for index, key in keys.items():
        groups.setdefault(key, []).append(index)
    return groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A tokenizer with what its model allows: the longest input, and tokens per forward pass."""

    tokenizer: Any
    max_length: int | None
    budget: int

    @classmethod
    def of(cls, tokenizer: Any, settings: Settings, model: Any) -> Text:
        if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
            tokenizer.pad_token = tokenizer.eos_token
        own_limit = tokenizer.model_max_length if tokenizer.model_max_length < 10**6 else None  # unset is 10**30
        budget = TOKENS_PER_BATCH[model.device.type]
        return cls(tokenizer=tokenizer, max_length=settings.max_length or own_limit, budget=budget)

    def encode(self, text: str, pair: str | None = None, *, truncate: bool = True, **options: Any) -> Encoding:
        """Tokens of one text, unpadded, cut to the model's longest input (or a fault, where cutting was refused)."""
        if truncate and self.max_length is not None:
            options = {"truncation": True, "max_length": self.max_length, **options}
            encoding: Encoding = self.tokenizer(self.cut(text), None if pair is None else self.cut(pair), **options).data
            # Almost always what was cut off here lies beyond the longest input as well; spaces that vanish are the rest.
            if len(encoding["input_ids"]) >= self.max_length or max(len(text), len(pair or "")) <= self._glance:
                return encoding
        encoding = self.tokenizer(text, pair, **options).data
        length = len(encoding["input_ids"])
        if not truncate and self.max_length is not None and length > self.max_length:
            raise TooLong(f"the input is {length} tokens long, this model takes at most {self.max_length}")
        return encoding

    def encode_with_each(self, text: str, pairs: Sequence[str]) -> list[Encoding]:
        """``text`` with each of ``pairs``. Only the text is cut, so each pair has to leave it room."""
        longest = max(len(self.tokenizer(pair)["input_ids"]) for pair in pairs)
        if self.max_length is not None and longest + _ROOM > self.max_length:
            raise BadInput(
                f"a text of {longest} tokens leaves no room in an input of {self.max_length}; shorten labels or template"
            )
        if len(pairs) * min(self.max_length or len(text), len(text)) > MOST_TOKENS:
            raise BadInput(f"{len(pairs)} texts with {len(text)} characters each are too much for one request; send several")
        return [self.encode(text, pair, truncation="only_first") for pair in pairs]

    @property
    def _glance(self) -> int:
        """Characters that hold the longest input many times over."""
        return max(8192, 32 * (self.max_length or LONGEST_TEXT))

    def cut(self, text: str) -> str:
        """As much of a text as its longest input can be made of."""
        return text[-self._glance :] if self.tokenizer.truncation_side == "left" else text[: self._glance]

    def windows(self, text: str, pair: str | None = None, *, length: int | None = None, stride: int, **options: Any) -> Any:
        """The ``BatchEncoding`` of one text in overlapping windows, with offsets: nothing of a long text is lost."""
        longest = length or self.max_length
        if longest is not None:
            self._check_windows(text, pair, longest, stride)
            options = {"truncation": True, "max_length": longest, "stride": stride, **options}
        return self.tokenizer(
            text, pair, return_overflowing_tokens=True, return_offsets_mapping=True, return_special_tokens_mask=True, **options
        )

    def first_window(self, text: str) -> Any:
        """As ``windows``, but the first alone: what is cut off is not looked at, as transformers does without a stride."""
        options = {} if self.max_length is None else {"truncation": True, "max_length": self.max_length}
        offsets = {"return_offsets_mapping": True} if self.tokenizer.is_fast else {}
        asked = {"return_special_tokens_mask": True, **offsets, **options}
        windows = self.tokenizer([self.cut(text)], **asked)
        if len(windows["input_ids"][0]) < (self.max_length or 0) and len(text) > self._glance:
            windows = self.tokenizer([text], **asked)
        return windows

    def _check_windows(self, text: str, pair: str | None, longest: int, stride: int) -> None:
        """Refuse a text whose windows together would be more than a million tokens: all of them are computed."""
        long = text if pair is None else pair
        step = max(1, longest - stride - (0 if pair is None else len(self.tokenizer(text)["input_ids"])) - _ROOM // 2)
        if len(long) // step * longest <= MOST_TOKENS:  # a token is at least a character, nearly always
            return
        windows = len(self.tokenizer(long)["input_ids"]) // step
        if windows * longest > MOST_TOKENS:
            raise BadInput(
                f"the text makes {windows:,} windows of {longest} tokens, a request may have {MOST_TOKENS // longest:,}; "
                "send it in parts, or with a smaller stride"
            )

    def rows_of(self, windows: Any) -> list[Encoding]:
        """What the model takes of each window."""
        names = [name for name in self.tokenizer.model_input_names if name in windows]
        return [{name: windows[name][i] for name in names} for i in range(len(windows["input_ids"]))]

    def pad(self, encodings: Sequence[Encoding], *, side: str = "") -> dict[str, torch.Tensor]:
        """One batch, padded to its longest row."""
        longest = max(len(encoding["input_ids"]) for encoding in encodings)
        left = (side or self.tokenizer.padding_side) == "left"
        fill = {"input_ids": self.tokenizer.pad_token_id or 0, "token_type_ids": self.tokenizer.pad_token_type_id}
        batch: dict[str, torch.Tensor] = {}
        for name in self.tokenizer.model_input_names:
            if name not in encodings[0]:
                continue
            rows = []
            for encoding in encodings:
                padding = [fill.get(name, 0)] * (longest - len(encoding[name]))
                rows.append(padding + encoding[name] if left else encoding[name] + padding)
            batch[name] = torch.tensor(rows)
        return batch


def run_in_buckets(
    text: Text,
    encodings: Sequence[Encoding],
    forward: Callable[[dict[str, torch.Tensor]], Sequence[torch.Tensor]],
    side: str = "",
) -> list[torch.Tensor]:
    """``forward`` over all encodings in few batches; one result a row, in the rows' order.

    ``side`` (right) is for who reads a row's places: XLNet's tokenizer would have its padding before them.
    """
    results: list[torch.Tensor | None] = [None] * len(encodings)
    for bucket in buckets([len(encoding["input_ids"]) for encoding in encodings], text.budget):
        for index, result in zip(bucket, forward(text.pad([encodings[i] for i in bucket], side=side)), strict=True):
            results[index] = result
    return [result for result in results if result is not None]


def run_same_shapes(
    inputs: Sequence[dict[str, torch.Tensor]], rows_per_batch: int, forward: Callable[[dict[str, torch.Tensor]], Sequence[Any]]
) -> list[Any]:
    """For images and audio: rows of equal shapes share a forward pass, so no row's answer depends on another's padding."""
    shapes = {i: tuple((name, tuple(value.shape)) for name, value in one.items()) for i, one in enumerate(inputs)}
    results: list[Any] = [None] * len(inputs)
    for members in group(shapes).values():
        for start in range(0, len(members), rows_per_batch):
            part = members[start : start + rows_per_batch]
            batch = {name: torch.cat([inputs[i][name] for i in part]) for name in inputs[part[0]]}
            for index, result in zip(part, forward(batch), strict=True):
                results[index] = result
    return results

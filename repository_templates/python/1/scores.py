"""Logits → LABEL and SCORE, the same way for text, images and audio (as transformers' pipelines do)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .contract import Answer, BadInput, as_bytes, floats, within
from .finite import finite


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyParameters:
    top_k: int | None = None
    function_to_apply: str | None = None


def check(parameters: ClassifyParameters) -> ClassifyParameters:
    function = parameters.function_to_apply
    if function not in (None, "softmax", "sigmoid", "none"):
        raise BadInput(f"parameter 'function_to_apply' must be softmax, sigmoid or none, found {function!r}")
    return within(parameters, top_k=(1, 10**6))


def rank(logits: np.ndarray, config: Any, parameters: ClassifyParameters, *, default_top_k: int | None = None) -> Answer:
    """Labels in order of score."""
    scores = _apply(finite(logits.astype(np.float32)), parameters.function_to_apply or _default_function(config))
    order = np.argsort(-scores, kind="stable")[: parameters.top_k or default_top_k]
    return {"LABEL": as_bytes([str(config.id2label[int(i)]) for i in order]), "SCORE": floats(scores[order])}


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _apply(logits: np.ndarray, function: str) -> np.ndarray:
    match function:
        case "softmax":
            return softmax(logits)
        case "sigmoid":
            return 1.0 / (1.0 + np.exp(-logits))
        case _:
            return logits


def _default_function(config: Any) -> str:
    if config.problem_type == "regression":
        return "none"
    return "sigmoid" if config.problem_type == "multi_label_classification" or config.num_labels == 1 else "softmax"

"""Numbers that are none (NaN, infinity): of broken weights, or of a precision too narrow for an input. They are no answer.

What enters: what a model computed. What leaves: the same, or ``BadOutput``. Outputs are looked at where they leave (model.py,
Ray's replica); what becomes words, labels or places before is looked at where that is chosen: the best of NaN looks like one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .contract import BadOutput

_WHY = "its weights are broken, or its numbers too narrow for this input; try the model in float32"


def check_outputs(arrays: Mapping[str, np.ndarray]) -> None:
    """Raises ``BadOutput`` that names the first output with a number that is none."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not is_finite(array):
            raise BadOutput(f"the model answered with {_word(array)} in {name}: most likely {_WHY}")


def is_finite(array: np.ndarray) -> bool:
    """A sum is finite only if each of its numbers is: one pass and no array of truths, but for a sum that overflows."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())


def finite(array: np.ndarray) -> np.ndarray:
    """``array``, from which something will be chosen."""
    if not is_finite(array):
        raise BadOutput(f"the model computed {_word(array)} where its answer is chosen from: most likely {_WHY}")
    return array


class FiniteScores:
    """A logits processor for ``generate``: each step's scores have a largest one (forbidden words have minus infinity)."""

    def __call__(self, _input_ids: Any, scores: Any) -> Any:
        if not np.isfinite(float(scores.amax(dim=-1).sum())):
            raise BadOutput(f"the model's scores of the next word are no numbers: most likely {_WHY}")
        return scores


def _word(array: np.ndarray) -> str:
    return "NaN" if np.isnan(array).any() else "infinity"

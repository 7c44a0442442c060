"""LightGBM: its text file enters, an estimator for ``table`` leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from .table import Table


def load(given: Mapping[str, str], _device: str) -> Table:
    """The booster."""
    tabular = json.loads(given["tabular"])
    booster = lightgbm.Booster(model_file=str(Path(given["model_path"]) / tabular["file"]))
    return Table(_Estimator(booster, tabular["columns"]), classifies=given["task"] == "tabular-classification")


class _Estimator:
    def __init__(self, booster: Any, columns: Sequence[str]) -> None:
        self._booster = booster
        self.columns = list(columns) or None

    def predict(self, table: Any) -> np.ndarray:
        made = self._raw(table)
        if made.ndim == 2:
            return made.argmax(axis=1)
        return (made > 0.5).astype(int) if self._binary() else made

    def probabilities(self, table: Any) -> tuple[np.ndarray, Sequence[str]] | None:
        made = self._raw(table)
        if made.ndim == 2:
            return made, [str(number) for number in range(made.shape[1])]
        return (np.stack([1 - made, made], axis=1), ["0", "1"]) if self._binary() else None

    def _raw(self, table: Any) -> np.ndarray:
        return np.asarray(self._booster.predict(table))

    def _binary(self) -> bool:
        return "objective=binary" in self._booster.model_to_string(num_iteration=1)

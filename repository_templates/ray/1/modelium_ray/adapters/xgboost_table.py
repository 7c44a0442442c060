"""XGBoost: a JSON or UBJSON file enters, an estimator for ``table`` leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from .table import Table


def load(given: Mapping[str, str], device: str) -> Table:
    """The booster itself, whichever of XGBoost's interfaces it was trained with."""
    tabular = json.loads(given["tabular"])
    booster = xgboost.Booster()
    booster.load_model(Path(given["model_path"]) / tabular["file"])
    booster.set_param({"device": "cuda" if device.startswith("cuda") else "cpu"})
    return Table(_Estimator(booster, tabular["columns"]), classifies=given["task"] == "tabular-classification")


class _Estimator:
    def __init__(self, booster: Any, columns: Sequence[str]) -> None:
        self._booster = booster
        self.columns = booster.feature_names or list(columns) or None

    def predict(self, table: Any) -> np.ndarray:
        """Of several classes the likeliest: the booster gives probabilities."""
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
        matrix = xgboost.DMatrix(table, feature_names=list(self.columns) if self.columns else None)
        return np.asarray(self._booster.predict(matrix))

    def _binary(self) -> bool:
        objective = json.loads(self._booster.save_config())["learner"]["objective"]["name"]
        return str(objective) == "binary:logistic"

"""scikit-learn: a file of skops or joblib enters, an estimator for ``table`` leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .table import Table


def load(given: Mapping[str, str], _device: str) -> Table:
    """skops files are read without running anything of theirs, unless their model is allowed to."""
    tabular = json.loads(given["tabular"])
    path = Path(given["model_path"]) / tabular["file"]
    model = _read_skops(path, trusted=given.get("custom_code") == "true") if path.suffix == ".skops" else _read_joblib(path)
    if not hasattr(model, "predict"):
        raise RuntimeError(f"{path.name} holds a {type(model).__name__}, which predicts nothing")
    return Table(_Estimator(model, tabular["columns"]), classifies=given["task"] == "tabular-classification")


def _read_skops(path: Path, *, trusted: bool) -> Any:
    from skops import io

    unknown = io.get_untrusted_types(file=path)
    if unknown and not trusted:
        raise RuntimeError(
            f"{path.name} has types that skops does not trust by itself ({', '.join(unknown[:3])}); if you do, say "
            "allow_custom_code: true"
        )
    return io.load(path, trusted=unknown)


def _read_joblib(path: Path) -> Any:
    import joblib

    return joblib.load(path)


class _Estimator:
    def __init__(self, model: Any, columns: Sequence[str]) -> None:
        self._model = model
        named = getattr(model, "feature_names_in_", None)
        self.columns = list(named) if named is not None else list(columns) or None

    def predict(self, table: Any) -> np.ndarray:
        return np.asarray(self._model.predict(table))

    def probabilities(self, table: Any) -> tuple[np.ndarray, Sequence[str]] | None:
        try:  # a pipeline has the method only where its last step has it
            score = self._model.predict_proba
        except AttributeError:
            return None
        made = np.asarray(score(table))
        return (made, [str(name) for name in self._model.classes_]) if made.ndim == 2 else None

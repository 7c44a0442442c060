"""Rows of a table → what an estimator says of them. What enters: rows with FEATURES or ROW. What leaves: the tensors of
modelium/signatures.py, whichever library the estimator is of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from modelium_tasks.contract import Answer, BadInput, Row, as_bytes, attempt


class Estimator(Protocol):
    """``columns``: their names in order, where the model has them."""

    @property
    def columns(self) -> Sequence[str] | None: ...

    def predict(self, table: Any) -> np.ndarray:
        """One value (or several) a row."""

    def probabilities(self, table: Any) -> tuple[np.ndarray, Sequence[str]] | None:
        """Rows × classes, and the classes' names; None where the model has none."""


class Table:
    """Answers rows, all of one request (or several) in one table."""

    def __init__(self, estimator: Estimator, *, classifies: bool) -> None:
        self._estimator = estimator
        self._classifies = classifies

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._cells)
        for width in sorted({len(cells) for cells in good.values()}):  # a wrong width is its own row's fault
            numbers = [number for number, cells in good.items() if len(cells) == width]
            said: Sequence[Answer | BadInput]
            try:
                said = self._estimate([good[number] for number in numbers])
            except (ValueError, TypeError, KeyError) as error:  # of the values: a text where a number belongs, a wrong width
                # Whose value it is, shows when each is asked by itself: they may be of several clients.
                alone = len(numbers) == 1
                said = [BadInput(_first_line(error))] if alone else [self.answer([rows[number]])[0] for number in numbers]
            for number, each in zip(numbers, said, strict=True):
                answers[number] = each
        return answers

    def _cells(self, row: Row) -> list[Any]:
        """The row's values in the model's order of columns."""
        values = row.inputs.get("FEATURES")
        if values is not None and len(values):
            return [float(value) for value in values]
        cells = json.loads(row.data("ROW"))
        if isinstance(cells, list):
            return cells
        names = self._estimator.columns
        if not isinstance(cells, dict):
            raise BadInput("ROW is neither a JSON list nor an object by column name")
        if names is None:
            return list(cells.values())  # the model has no names: in the order of the request
        if missing := [name for name in names if name not in cells]:
            raise BadInput(f"the column {missing[0]!r} is missing")
        if unknown := [name for name in cells if name not in names]:
            raise BadInput(f"the model has no column {unknown[0]!r}; it has {', '.join(map(str, names))}"[:300])
        return [cells[name] for name in names]

    def _estimate(self, cells: list[list[Any]]) -> list[Answer]:
        table = self._frame(cells)
        if not self._classifies:
            values = np.asarray(self._estimator.predict(table), dtype=np.float64).reshape(len(cells), -1)
            return [{"VALUE": row} for row in values]
        labels = [str(label) for label in np.asarray(self._estimator.predict(table)).reshape(len(cells), -1)[:, 0]]
        found = self._estimator.probabilities(table)
        answers = []
        for number, label in enumerate(labels):
            names, scores = (found[1], found[0][number]) if found is not None else ([label], np.array([np.nan]))
            answers.append(
                {
                    "LABEL": as_bytes([label]),
                    "CLASS": as_bytes([str(name) for name in names]),
                    "SCORE": np.asarray(scores, dtype=np.float64),
                    "COUNT": np.array([len(names)], dtype=np.int32),
                }
            )
        return answers

    def _frame(self, cells: list[list[Any]]) -> Any:
        """Numbers as an array; with names, or with texts among them, a table with columns where pandas is there."""
        names = self._estimator.columns
        numeric = all(isinstance(value, (int, float)) or value is None for row in cells for value in row)
        if names is not None and len(names) == len(cells[0]):
            try:
                import pandas as pd
            except ImportError:
                pass
            else:
                return pd.DataFrame(cells, columns=list(names))
        if numeric:
            return np.array([[np.nan if value is None else value for value in row] for row in cells], dtype=np.float64)
        try:  # Hugging Face's own example sends numbers as texts
            return np.array(cells, dtype=np.float64)
        except ValueError:
            return np.array(cells, dtype=np.object_)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__

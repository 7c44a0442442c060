"""A request's tensors → rows, and the rows' answers → tensors. What enters and leaves are numpy arrays, rows first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .contract import Answer, BadInput, Row, parse_json

Arrays = dict[str, np.ndarray]


def rows_of(values: Mapping[str, np.ndarray], is_cancelled: Callable[[], bool]) -> list[Row]:
    """Row i of every input belongs to row i of the others. Raises ``BadInput``."""
    count = max(len(array) for array in values.values())
    rows = []
    for i in range(count):
        inputs = {name: tuple(array[i].reshape(-1)) for name, array in values.items()}
        given = inputs.pop("PARAMETERS", None) or (b"",)
        rows.append(Row(inputs=inputs, parameters=parse_json(given[0]), is_cancelled=is_cancelled))
    return rows


def arrays_of(answers: Sequence[Answer | BadInput]) -> Arrays:
    """The answers of one request's rows. Raises the first fault, with its row."""
    good: list[Answer] = []
    for number, answer in enumerate(answers):
        if isinstance(answer, BadInput):
            (said,) = answer.args
            raise type(answer)(f"row {number}: {said}" if len(answers) > 1 else said)
        good.append(answer)
    return {name: stack([answer[name] for answer in good]) for name in good[0]}


def stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of one output; shorter ones are padded with nothing (zero, empty text)."""
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    shape = (len(arrays), max(len(array) for array in arrays), *arrays[0].shape[1:])
    padded = np.full(shape, b"" if arrays[0].dtype == np.object_ else 0, dtype=arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded

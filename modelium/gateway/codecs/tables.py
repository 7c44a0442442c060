"""Models of rows and columns: tables in JSON enter, labels or numbers leave, one a row.

Hugging Face's body is ``{"table": {"column": [value, …]}}`` (also under ``inputs``, as ``table`` or ``data``), its answer a
list of labels or of numbers. Rows are taken as well: lists in the model's own order of columns, or objects by column name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import orjson

from modelium.errors import InvalidBody
from modelium.gateway.codecs.answers import split_rows
from modelium.gateway.codecs.call import Call, Tensors, byte_rows
from modelium.gateway.codecs.fields import kind, nearest, shown, wrong
from modelium.values import ModelProfile, Task

_TABLE = ("table", "data")


def encode_table(profile: ModelProfile, inputs: object, parameters: Mapping[str, object]) -> Call:
    """The call for ``inputs``. Raises ``InvalidBody`` with the field that does not fit the model's columns."""
    rows, listed = _rows_of(inputs)
    _check_columns(profile, rows)
    count = parameters.get("top_k")

    def answer(chunks: Sequence[Tensors]) -> object:
        if profile.task is Task.TABULAR_REGRESSION:
            made = [row["VALUE"][0] if len(row["VALUE"]) == 1 else row["VALUE"] for row in split_rows(chunks)]
        else:
            made = [_classes(row, count) for row in split_rows(chunks)]
        return made if listed else made[0]

    return Call(inputs=_tensors(rows), rows=len(rows), splits=True, answer=answer)


def _rows_of(inputs: object) -> tuple[list[object], bool]:
    """Rows, each a list or an object; and whether there were several."""
    if isinstance(inputs, dict):
        named = [name for name in _TABLE if name in inputs]
        if named and len(inputs) == 1:
            return _turned(inputs[named[0]], f"inputs.{named[0]}"), True
        return [inputs], False
    if not isinstance(inputs, list):
        raise wrong("inputs", "rows, or an object with columns", inputs)
    if not inputs:
        raise InvalidBody("the list is empty", field="inputs")
    if any(isinstance(item, list | dict) for item in inputs):
        for index, item in enumerate(inputs):
            if not isinstance(item, list | dict):
                raise wrong(f"inputs[{index}]", "a row: a list, or an object by column name", item)
        return inputs, True
    return [inputs], False


def _turned(table: object, field: str) -> list[object]:
    """Columns → rows."""
    if isinstance(table, list):
        rows, _ = _rows_of(table)
        return rows
    if not isinstance(table, dict) or not table:
        if table == {}:
            raise InvalidBody("a table has at least one column", field=field)
        raise wrong(field, "an object with a list for each column", table)
    lengths = set()
    for name, column in table.items():
        if not isinstance(column, list):
            raise wrong(f"{field}.{shown(name)}", "a list with a value for each row", column)
        lengths.add(len(column))
    if len(lengths) != 1 or 0 in lengths:
        raise InvalidBody(f"all columns need equally many values, at least one; found {sorted(lengths)[:5]}", field=field)
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def _check_columns(profile: ModelProfile, rows: Sequence[object]) -> None:
    """Only where the model's file says what it wants; else the model itself does."""
    wanted = profile.tabular
    if wanted is None:
        return
    for index, row in enumerate(rows):
        field = f"inputs[{index}]" if len(rows) > 1 else "inputs"
        if isinstance(row, list) and wanted.features is not None and len(row) != wanted.features:
            raise InvalidBody(f"the model takes {wanted.features} columns, found {len(row)}", field=field)
        if isinstance(row, dict) and wanted.columns:
            for name in row:
                if name not in wanted.columns:
                    raise InvalidBody(
                        f"the model has no such column{nearest(name, list(wanted.columns))}", field=f"{field}.{shown(name)}"
                    )
            if missing := [name for name in wanted.columns if name not in row]:
                raise InvalidBody("is missing", field=f"{field}.{missing[0]}")


def _tensors(rows: Sequence[object]) -> Tensors:
    """Numbers alone travel as numbers; everything else as JSON, a row each."""
    numbers = all(isinstance(row, list) and row and all(_is_number(value) for value in row) for row in rows)
    lists = [row for row in rows if isinstance(row, list)]
    if numbers and len({len(row) for row in lists}) == 1:
        return {
            "FEATURES": np.array([[np.nan if value is None else value for value in row] for row in lists], dtype=np.float64)
        }
    for index, row in enumerate(rows):
        cells = row.items() if isinstance(row, dict) else enumerate(row) if isinstance(row, list) else ()
        field = f"inputs[{index}]" if len(rows) > 1 else "inputs"
        if isinstance(row, list) and not row:
            raise InvalidBody("a row has at least one value", field=field)
        for name, value in cells:
            if isinstance(value, list | dict):
                cell = f"{field}[{name if isinstance(name, int) else shown(name)!r}]"
                raise InvalidBody(f"a cell holds a number, a text or nothing, found {kind(value)}", field=cell)
    return {"ROW": byte_rows([(orjson.dumps(row),) for row in rows])}


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _classes(row: Mapping[str, list[object]], count: object) -> object:
    """The label; with ``top_k`` the likeliest classes with their probabilities."""
    (label,) = row["LABEL"]
    if not isinstance(count, int):
        return label
    pairs = list(zip(row["CLASS"], row["SCORE"], strict=True))
    if any(score != score for _, score in pairs):  # NaN: the model gives no probabilities
        return [{"label": label, "score": None}]
    best = sorted(pairs, key=lambda pair: -float(str(pair[1])))[:count]
    return [{"label": name, "score": score} for name, score in best]

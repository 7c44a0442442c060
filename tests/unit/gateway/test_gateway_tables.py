"""Models of rows and columns at ``/predict``: each way to write a table, each answer, and what is wrong with a wrong one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.errors import InferenceFailed
from modelium.gateway.codecs import encode
from modelium.signatures import signature
from modelium.values import TabularModel

from .ray_models import IRIS, PRICES, classified, post
from .stand_in import Served, Tensors, numbers

KINDS = ("setosa", "versicolor")
ANY_WIDTH = replace(IRIS, tabular=None)


def kinds(inputs: Tensors) -> Tensors:
    """A classifier: the first kind where the first column is below 5."""
    first = [row[0] for row in inputs["FEATURES"].tolist()] if "FEATURES" in inputs else [_first(row) for row in cells(inputs)]
    small = [value < 5 for value in first]
    return classified([KINDS[0] if s else KINDS[1] for s in small], KINDS, *([0.75, 0.25] if s else [0.1, 0.9] for s in small))


def cells(inputs: Tensors) -> list[Any]:
    """Rows that travelled as JSON."""
    return [json.loads(row) for (row,) in inputs["ROW"].tolist()]


def _first(row: Any) -> Any:
    return row["length"] if isinstance(row, dict) else row[0]


# -- in ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": {"table": {"length": [4.9, 6.2], "width": [3.0, 2.9]}}},
        {"inputs": {"data": {"length": [4.9, 6.2], "width": [3.0, 2.9]}}},
        {"table": {"length": [4.9, 6.2], "width": [3.0, 2.9]}},
        {"inputs": None, "table": {"length": [4.9, 6.2], "width": [3.0, 2.9]}},
        {"inputs": {"table": [[4.9, 3.0], [6.2, 2.9]]}},
        {"inputs": {"data": [[4.9, 3.0], [6.2, 2.9]]}},
        {"inputs": [[4.9, 3.0], [6.2, 2.9]]},
        {"inputs": [{"length": 4.9, "width": 3.0}, {"width": 2.9, "length": 6.2}]},
        {"inputs": [[4.9, 3.0], {"length": 6.2, "width": 2.9}]},
    ],
)
async def test_a_table_is_columns_or_rows_by_name_or_in_order(gateway: Served, body: dict[str, object]) -> None:
    url = gateway.serve(IRIS, kinds)
    assert await post(gateway, url, body) == (200, ["setosa", "versicolor"])


@pytest.mark.parametrize("row", [[6.2, 2.9], {"length": 6.2, "width": 2.9}])
async def test_one_row_alone_is_answered_alone(gateway: Served, row: object) -> None:
    url = gateway.serve(IRIS, kinds)
    assert await post(gateway, url, {"inputs": row}) == (200, "versicolor")
    assert await post(gateway, url, {"inputs": [row]}) == (200, ["versicolor"])


async def test_numbers_travel_as_numbers_and_nothing_as_nan(gateway: Served) -> None:
    url = gateway.serve(IRIS, kinds)
    await post(gateway, url, {"inputs": [[1, None], [2.5, 1e300]]})
    (seen,) = gateway.triton.seen
    assert set(seen) == {"FEATURES"}
    assert seen["FEATURES"].dtype == np.float64
    first, second = seen["FEATURES"].tolist()
    assert (first[0], math.isnan(first[1]), second) == (1.0, True, [2.5, 1e300])


async def test_texts_and_names_travel_as_they_were_written(gateway: Served) -> None:
    url = gateway.serve(PRICES, lambda inputs: {"VALUE": numbers(*[[1]] * len(inputs["ROW"]), dtype=np.float64)})
    rows: list[Any] = [["café", True, None, 2, "3.5"], {"größe": 1.5, "kind": "a\0b"}]
    assert await post(gateway, url, {"inputs": rows}) == (200, [1.0, 1.0])
    assert cells(gateway.triton.seen[-1]) == rows


async def test_rows_of_several_widths_go_to_a_model_that_does_not_say_its_own(gateway: Served) -> None:
    url = gateway.serve(ANY_WIDTH, kinds)
    assert await post(gateway, url, {"inputs": [[1], [9, 2]]}) == (200, ["setosa", "versicolor"])
    assert cells(gateway.triton.seen[-1]) == [[1], [9, 2]]


@pytest.mark.parametrize("most", [1, 2, 3, 1024])
async def test_a_long_table_is_asked_in_batches_and_answered_in_order(gateway: Served, most: int) -> None:
    url = gateway.serve(IRIS, kinds, max_batch_size=most)
    status, answer = await post(gateway, url, {"inputs": [[number, 0] for number in range(10)]})
    assert (status, answer) == (200, ["setosa"] * 5 + ["versicolor"] * 5)
    assert max(len(seen["FEATURES"]) for seen in gateway.triton.seen) <= most


cell = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53) | st.none()
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(cell, min_size=width, max_size=width), min_size=1, max_size=5)
)


@given(tables)
def test_rows_and_columns_of_the_same_table_reach_the_model_alike(rows: list[list[Any]]) -> None:
    profile = replace(ANY_WIDTH, tabular=TabularModel(file="x", columns=tuple("abcd"[: len(rows[0])])))
    columns = {name: [row[place] for row in rows] for place, name in enumerate("abcd"[: len(rows[0])])}
    in_order = encode(profile, "application/json", json.dumps({"inputs": rows}).encode())
    by_name = encode(profile, "application/json", json.dumps({"inputs": {"table": columns}}).encode())
    sent = [[None if math.isnan(value) else value for value in row] for row in in_order.inputs["FEATURES"].tolist()]
    assert sent == rows
    assert [list(row.values()) for row in cells(by_name.inputs)] == rows
    known = {tensor.name for tensor in signature(profile).inputs}
    assert {*in_order.inputs, *by_name.inputs} <= known
    assert in_order.rows == by_name.rows == len(rows)


# -- out -----------------------------------------------------------------------------------------------------------------


async def test_the_likeliest_classes_come_first_and_are_as_many_as_asked_for(gateway: Served) -> None:
    url = gateway.serve(IRIS, lambda _: classified(["b"], ["a", "b", "c"], [0.2, 0.7, 0.1]))
    scores = {"a": 0.2, "b": 0.7, "c": 0.1}
    for count, names in ((1, "b"), (2, "ba"), (3, "bac"), (9, "bac")):
        body = {"inputs": [[1, 2]], "parameters": {"top_k": count}}
        assert await post(gateway, url, body) == (200, [[{"label": name, "score": scores[name]} for name in names]])
    assert await post(gateway, url, {"inputs": [1, 2], "parameters": {"top_k": 1}}) == (200, [{"label": "b", "score": 0.7}])


async def test_a_model_without_probabilities_gives_its_label_with_none(gateway: Served) -> None:
    url = gateway.serve(IRIS, lambda _: classified(["b"], ["b"], [math.nan]))
    assert await post(gateway, url, {"inputs": [[1, 2]]}) == (200, ["b"])
    assert await post(gateway, url, {"inputs": [[1, 2]], "parameters": {"top_k": 3}}) == (
        200,
        [[{"label": "b", "score": None}]],
    )


async def test_classes_that_pad_an_answer_are_none_of_it(gateway: Served) -> None:
    padded: dict[str, Any] = {**classified(["b"], ["a", "b", ""], [0.25, 0.75, 0.0]), "COUNT": numbers([2], dtype=np.int32)}
    url = gateway.serve(IRIS, lambda _: padded)
    status, (best,) = await post(gateway, url, {"inputs": [[1, 2]], "parameters": {"top_k": 9}})
    assert (status, [one["label"] for one in best]) == (200, ["b", "a"])


async def test_a_regression_gives_a_number_a_row_or_one_a_target(gateway: Served) -> None:
    url = gateway.serve(PRICES, lambda _: {"VALUE": numbers([1.5], [-2], dtype=np.float64)})
    assert await post(gateway, url, {"inputs": [[1], [2]]}) == (200, [1.5, -2.0])
    gateway.serve(PRICES, lambda _: {"VALUE": numbers([1.5, 2], [3, 4], dtype=np.float64)})
    assert await post(gateway, url, {"inputs": [[1], [2]]}) == (200, [[1.5, 2.0], [3.0, 4.0]])
    gateway.serve(PRICES, lambda _: {"VALUE": numbers([0.5], dtype=np.float64)})
    assert await post(gateway, url, {"inputs": {"size": 1}}) == (200, 0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
async def test_a_number_that_json_has_not_is_null(gateway: Served, value: float) -> None:
    url = gateway.serve(PRICES, lambda _: {"VALUE": numbers([value], [1], dtype=np.float64)})
    assert await post(gateway, url, {"inputs": [[1], [2]]}) == (200, [None, 1.0])


# -- wrong ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": [[1, 2, 3]]}, "inputs: the model takes 2 columns, found 3"),
        ({"inputs": [1]}, "inputs: the model takes 2 columns, found 1"),
        ({"inputs": [[1, 2], [1]]}, "inputs[1]: the model takes 2 columns, found 1"),
        ({"inputs": {"table": [[1, 2], []]}}, "inputs[1]: the model takes 2 columns, found 0"),
        ({"inputs": {"length": 1, "wdth": 2}}, "inputs.wdth: the model has no such column; did you mean 'width'?"),
        ({"inputs": [{"length": 1, "width": 2}, {"length": 1}]}, "inputs[1].width: is missing"),
        ({"inputs": {}}, "inputs.length: is missing"),
        ({"table": {"length": [1]}}, "inputs.width: is missing"),
        ({"inputs": []}, "inputs: the list is empty"),
        ({"inputs": {"table": []}}, "inputs: the list is empty"),
        ({"inputs": {"table": {}}}, "inputs.table: a table has at least one column"),
        ({"inputs": {"table": {"length": [], "width": []}}}, "inputs.table: all columns need equally many values"),
        ({"inputs": {"table": {"length": [1, 2], "width": [1]}}}, "equally many values, at least one; found [1, 2]"),
        ({"inputs": {"data": {"length": 1, "width": 2}}}, "inputs.data.length: expected a list with a value for each row"),
        ({"inputs": {"table": "5.1,3.5"}}, "inputs.table: expected an object with a list for each column, found a string"),
        ({"inputs": [[1, 2], 3]}, "inputs[1]: expected a row: a list, or an object by column name, found 3"),
        ({"inputs": [[1, [2]]]}, "inputs[1]: a cell holds a number, a text or nothing, found a list"),
        ({"inputs": [["a", {"b": 1}]]}, "inputs[1]: a cell holds a number, a text or nothing, found an object"),
        ({"inputs": "5.1,3.5"}, "inputs: expected rows, or an object with columns, found a string"),
        ({"inputs": 5}, "inputs: expected rows, or an object with columns, found 5"),
        ({"inputs": None}, "inputs: expected rows, or an object with columns, found null"),
        ({}, "inputs: is missing"),
        ({"tabel": {"length": [1]}}, "tabel: unknown field"),
        ([[1, 2]], "the body: expected an object"),
        ({"inputs": [[1, 2]], "parameters": {"top_k": 0}}, "parameters.top_k: must be at least 1, found 0"),
        ({"inputs": [[1, 2]], "parameters": {"top": 1}}, "parameters.top: unknown parameter of tabular-classification"),
        ({"inputs": [[1, 2]], "stream": True}, "stream: answers are not streamed here"),
        (b"", "the body is empty"),
    ],
)  # fmt: skip
async def test_a_wrong_table_is_refused_with_its_place_and_loads_nothing(gateway: Served, body: object, said: str) -> None:
    url = gateway.serve(IRIS, kinds)
    gateway.controller.refuse = AssertionError("a lease was taken")
    status, answer = await post(gateway, url, body)
    assert (status, answer["type"]) == (422, "invalid_body")
    assert said in answer["error"]


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1" + b"0" * 400])
async def test_a_number_that_no_double_holds_is_no_json(gateway: Served, number: bytes) -> None:
    url = gateway.serve(IRIS, kinds)
    gateway.controller.refuse = AssertionError("a lease was taken")
    status, answer = await post(gateway, url, b'{"inputs": [[1, ' + number + b"]]}")
    assert (status, answer["type"]) == (400, "bad_request")
    assert "the body is not JSON" in answer["error"]


async def test_a_regression_has_no_likeliest_classes(gateway: Served) -> None:
    url = gateway.serve(PRICES)
    status, answer = await post(gateway, url, {"inputs": [[1]], "parameters": {"top_k": 1}})
    assert (status, answer["type"]) == (422, "invalid_body")
    assert "parameters.top_k: unknown parameter of tabular-regression" in answer["error"]


async def test_a_table_is_no_image(gateway: Served) -> None:
    url = gateway.serve(IRIS, kinds)
    status, answer = await post(gateway, url, b"\x89PNG", headers={"Content-Type": "image/png"})
    assert status == 422
    assert "the body is image/png, but this model does tabular-classification" in answer["error"]


async def test_what_the_model_says_of_a_cell_is_the_answer(gateway: Served) -> None:
    url = gateway.serve(IRIS, kinds)
    gateway.triton.faults = [InferenceFailed("could not convert string to float: 'long'")]
    assert await post(gateway, url, {"inputs": [["long", 2]]}) == (
        422,
        {"error": "could not convert string to float: 'long'", "type": "inference_failed"},
    )
    assert await post(gateway, url, {"inputs": [[1, 2]]}) == (200, ["setosa"])

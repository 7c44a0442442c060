"""The pure parts of the python runtime's template: parameters, rows, and that its tasks are those of modelium/signatures.py."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.errors import ContextExceeded
from modelium.resources import templates_directory
from modelium.triton.faults import stream_error
from modelium.values import Task

TEMPLATE = templates_directory() / "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    top_k: int = 5
    threshold: float | None = None
    flag: bool = False
    names: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def contract() -> Iterator[ModuleType]:
    """``contract.py`` as Triton's stub imports it: in the package that is named after the version."""
    sys.path.insert(0, str(TEMPLATE))
    yield importlib.import_module("1.contract")
    sys.path.remove(str(TEMPLATE))


def test_every_task_of_the_contract_has_code_and_no_other() -> None:
    table = table_of_tasks(TEMPLATE / "1" / "tasks.py")
    assert table.keys() == {task.value for task in Task if not task.row.only_ray and task is not Task.TENSORS}
    for module, name in table.values():
        tree = ast.parse((TEMPLATE / "1" / f"{module.removeprefix('.')}.py").read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def table_of_tasks(path: Path) -> dict[str, tuple[str, str]]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "TASKS":
            table: dict[str, tuple[str, str]] = ast.literal_eval(node.value)
            return table
    raise AssertionError("tasks.py has no table TASKS")


def test_a_row_that_is_too_long_is_marked_as_the_gateway_knows_it(contract: ModuleType) -> None:
    arrays_of = importlib.import_module("1.arrays").arrays_of
    for before, answers in (("", [contract.TooLong("too long")]), ("row 1: ", [{}, contract.TooLong("too long")])):
        with pytest.raises(contract.TooLong) as raised:
            arrays_of(answers)
        read = stream_error("m", str(raised.value))
        assert (type(read), str(read)) == (ContextExceeded, f"{before}too long")


def test_the_template_imports_nothing_of_modelium() -> None:
    for path in sorted((TEMPLATE / "1").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert not [name for name in names if name.partition(".")[0] == "modelium"], path.name


def test_the_locale_is_set_before_anything_heavy_is_imported() -> None:
    body = ast.parse((TEMPLATE / "1" / "instance.py").read_text(encoding="utf-8")).body
    imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [alias.name for alias in imports[1].names] == ["start"]  # after __future__
    start = (TEMPLATE / "1" / "start.py").read_text(encoding="utf-8")
    assert start.index("locale.setlocale") < start.index("import torch\n")


def test_parameters_are_read_with_their_types(contract: ModuleType) -> None:
    raw = {"top_k": 3, "threshold": 1, "flag": True, "names": ["a", "b"]}
    assert contract.parse_parameters(Parameters, raw) == Parameters(top_k=3, threshold=1.0, flag=True, names=("a", "b"))
    assert contract.parse_parameters(Parameters, {"names": "a", "top_k": None}) == Parameters(names=("a",))


@pytest.mark.parametrize(
    ("given_", "part"),
    [
        ({"topk": 3}, "unknown parameter 'topk'; did you mean 'top_k'?"),
        ({"zzz": 3}, "this task knows flag, names, threshold, top_k"),
        ({"top_k": True}, "'top_k' must be int"),
        ({"top_k": 1.5}, "'top_k' must be int"),
        ({"flag": 1}, "'flag' must be bool"),
        ({"threshold": "high"}, "'threshold' must be float"),
        ({"names": [1]}, "'names' must be list of strings"),
    ],
)
def test_wrong_parameters_are_named(contract: ModuleType, given_: dict[str, object], part: str) -> None:
    with pytest.raises(contract.BadInput) as error:
        contract.parse_parameters(Parameters, given_)
    assert part in str(error.value)


@given(raw=st.binary(max_size=40))
def test_any_bytes_are_parameters_or_a_fault(contract: ModuleType, raw: bytes) -> None:
    try:
        assert isinstance(contract.parse_json(raw), dict)
    except contract.BadInput as error:
        assert "PARAMETERS" in str(error)


def test_a_row_gives_text_and_says_what_is_missing(contract: ModuleType) -> None:
    row = contract.Row(
        inputs={"TEXT": ("größer".encode(),), "LABELS": (b"a", b"", b"b"), "BAD": (b"\xff",)},
        parameters={},
        is_cancelled=lambda: False,
    )
    assert row.text("TEXT") == "größer"
    assert row.texts("LABELS") == ("a", "b")
    assert row.optional_text("PAIR") is None
    for name, part in (("PAIR", "PAIR is missing"), ("BAD", "BAD is not UTF-8")):
        with pytest.raises(contract.BadInput, match=part):
            row.text(name)


def test_faults_stay_with_their_rows(contract: ModuleType) -> None:
    rows = [
        contract.Row(inputs={"TEXT": (text,)} if text else {}, parameters={}, is_cancelled=bool) for text in (b"a", b"", b"c")
    ]
    answers, good = contract.attempt(rows, lambda row: row.text("TEXT"))
    assert good == {0: "a", 2: "c"}
    assert [isinstance(answer, contract.BadInput) for answer in answers] == [False, True, False]

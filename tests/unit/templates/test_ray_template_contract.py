"""The template of entries that Ray serves against what Modelium promises of it: ways, tasks, tensors and parameters, by name.

The code is that of a written entry, with all that it borrows; Ray, torch and the libraries of adapters are not there.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelium.brain.runtimes.ray import way_of
from modelium.repository import render
from modelium.repository.config import parse_config
from modelium.signatures import PARAMETERS, SERVE_APP, signature
from modelium.values import (
    Capabilities,
    DeviceKind,
    Footprint,
    ModelProfile,
    Placement,
    RayWay,
    Replicas,
    Runtime,
    TabularModel,
    Task,
    WeightFormat,
)
from tests.unit.brain import clusters
from tests.unit.brain.worlds import profile

MINILM = profile("minilm", task=Task.SENTENCE_SIMILARITY)
IRIS = replace(clusters.IRIS, tabular=TabularModel(file="model.joblib", columns=("a", "b")), weight_format=WeightFormat.JOBLIB)
PRICES = replace(IRIS, name="prices", task=Task.TABULAR_REGRESSION)
RERANKER = profile("reranker", task=Task.TEXT_RANKING)
PAINTER = profile("painter", task=Task.TEXT_TO_IMAGE, library="diffusers")
BY_WAY = {
    RayWay.APP: clusters.APP,
    RayWay.TASK: MINILM,
    RayWay.SKLEARN: IRIS,
    RayWay.XGBOOST: replace(IRIS, library="xgboost"),
    RayWay.LIGHTGBM: replace(IRIS, library="lightgbm"),
    RayWay.CROSS_ENCODER: RERANKER,
    RayWay.DIFFUSERS: PAINTER,
}
PLACED = Placement(
    runtime=Runtime.RAY,
    device_id="host",
    device_kind=DeviceKind.HOST,
    device_index=-1,
    footprint=Footprint(estimated_bytes=1),
    max_batch_size=8,
    replicas=Replicas(),
    way=RayWay.TASK,
)
DTYPES = {"BYTES": np.object_, "FP32": np.float32, "FP64": np.float64, "INT32": np.int32}


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``1/`` of an entry."""
    return render(MINILM, PLACED, tmp_path_factory.mktemp("entries")) / "1"


@pytest.fixture(scope="module")
def module(code: Path) -> Iterator[Callable[[str], Any]]:
    """A module of the entry by its name; none of them stays for other tests."""
    before, writes = set(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(code))
    yield importlib.import_module
    sys.path.remove(str(code))
    sys.dont_write_bytecode = writes
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("modelium_ray", "modelium_tasks", "vllm_backend"):
            del sys.modules[name]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(nodes: Any) -> list[str]:
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return plain + [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]


# -- what it imports ---------------------------------------------------------------------------------------------------


def test_nothing_of_modelium_is_imported_and_ray_only_where_it_is_used(code: Path) -> None:
    files = sorted(code.rglob("*.py"))
    assert {path.parent.name for path in files} >= {"1", "modelium_ray", "adapters", "modelium_tasks", "vllm_backend"}
    for path in files:
        tree = tree_of(path)
        assert not [name for name in imports_of(ast.walk(tree)) if name.partition(".")[0] == "modelium"], path.name
        assert "ray" not in {name.partition(".")[0] for name in imports_of(tree.body)}, f"{path.name}: it takes a second"


def test_everything_that_is_borrowed_comes_along(code: Path) -> None:
    for path in (code / "model.py", *(code / "modelium_ray").rglob("*.py")):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("modelium_tasks", "vllm_backend"):
                assert node.module is not None
                place = code / node.module.replace(".", "/")
                for alias in node.names:
                    if (place / f"{alias.name}.py").is_file():
                        continue
                    assert alias.name in defined_in(place.with_suffix(".py")), f"{path.name}: {node.module}.{alias.name}"


def defined_in(path: Path) -> set[str]:
    found: set[str] = set()
    for node in tree_of(path).body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Assign(targets=targets):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found


def test_the_locale_is_set_before_anything_else_is_imported(code: Path) -> None:
    text = (code / "model.py").read_text(encoding="utf-8")
    assert imports_of(tree_of(code / "model.py").body)[0] == "locale"
    assert text.index("locale.setlocale") < text.index("import asyncio")


# -- ways and adapters -------------------------------------------------------------------------------------------------


def test_every_way_has_its_code_and_no_other(module: Any, code: Path) -> None:
    adapters = module("modelium_ray.adapters")
    assert {way.value for way in RayWay} == {"app", "engine", "task"} | adapters._ADAPTERS.keys()
    assert adapters._ADAPTERS.keys() > adapters.TABLES
    files = {path.stem for path in (code / "modelium_ray" / "adapters").glob("*.py")} - {"__init__", "table"}
    assert files == set(adapters._ADAPTERS.values())
    for name in adapters._ADAPTERS.values():
        (load,) = [
            node for node in tree_of(adapter(code, name)).body if isinstance(node, ast.FunctionDef) and node.name == "load"
        ]
        assert [argument.arg.lstrip("_") for argument in load.args.args] == ["given", "device"]


def adapter(code: Path, name: str) -> Path:
    return code / "modelium_ray" / "adapters" / f"{name}.py"


def test_what_only_ray_does_has_a_way_and_no_task_of_the_python_runtime() -> None:
    enabled = Capabilities(backends=frozenset({"python", "ray"}), ray_enabled=True)
    only_rays = {task for task in Task if task.row.only_ray}
    assert {model.task for model in (*BY_WAY.values(), PRICES)} - {MINILM.task, RERANKER.task} == only_rays
    for way, model in BY_WAY.items():
        assert way_of(model, enabled) is way


def given_of(model: ModelProfile, way: RayWay, directory: Path) -> dict[str, str]:
    config = parse_config((render(model, replace(PLACED, way=way), directory) / "config.pbtxt").read_text(encoding="utf-8"))
    return {name: value.string_value for name, value in config.parameters.items()}


@pytest.mark.parametrize("way", list(BY_WAY))
def test_what_a_replica_wants_to_know_is_in_its_entry(module: Any, code: Path, tmp_path: Path, way: RayWay) -> None:
    sources = {RayWay.APP: code / "modelium_ray" / "app.py", RayWay.TASK: code / "modelium_tasks" / "tasks.py"}
    name = module("modelium_ray.adapters")._ADAPTERS.get(way.value)
    tree = tree_of(sources[way] if name is None else adapter(code, name))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    takers = [each for each in functions if {argument.arg for argument in each.args.args} & {"given", "settings"}]
    subscripts = [node for taker in takers for node in ast.walk(taker) if isinstance(node, ast.Subscript)]
    wanted = {ast.literal_eval(node.slice) for node in subscripts if ast.unparse(node.value).endswith("given")}
    assert "model_path" in wanted and wanted <= given_of(BY_WAY[way], way, tmp_path).keys()


# -- tensors -----------------------------------------------------------------------------------------------------------


def fits(model: ModelProfile, rows: int, answer: Mapping[str, np.ndarray]) -> None:
    """Names, types and shapes are those of the task."""
    said = signature(model).outputs
    assert [tensor.name for tensor in said if tensor.name not in answer] == [] and len(said) == len(answer)
    for tensor in said:
        array = answer[tensor.name]
        assert array.dtype == DTYPES[tensor.datatype] and len(array) == rows
        assert array.ndim == 1 + len(tensor.dims), tensor.name
        assert all(size in (-1, found) for size, found in zip(tensor.dims, array.shape[1:], strict=True))


class Forest:
    """As scikit-learn's own: the class is whether the row adds up to something."""

    classes_ = np.array(["no", "yes"])

    def predict(self, table: Any) -> np.ndarray:
        yes = (np.asarray(table, dtype=float).sum(axis=1) > 0).astype(int)
        return np.asarray(self.classes_[yes])

    def predict_proba(self, table: Any) -> np.ndarray:
        scores = (np.asarray(table, dtype=float).sum(axis=1) > 0) * 0.5 + 0.25
        return np.stack([1 - scores, scores], axis=1)


class Prices(Forest):
    def predict(self, table: Any) -> np.ndarray:
        return np.asarray(np.asarray(table, dtype=float).sum(axis=1))


def replica(module: Any, monkeypatch: pytest.MonkeyPatch, directory: Path, model: ModelProfile, found: Any) -> Any:
    """The whole of a replica, but for the library that reads its file."""
    monkeypatch.setitem(sys.modules, "joblib", SimpleNamespace(load=lambda path: found))
    given = given_of(replace(model, path=directory), RayWay.SKLEARN, directory / "entries")
    return module("modelium_ray.replica").TaskReplica(given, "cpu", 8)


def texts(*rows: str) -> np.ndarray:
    return np.array([[row.encode()] for row in rows], dtype=np.object_)


async def test_a_table_is_answered_with_the_tensors_of_its_task(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forest = replica(module, monkeypatch, tmp_path, IRIS, Forest())
    inputs = {tensor.name for tensor in signature(IRIS).inputs} - {PARAMETERS.name}
    assert inputs == {"FEATURES", "ROW"}
    by_numbers = await forest.infer({"FEATURES": np.array([[1.0, 2.0], [-1.0, -2.0]])})
    by_names = await forest.infer({"ROW": texts('{"b": 2, "a": 1}', "[-1, -2]")})
    for answer in (by_numbers, by_names):
        fits(IRIS, 2, answer)
        assert answer["LABEL"].tolist() == [[b"yes"], [b"no"]] and answer["COUNT"].tolist() == [[2], [2]]
    prices = replica(module, monkeypatch, tmp_path, PRICES, Prices())
    answer = await prices.infer({"FEATURES": np.array([[1.0, 2.0]])})
    fits(PRICES, 1, answer)
    assert answer["VALUE"].tolist() == [[3.0]]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"a": 1}', "the column 'b' is missing"),
        ('{"a": 1, "b": 2, "c": 3}', "the model has no column 'c'; it has a, b"),
        ('"a"', "ROW is neither a JSON list nor an object by column name"),
        ('["x", 1]', "could not convert string to float"),
    ],
)
async def test_a_row_that_is_wrong_hurts_nobody_who_waits_beside_it(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, row: str, words: str
) -> None:
    forest = replica(module, monkeypatch, tmp_path, IRIS, Forest())
    asked = [forest.infer({"ROW": texts(each)}) for each in ("[1, 2]", row, "[-1, -2]")]
    first, wrong, last = await asyncio.gather(*asked)
    assert (first["LABEL"].item(0), last["LABEL"].item(0)) == (b"yes", b"no")
    assert isinstance(wrong, str) and words in wrong


def test_documents_are_ranked_with_the_tensors_of_the_task(module: Any) -> None:
    model = SimpleNamespace(predict=lambda pairs, show_progress_bar: [float(len(query) + len(text)) for query, text in pairs])
    ranking = module("modelium_ray.adapters.cross_encoder").Ranking(model)
    rows_of, arrays_of = module("modelium_tasks.arrays").rows_of, module("modelium_tasks.arrays").arrays_of
    asked = {"QUERY": texts("ab", "c"), "DOCUMENTS": np.array([[b"x", b"yy"], [b"z", b""]], dtype=np.object_)}
    assert asked.keys() == {tensor.name for tensor in signature(RERANKER).inputs} - {PARAMETERS.name}
    answer = arrays_of(ranking.answer(rows_of(asked, lambda: False)))
    fits(RERANKER, 2, answer)
    assert answer["SCORE"].tolist() == [[3.0, 4.0], [2.0, 0.0]] and answer["COUNT"].tolist() == [[2], [1]]


def test_a_painter_reads_and_answers_by_the_names_of_its_task(code: Path) -> None:
    """By its source: it imports torch."""
    nodes = list(ast.walk(tree_of(adapter(code, "text_to_image"))))
    asked = {ast.unparse(node) for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "row.text"}
    (answer,) = [node.value for node in nodes if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict)]
    assert asked == {f"row.text({tensor.name!r})" for tensor in signature(PAINTER).inputs if tensor != PARAMETERS}
    assert [ast.unparse(key) for key in answer.keys if key] == [repr(tensor.name) for tensor in signature(PAINTER).outputs]


def test_an_application_is_asked_by_the_names_of_its_table(module: Any) -> None:
    asked: list[str] = []
    reader = module("modelium_ray.forwarding").HttpForwarder(None)
    reader.read(SimpleNamespace(array=lambda name: asked.append(name)))
    assert sorted(set(asked)) == sorted(tensor.name for tensor in SERVE_APP.inputs)


def test_an_entry_that_nobody_owns_is_its_machines(module: Any) -> None:
    """One that was rendered by hand."""
    given = {"way": "task", "owner": "", "replicas": '{"min": 1, "max": 1, "target_ongoing_requests": 2, "bundles": []}'}
    settings = module("modelium_ray.settings").Settings.of(given, {"input": []}, directory="/r/m/1", name="m")
    assert settings.owner and all(c.isalnum() or c == "_" for c in settings.owner)

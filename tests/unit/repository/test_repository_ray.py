"""Entries of models that Ray serves: each way of serving, and that the template reads what was written."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2 as pb

from modelium.brain.runtimes.ray import way_of
from modelium.config import RaySettings
from modelium.errors import EntryError
from modelium.repository import ModelRepository, RayPlace, entry_basis
from modelium.repository.config import build_config, config_text, parse_config
from modelium.repository.writing import Order
from modelium.resources import templates_directory, triton_directory
from modelium.signatures import SERVE_APP, VLLM, signature
from modelium.values import (
    Bundle,
    Capabilities,
    DeviceKind,
    EnginePlan,
    Footprint,
    ModelOverride,
    ModelProfile,
    Placement,
    Pooling,
    PoolingMode,
    RayWay,
    Replicas,
    Runtime,
    TabularModel,
    Task,
    WeightFormat,
)
from tests.unit.brain import clusters
from tests.unit.brain.languages import TINY
from tests.unit.brain.worlds import profile

TEMPLATE = templates_directory() / "ray"
MINILM = profile(
    "minilm", task=Task.SENTENCE_SIMILARITY, pooling=Pooling(mode=PoolingMode.MEAN, normalize=True), max_length=256
)
APP = clusters.APP
IRIS = replace(clusters.IRIS, tabular=TabularModel(file="model.skops", features=2, columns=("length", "breadth")))
BOOSTED = replace(IRIS, name="boosted", library="xgboost", weight_format=WeightFormat.XGBOOST)
LEAVES = replace(IRIS, name="leaves", library="lightgbm", weight_format=WeightFormat.LIGHTGBM)
RERANKER = profile("reranker", task=Task.TEXT_RANKING)
PAINTER = profile("painter", task=Task.TEXT_TO_IMAGE, library="diffusers")
ENGINE = EnginePlan(
    engine_args={"model": "/elsewhere", "max_model_len": 128, "enforce_eager": True},
    devices=("host",),
    max_model_len=128,
    max_num_seqs=4,
    weight_bytes=1,
    kv_bytes=1,
    kv_bytes_per_token=1,
    kv_tokens=128,
    activation_bytes=0,
    graph_bytes=0,
    overhead_bytes=0,
)
ONE = Replicas()
NO_VLLM = Capabilities(backends=frozenset({"python", "ray"}), ray_enabled=True)
TABULAR = {"tabular": {"file": "model.skops", "columns": ["length", "breadth"]}}


def placed(
    replicas: Replicas | None = ONE, *, cuda: bool = False, batch: int = 32, engine: EnginePlan | None = None
) -> Placement:
    return Placement(
        runtime=Runtime.RAY,
        device_id="cuda:1" if cuda else "host",
        device_kind=DeviceKind.CUDA if cuda else DeviceKind.HOST,
        device_index=1 if cuda else -1,
        footprint=Footprint(estimated_bytes=1),
        max_batch_size=batch,
        instance_count=3,
        engine=engine,
        replicas=replicas,
    )


def on_its_way(model: ModelProfile, placement: Placement) -> Placement:
    """As the planner would have it."""
    found = RayWay.ENGINE if placement.engine is not None else way_of(model, NO_VLLM, by_hand=True)
    return replace(placement, way=found if isinstance(found, RayWay) else None)


def config_of(model: ModelProfile, placement: Placement, **changes: Any) -> pb.ModelConfig:
    """Through the text that Triton reads."""
    template = (TEMPLATE / "config.pbtxt").read_text(encoding="utf-8")
    placed = on_its_way(model, placement)
    given: dict[str, Any] = {"profile": model, "placement": placed, "source": model.path, "seen_by_triton": str}
    order = Order(**(given | changes))
    made = build_config(order, template)
    return parse_config(config_text(made, source="somewhere", what=model.name, placement=placement))


def parameters_of(config: pb.ModelConfig) -> dict[str, str]:
    return {name: value.string_value for name, value in config.parameters.items()}


def names(tensors: Any) -> list[tuple[str, bool]]:
    return [(tensor.name, bool(getattr(tensor, "optional", False))) for tensor in tensors]


# -- each way ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "way", "more"),
    [
        (MINILM, "task", {"required": ["TEXT"]}),
        (profile("vit", task=Task.IMAGE_TEXT_TO_TEXT), "task", {"required": ["TEXT", "IMAGE"]}),
        (TINY, "task", {"required": ["TEXT"]}),  # nothing was planned for an engine
        (IRIS, "sklearn", TABULAR),
        (BOOSTED, "xgboost", TABULAR),
        (LEAVES, "lightgbm", TABULAR),
        (RERANKER, "cross_encoder", {}),
        (PAINTER, "diffusers", {}),
    ],
)
def test_rows_go_in_and_out_with_the_tensors_of_the_task(model: ModelProfile, way: str, more: dict[str, object]) -> None:
    config, said = config_of(model, placed()), signature(model)
    assert (config.name, config.backend, config.max_batch_size) == (model.name, "python", 32)
    assert names(config.input) == names(said.inputs) and names(config.output) == names(said.outputs)
    assert not config.model_transaction_policy.decoupled and not config.HasField("dynamic_batching")
    parameters = parameters_of(config)
    assert (parameters["way"], parameters["task"], parameters["name"]) == (way, model.task.value, model.name)
    assert {name: json.loads(parameters[name]) for name in ("required", "tabular") if name in parameters} == more
    assert not parameters.keys() & {"import_path", "engine"}


def test_a_task_is_told_what_the_python_runtime_tells_it() -> None:
    parameters = parameters_of(config_of(MINILM, placed(), override=ModelOverride(allow_custom_code=True)))
    wanted = {"pooling": "mean", "normalize": "true", "max_length": "256", "weights": "safetensors", "custom_code": "true"}
    assert wanted.items() <= parameters.items() and parameters["model_path"] == "/incoming/minilm"


@pytest.mark.parametrize("cuda", [False, True])
def test_what_is_in_triton_only_forwards_wherever_the_replicas_are(cuda: bool) -> None:
    config = config_of(MINILM, placed(replace(ONE, visible_devices="1" if cuda else ""), cuda=cuda))
    (group,) = config.instance_group
    assert (group.count, group.kind, list(group.gpus)) == (1, pb.ModelInstanceGroup.KIND_CPU, [])
    replicas = json.loads(parameters_of(config)["replicas"])
    assert (replicas["device"], replicas["visible_devices"]) == (("cuda", "1") if cuda else ("cpu", ""))


def test_an_application_streams_what_it_likes() -> None:
    app = replace(APP, app=replace(APP.app, import_path="shop.api:build", args={"size": 3, "names": ["ä", None]}))  # type: ignore[type-var]
    config = config_of(app, placed(batch=0))
    assert (config.max_batch_size, config.model_transaction_policy.decoupled) == (0, True)
    assert names(config.input) == names(SERVE_APP.inputs) and names(config.output) == names(SERVE_APP.outputs)
    parameters = parameters_of(config)
    assert (parameters["way"], parameters["import_path"]) == ("app", "shop.api:build")
    assert json.loads(parameters["args"]) == {"size": 3, "names": ["ä", None]}


def test_an_engine_behind_ray_has_the_tensors_and_arguments_that_it_has_in_triton() -> None:
    config = config_of(TINY, placed(batch=0, engine=ENGINE), seen_by_triton=lambda _: "/mnt/tiny")
    assert (config.max_batch_size, config.model_transaction_policy.decoupled) == (0, True)
    assert names(config.input) == names(VLLM.inputs) and names(config.output) == names(VLLM.outputs)
    parameters = parameters_of(config)
    assert (parameters["way"], parameters["model_path"]) == ("engine", "/mnt/tiny")
    assert json.loads(parameters["engine"]) == {"model": "/mnt/tiny", "max_model_len": 128, "enforce_eager": True}


@pytest.mark.parametrize(
    ("settings", "address", "dashboard"),
    [
        (RaySettings(), "auto", ""),
        (RaySettings(address="head:6379"), "head:6379", "http://head:8265"),
        (RaySettings(address="head:6379", dashboard_url="http://proxy/ray"), "head:6379", "http://proxy/ray"),
    ],
)
def test_an_entry_says_which_ray_it_means(settings: RaySettings, address: str, dashboard: str) -> None:
    parameters = parameters_of(config_of(MINILM, placed(), ray=RayPlace.of(settings)))
    assert (parameters["ray_address"], parameters["ray_dashboard"]) == (address, dashboard)


@pytest.mark.parametrize(
    ("model", "placement", "words"),
    [
        (MINILM, placed(None), "minilm: nothing was planned for its replicas; Ray cannot serve it"),
        (MINILM, replace(placed(), way=None), "minilm: nothing was planned for its replicas; Ray cannot serve it"),
        (replace(MINILM, path=Path("/caf\udce9")), replace(placed(), way=RayWay.TASK), "Triton takes UTF-8 only: rename"),
    ],
)
def test_what_no_replica_could_run_is_refused_and_leaves_nothing(
    tmp_path: Path, model: ModelProfile, placement: Placement, words: str
) -> None:
    with pytest.raises(EntryError, match=words):
        ModelRepository(tmp_path).write(model, placement)
    assert list(tmp_path.iterdir()) == []


# -- the files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "batch"), [(MINILM, 32), (IRIS, 1024), (APP, 0)])
def test_an_entry_carries_all_the_code_that_its_replicas_run(tmp_path: Path, model: ModelProfile, batch: int) -> None:
    entry = ModelRepository(tmp_path, path_mapping={"/incoming": "/mnt"}).write(model, on_its_way(model, placed(batch=batch)))
    found = {str(path.relative_to(entry / "1")): path.read_bytes() for path in (entry / "1").rglob("*") if path.is_file()}
    own = TEMPLATE / "1"
    wanted = {str(path.relative_to(own)): path for path in own.rglob("*.py")}
    wanted |= {
        f"modelium_tasks/{p.name}": p for p in (templates_directory() / "python" / "1").glob("*.py") if p.name != "model.py"
    }
    backend = triton_directory() / "backends" / "vllm" / "vllm_backend"
    wanted |= {f"vllm_backend/{path.name}": path for path in backend.glob("*.py")}
    assert found == {name: path.read_bytes() for name, path in wanted.items()}
    assert sorted(path.name for path in entry.iterdir()) == ["1", "config.pbtxt", "modelium.json"]
    mark = json.loads((entry / "modelium.json").read_text())
    assert (mark["runtime"], mark["model_path"]) == ("ray", f"/mnt/{model.name}")
    assert parameters_of(parse_config((entry / "config.pbtxt").read_text()))["model_path"] == f"/mnt/{model.name}"


@pytest.mark.parametrize(
    "changed",
    [
        placed(replace(ONE, maximum=2)),
        placed(replace(ONE, target_ongoing_requests=3.0)),
        placed(replace(ONE, bundles=(Bundle(gpus=0.5),))),
        placed(replace(ONE, visible_devices="2"), cuda=True),
    ],
)
def test_an_entry_is_written_again_for_other_replicas(changed: Placement) -> None:
    assert entry_basis(placed()) != entry_basis(changed)
    assert entry_basis(placed()) == entry_basis(replace(placed(), reason="another", footprint=Footprint(estimated_bytes=9)))


# -- what the template reads -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings() -> Iterator[ModuleType]:
    sys.path.insert(0, str(TEMPLATE / "1"))
    yield importlib.import_module("modelium_ray.settings")
    sys.path.remove(str(TEMPLATE / "1"))


def read(settings: ModuleType, config: pb.ModelConfig) -> Any:
    """As model.py does: Triton hands the configuration over as JSON."""
    told = {"input": [{"name": tensor.name} for tensor in config.input], "max_batch_size": config.max_batch_size}
    return settings.Settings.of(parameters_of(config), told, directory="/repository/m/1", name=config.name)


_amounts = st.floats(0, 64) | st.sampled_from([0.0, 0.01, 1 / 3, 1.0])
_bundles = st.builds(Bundle, cpus=_amounts, gpus=_amounts, memory_bytes=st.integers(0, 2**50))
_replicas = st.builds(
    Replicas,
    minimum=st.integers(0, 100),
    maximum=st.integers(1, 100),
    target_ongoing_requests=st.floats(0.01, 1000),
    bundles=st.lists(_bundles, min_size=1, max_size=8).map(tuple),
    visible_devices=st.sampled_from(["", "0", "1,3"]),
)


@given(_replicas, st.booleans(), st.integers(0, 2000))
def test_replicas_are_read_as_they_were_planned(settings: ModuleType, replicas: Replicas, cuda: bool, batch: int) -> None:
    found = read(settings, config_of(MINILM, placed(replicas, cuda=cuda, batch=batch)))
    assert asdict(found.replicas) == asdict(replicas) | {"device": "cuda" if cuda else "cpu"}
    assert (found.name, found.way, found.address, found.dashboard) == ("minilm", "task", "auto", "")
    assert (found.inputs, found.batches, found.max_batch_size) == (("TEXT", "PARAMETERS"), True, max(1, batch))


_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
_leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _names
_json = _leaves | st.lists(_leaves, max_size=3) | st.dictionaries(_names, _leaves, max_size=3)


@settings_of_hypothesis(max_examples=40)
@given(st.lists(_names, max_size=4), _names, st.dictionaries(_names, _json, max_size=3))
def test_names_and_arguments_arrive_whatever_is_in_them(
    settings: ModuleType, columns: list[str], file: str, args: dict[str, Any]
) -> None:
    table = replace(IRIS, tabular=TabularModel(file=file, columns=tuple(columns)))
    assert json.loads(read(settings, config_of(table, placed())).given["tabular"]) == {"file": file, "columns": columns}
    assert APP.app is not None
    app = replace(APP, app=replace(APP.app, args=args))
    found = read(settings, config_of(app, placed(batch=0)))
    assert json.loads(found.given["args"]) == args and not found.batches


def test_the_template_is_a_whole_example_by_itself(settings: ModuleType) -> None:
    config = text_format.Parse((TEMPLATE / "config.pbtxt").read_text(encoding="utf-8"), pb.ModelConfig())
    found = read(settings, config)
    assert asdict(found.replicas) == asdict(ONE) | {"device": "cpu"}
    written = config_of(MINILM, placed())
    assert set(config.parameters) - set(written.parameters) == set(), "nothing in it that Modelium would not write"
    assert names(config.input) == names(written.input) and names(config.output) == names(written.output)
    assert not config.model_transaction_policy.decoupled

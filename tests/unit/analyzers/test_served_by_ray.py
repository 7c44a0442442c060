"""What only Ray serves: applications, tables, pipelines of diffusers; whole, half copied, wrong."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelium.analyzers import analyze
from modelium.values import Incomplete, ModelOverride, ModelProfile, Task, Unsupported, WeightFormat
from tests.unit.analyzers.folders import HOUR_S, candidate, lay, look, safetensors

ALLOWED = ModelOverride(allow_custom_code=True)
MINUTE_S = 60.0
APP = "from ray import serve\n\n\n@serve.deployment\nclass Greeter:\n    pass\n\n\napp = Greeter.bind()\n"


def settled(path: Path, override: ModelOverride | None = None) -> ModelProfile:
    result = look(path, age_s=MINUTE_S, override=override)
    assert isinstance(result, ModelProfile), result
    return result


def refused(path: Path, override: ModelOverride | None = None, *, age_s: float = MINUTE_S) -> Unsupported:
    result = look(path, age_s=age_s, override=override)
    assert isinstance(result, Unsupported), result
    return result


# -- applications ------------------------------------------------------------------------------------------------------


def test_an_application_is_served_where_it_is_allowed_to_run(tmp_path: Path) -> None:
    folder = lay(tmp_path / "greeter", {"serve_app.py": APP})
    told = refused(folder)
    assert "runs its code" in told.why and "models: {greeter: {allow_custom_code: true}}" in told.hint
    found = settled(folder, ALLOWED)
    assert (found.task, found.library, found.weight_format) == (Task.SERVE_APP, "ray-serve", WeightFormat.NONE)
    assert found.app is not None and found.app.import_path == "serve_app:app" and found.needs_custom_code


def test_a_folder_says_where_its_application_is_and_what_it_is_built_with(tmp_path: Path) -> None:
    config = "import_path: shop.api:build\nargs: {size: 3, names: [a, b]}\n"
    folder = lay(tmp_path / "m", {"modelium.yaml": config, "shop/api.py": "def build(args):\n    ...\n"})
    app = settled(folder, ALLOWED).app
    assert app is not None and app.import_path == "shop.api:build" and app.args == {"size": 3, "names": ["a", "b"]}


def test_a_folder_that_is_written_to_waits_for_quiet(tmp_path: Path) -> None:
    result = look(lay(tmp_path / "m", {"serve_app.py": APP}), override=ALLOWED)
    assert isinstance(result, Incomplete) and "nothing is written" in result.why


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"serve_app.py": "def f(:\n"}, "not Python"),
        ({"serve_app.py": "application = 1\n"}, "has no 'app' at its top level; it has application"),
        ({"serve_app.py": APP, "modelium.yaml": "importpath: a:b"}, "'importpath'"),
        ({"modelium.yaml": "import_path: nothing"}, "import_path is 'nothing'"),
        ({"modelium.yaml": "import_path: [a]"}, "import_path is ['a']"),
        ({"modelium.yaml": "- a"}, "no mapping"),
        ({"modelium.yaml": "import_path: ["}, "not YAML"),
        ({"serve_app.py": APP, "modelium.yaml": "args: 3"}, "args is no mapping"),
        ({"modelium.yaml": "import_path: shop:app"}, "shop.py: not there"),
    ],
)
def test_a_wrong_application_is_told_without_being_run(tmp_path: Path, files: dict[str, str | bytes], word: str) -> None:
    told = refused(lay(tmp_path / "m", files), ALLOWED, age_s=HOUR_S)
    assert word in told.why and told.hint


def test_a_name_that_only_a_star_import_brings_is_believed(tmp_path: Path) -> None:
    settled(lay(tmp_path / "m", {"serve_app.py": "from shop import *\n"}), ALLOWED)


def test_an_application_with_a_changed_line_is_another_revision(tmp_path: Path) -> None:
    folder = lay(tmp_path / "m", {"serve_app.py": APP})
    first = settled(folder, ALLOWED).fingerprint
    lay(folder, {"serve_app.py": APP + "\n# more\n"})
    assert settled(folder, ALLOWED).fingerprint != first


# -- tables ------------------------------------------------------------------------------------------------------------


def node(kind: str, **attributes: object) -> dict[str, object]:
    state = {"__class__": "dict", "__module__": "builtins", "content": attributes}
    return {"__class__": kind, "__module__": "sklearn.x", "__loader__": "ObjectNode", "content": state}


def number(value: int) -> dict[str, object]:
    return {"__class__": "int", "__loader__": "JsonNode", "content": str(value)}


def skops(schema: object) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("array.npy", b"\x93NUMPY" + b"\0" * 200)
        archive.writestr("schema.json", json.dumps(schema))
    return written.getvalue()


def pipeline(*steps: dict[str, object]) -> dict[str, object]:
    pairs = [{"__class__": "tuple", "content": [{"__class__": "str", "content": '"x"'}, step]} for step in steps]
    return node("Pipeline", steps={"__class__": "list", "content": pairs})


CLASSIFIER = pipeline(
    node("StandardScaler", n_features_in_=number(4)),
    node("LogisticRegression", classes_={"__class__": "ndarray"}),
)
XGBOOST = {
    "learner": {
        "gradient_booster": {"model": {"trees": []}},
        "learner_model_param": {"num_class": "3", "num_feature": "4"},
        "objective": {"name": "multi:softprob"},
    },
    "version": [3, 2, 0],
}
LIGHTGBM = (
    "tree\nversion=v4\nnum_class=1\nobjective=regression\nfeature_names=age height\n\nTree=0\nx\n\n"
    "end of parameters\n\npandas_categorical:null\n"
)


def ubjson(value: object) -> bytes:
    """As XGBoost writes it: lengths of eight bytes, everything a text or an object."""
    if isinstance(value, dict):
        parts = [b"L" + len(k).to_bytes(8, "big") + k.encode() + ubjson(v) for k, v in value.items()]
        return b"{" + b"".join(parts) + b"}"
    if isinstance(value, list):
        return b"[#L" + len(value).to_bytes(8, "big") + b"".join(b"i" + bytes([v]) for v in value)
    return b"SL" + len(str(value)).to_bytes(8, "big") + str(value).encode()


FILES = {
    "m.skops": skops(CLASSIFIER),
    "m.json": json.dumps(XGBOOST).encode(),
    "m.ubj": ubjson(XGBOOST),
    "m.txt": LIGHTGBM.encode(),
}


@pytest.mark.parametrize(
    ("file", "library", "task", "estimator"),
    [
        ("m.skops", "scikit-learn", Task.TABULAR_CLASSIFICATION, "Pipeline of LogisticRegression"),
        ("m.json", "xgboost", Task.TABULAR_CLASSIFICATION, "multi:softprob"),
        ("m.ubj", "xgboost", Task.TABULAR_CLASSIFICATION, "multi:softprob"),
        ("m.txt", "lightgbm", Task.TABULAR_REGRESSION, "regression"),
    ],
)
def test_tables_are_recognised_by_their_headers(tmp_path: Path, file: str, library: str, task: Task, estimator: str) -> None:
    found = settled(lay(tmp_path / "m", {file: FILES[file]}))
    assert (found.library, found.task, found.architecture) == (library, task, estimator)
    assert found.tabular is not None and found.tabular.file == file
    assert found.tabular.features == (2 if library == "lightgbm" else 4)
    assert (found.weight_bytes, found.weight_files) == (len(FILES[file]), (file,)) and not found.needs_custom_code
    assert found.tabular.columns == (("age", "height") if library == "lightgbm" else ())


def test_an_estimator_without_classes_estimates_numbers(tmp_path: Path) -> None:
    found = settled(lay(tmp_path / "m", {"m.skops": skops(node("Ridge", n_features_in_=number(3)))}))
    assert (found.task, found.architecture) == (Task.TABULAR_REGRESSION, "Ridge")


@pytest.mark.parametrize("file", FILES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(part=st.floats(0.1, 0.95))
def test_half_a_table_is_not_taken_for_a_whole_one(tmp_path: Path, file: str, part: float) -> None:
    data = FILES[file]
    result = analyze(candidate(lay(tmp_path / "m", {file: data[: max(48, int(len(data) * part))]})))
    assert isinstance(result, Incomplete), result


def test_a_pickle_is_only_read_where_it_is_allowed_and_says_what_it_is(tmp_path: Path) -> None:
    opening = b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00"
    pickled = opening + b"\x8c\x10sklearn.pipeline\x94\x8c\x08Pipeline\x94\x93\x94classes_."
    folder = lay(tmp_path / "m", {"model.joblib": pickled})
    assert "runs what is in it" in refused(folder).why and "skops" in refused(folder).hint
    found = settled(folder, ALLOWED)
    assert (found.task, found.architecture) == (Task.TABULAR_CLASSIFICATION, "Pipeline") and found.needs_custom_code


def test_a_table_that_does_not_say_its_task_is_asked_for_it(tmp_path: Path) -> None:
    folder = lay(tmp_path / "m", {"model.pkl": b"compressed"})
    told = refused(folder, ALLOWED)
    assert "does not say" in told.why and "tabular-classification" in told.hint
    assert settled(folder, ModelOverride(allow_custom_code=True, task=Task.TABULAR_REGRESSION)).task is Task.TABULAR_REGRESSION
    assert "does no fill-mask" in refused(folder, ModelOverride(allow_custom_code=True, task=Task.FILL_MASK)).why


def test_hugging_faces_scikit_learn_folder_names_file_columns_and_task(tmp_path: Path) -> None:
    hub = {"model": {"file": "iris.skops"}, "columns": ["a", "b", "c", "d"], "task": "tabular-regression"}
    folder = lay(tmp_path / "m", {"config.json": json.dumps({"sklearn": hub})})
    assert isinstance(look(folder), Incomplete)
    found = settled(lay(folder, {"iris.skops": skops(CLASSIFIER)}))
    assert found.task is Task.TABULAR_REGRESSION and found.tabular is not None
    assert found.tabular.columns == ("a", "b", "c", "d") and "sklearn.task" in found.task_source


def test_json_and_text_of_somebody_else_are_no_tables(tmp_path: Path) -> None:
    folder = lay(tmp_path / "m", {"notes.json": "{}", "notes.txt": "tree of life"})
    assert "expected config.json" in refused(folder, age_s=HOUR_S).why


# -- diffusers ---------------------------------------------------------------------------------------------------------


def test_a_pipeline_counts_the_weights_of_all_its_components(tmp_path: Path) -> None:
    components = {"unet": ["diffusers", "X"], "vae": ["diffusers", "Y"], "gone": [None, None]}
    index = json.dumps({"_class_name": "StableDiffusionPipeline", **components})
    weights = safetensors({"w": ("F16", [4, 8], 64)})
    folder = lay(tmp_path / "m", {"model_index.json": index, "unet/diffusion_pytorch_model.safetensors": weights})
    result = look(folder)
    assert isinstance(result, Incomplete) and result.missing[0].file == "vae/"
    lay(folder, {"vae/model.safetensors": weights, "vae/model.fp16.safetensors": weights, "vae/model.bin": b"no torch file"})
    found = settled(folder)
    assert (found.task, found.library, found.parameters) == (Task.TEXT_TO_IMAGE, "diffusers", 64)
    assert (found.weight_bytes, found.dtype) == (128, "float16")
    assert found.weight_files == ("unet/diffusion_pytorch_model.safetensors", "vae/model.safetensors")
    lay(folder, {"unet/diffusion_pytorch_model.safetensors": weights[:-8]})
    assert isinstance(look(folder), Incomplete)


def test_a_pipeline_of_another_kind_is_named(tmp_path: Path) -> None:
    told = refused(lay(tmp_path / "m", {"model_index.json": json.dumps({"_class_name": "DDPMPipeline"})}))
    assert "DDPMPipeline" in told.why and told.hint

"""What is dropped or asked about and is no model as it lies there: what it is, and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelium.values import ModelOverride, ModelProfile, Task
from tests.unit.analyzers.folders import (
    BERT,
    HOUR_S,
    candidate,
    drop,
    incomplete,
    lay,
    look,
    profile,
    safetensors,
    torch_zip,
    unsupported,
)
from tests.unit.analyzers.test_rankers import TRANSFORMER

POOLING = "sentence_transformers.models.Pooling"
SENTENCES = {
    "modules.json": json.dumps([{"path": "", "type": TRANSFORMER}, {"path": "1_Pooling", "type": POOLING}]),
    "1_Pooling/config.json": json.dumps({"embedding_dimension": 32, "pooling_mode": "mean"}),
}


def training(folder: Path, *numbers: int, best: str | None = None) -> Path:
    for number in numbers:
        drop(folder / f"checkpoint-{number}", files={"trainer_state.json": json.dumps({"best_model_checkpoint": best})})
    return lay(folder, {"runs/events": b"x"})


@pytest.mark.parametrize(
    ("numbers", "best", "words"),
    [
        ((500, 1000, 90), None, "3 checkpoints and no model beside; take checkpoint-1000, the last"),
        ((500, 1000), "out/run/checkpoint-500", "take checkpoint-500, the best by its trainer_state.json"),
        ((500, 1000), "C:\\out\\checkpoint-500", "take checkpoint-500, the best"),
        ((500, 1000), "out/checkpoint-700", "take checkpoint-1000, the last"),
        ((7,), None, "a checkpoint and no model beside; take checkpoint-7"),
    ],
)
def test_of_a_trainers_output_it_is_said_which_checkpoint_to_take(
    tmp_path: Path, numbers: tuple[int, ...], best: str | None, words: str
) -> None:
    folder = training(tmp_path / "run", *numbers, best=best)
    assert words in incomplete(folder).why, "the training may still write the model"
    told = unsupported(folder, age_s=HOUR_S)
    assert words in told.why and "mv checkpoint-" in told.hint and "trainer.save_model()" in told.hint


def test_the_state_beside_the_checkpoints_names_the_best_too(tmp_path: Path) -> None:
    folder = training(tmp_path / "run", 500, 1000, 1500)
    lay(folder, {"trainer_state.json": json.dumps({"best_model_checkpoint": "out/checkpoint-500"})})
    assert "take checkpoint-500, the best by its trainer_state.json" in incomplete(folder).why
    lay(folder, {"trainer_state.json": b"[]"})
    assert "take checkpoint-1500, the last" in incomplete(folder).why


def test_a_model_with_checkpoints_beside_is_a_model_and_a_checkpoint_is_one_too(tmp_path: Path) -> None:
    folder = drop(training(tmp_path / "run", 5))
    assert profile(folder).task is profile(folder / "checkpoint-5").task is Task.FEATURE_EXTRACTION


def test_a_state_that_is_broken_changes_nothing(tmp_path: Path) -> None:
    folder = training(tmp_path / "run", 5, 6)
    lay(folder, {"checkpoint-6/trainer_state.json": b"[]"})
    assert "take checkpoint-6, the last" in incomplete(folder).why


@pytest.mark.parametrize(
    ("name", "data", "words", "hint"),
    [
        ("m.zip", b"PK\3\4", "an archive", "unpack it"),
        ("m.tar.gz", b"\x1f\x8b", "an archive", "unpack it"),
        ("m.txz", b"\xfd7zXZ", "an archive", "unpack it"),
        ("m.gguf.gz", b"\x1f\x8b", "an archive", "unpack it"),
        ("model.safetensors", safetensors(), "weights alone (32 parameters in float32", "config.json, tokenizer and this file"),
        ("pytorch_model.pth", torch_zip(), "a training checkpoint", "save_pretrained()"),
        ("model.engine", b"x", "a TensorRT engine", "the ONNX file"),
        ("notes.txt", b"x", "is not a model", "drop the whole folder"),
    ],
)
def test_a_single_file_is_told_by_what_it_is(tmp_path: Path, name: str, data: bytes, words: str, hint: str) -> None:
    file = lay(tmp_path, {name: data}) / name
    told = unsupported(file)
    assert words in told.why and name in told.why and hint in told.hint


def test_a_safetensors_file_that_is_cut_is_not_whole(tmp_path: Path) -> None:
    file = lay(tmp_path, {"model.safetensors": safetensors()[:-8]}) / "model.safetensors"
    assert "model.safetensors" in incomplete(file).why


def test_an_entry_of_triton_is_told_from_a_model(tmp_path: Path) -> None:
    folder = lay(tmp_path / "m", {"config.pbtxt": 'backend: "python"', "1/model.py": "class TritonPythonModel: ..."})
    told = unsupported(folder)
    assert "Triton model repository (config.pbtxt and 1/model.py)" in told.why and "triton.model_repository" in told.hint


def test_json_that_is_no_object_is_refused(tmp_path: Path) -> None:
    assert "config.json holds a JSON str" in unsupported(drop(tmp_path / "m", files={"config.json": '"text"'})).why


def test_a_setfit_classifier_is_refused_by_name_and_its_body_is_served_on_demand(tmp_path: Path) -> None:
    own: dict[str, str | bytes] = {
        "model_head.pkl": b"x",
        "config_setfit.json": json.dumps({"labels": ["good", "bad"], "normalize_embeddings": False}),
    }
    folder = drop(tmp_path / "m", files={**SENTENCES, **own})
    told = unsupported(folder)
    assert "a SetFit classifier for 2 classes (good, bad)" in told.why and "pickle" in told.why
    assert "export_onnx" in told.hint and "models: {m: {task: sentence-similarity}}" in told.hint
    assert "SetFit" in unsupported(folder, override=ModelOverride(task=Task.TEXT_CLASSIFICATION)).why
    assert profile(folder, ModelOverride(task=Task.SENTENCE_SIMILARITY)).pooling is not None
    (folder / "config_setfit.json").unlink()
    assert "a SetFit classifier: its head" in unsupported(folder).why


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "modules.json"])
def test_a_byte_order_mark_is_refused_where_transformers_would_fail_on_it(tmp_path: Path, name: str) -> None:
    folder = drop(tmp_path / "m", files={**SENTENCES, "tokenizer_config.json": "{}"})
    assert isinstance(look(folder), ModelProfile)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(BOM + whole)
    told = unsupported(folder)
    assert f"{name} begins with a byte order mark" in told.why and "without BOM" in told.hint
    (folder / name).write_bytes(whole.decode().encode("utf-16"))
    assert f"{name} is UTF-16" in unsupported(folder).why


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"layer_norm_eps": float("nan")}, "config.json: layer_norm_eps is NaN"),
        ({"rope_scaling": {"factor": [1.0, float("inf")]}}, "config.json: rope_scaling.factor[1] is infinite"),
        ({"time_step_limit": [0.0, float("nan")]}, "time_step_limit[1] is NaN"),
    ],
)
def test_a_number_that_is_none_is_refused_with_its_key(tmp_path: Path, more: dict[str, object], words: str) -> None:
    told = unsupported(drop(tmp_path / "m", {**BERT, **more}))
    assert words in told.why and "config.json" in told.hint


def test_a_number_too_large_for_a_float_is_one_too(tmp_path: Path) -> None:
    text = json.dumps({**BERT, "eps": 7}).replace("7", "1e999")
    assert "eps is infinite" in unsupported(drop(tmp_path / "m", files={"config.json": text})).why


def test_words_and_mambas_endless_steps_are_left_alone(tmp_path: Path) -> None:
    fine = {**BERT, "id2label": {"0": "NaN", "1": "Infinity"}, "time_step_limit": [0.0, float("inf")]}
    assert profile(drop(tmp_path / "m", fine)).task is Task.FEATURE_EXTRACTION


def test_what_is_asked_about_may_have_vanished(tmp_path: Path) -> None:
    assert candidate(tmp_path / "gone.zip").path.exists() is False
    assert "vanished" in incomplete(tmp_path / "gone.zip").why

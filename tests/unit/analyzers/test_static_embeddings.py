"""Folders that are one table: StaticEmbedding and model2vec."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelium.brain.runtimes.python import find_obstacle
from modelium.signatures import signature
from modelium.values import ModelOverride, PoolingMode, Task, WeightFormat
from tests.unit.analyzers.folders import HOUR_S, TOKENIZER, incomplete, lay, profile, safetensors, torch_zip, unsupported

WHERE = "0_StaticEmbedding"
NEW = "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"
OLD = "sentence_transformers.models.StaticEmbedding"
NORMALIZE = "sentence_transformers.models.Normalize"
TABLE = safetensors({"embedding.weight": ("F32", [4, 8], 128)})
POTION = safetensors({"embeddings": ("F16", [4, 8], 64), "mapping": ("I64", [5], 40), "weights": ("F64", [5], 40)})
MODEL2VEC = json.dumps({"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": True, "hidden_dim": 8})


def modules(*kinds: str, where: str = WHERE) -> str:
    return json.dumps([{"path": where if number == 0 else f"{number}_x", "type": kind} for number, kind in enumerate(kinds)])


@pytest.mark.parametrize(("kind", "where"), [(NEW, WHERE), (OLD, WHERE), (NEW, ""), (NEW, ".")])
def test_a_static_embedding_is_an_embedder(tmp_path: Path, kind: str, where: str) -> None:
    prefix = f"{where}/" if where.strip(".") else ""
    files: dict[str, str | bytes] = {f"{prefix}tokenizer.json": TOKENIZER, f"{prefix}model.safetensors": TABLE}
    found = profile(lay(tmp_path / "m", {"modules.json": modules(kind, NORMALIZE, where=where), **files}))
    assert (found.task, found.library, found.architecture) == (
        Task.SENTENCE_SIMILARITY,
        "sentence-transformers",
        "StaticEmbedding",
    )
    assert (found.parameters, found.embedding_width, found.max_length) == (32, 8, None)
    assert found.weight_files == (f"{prefix}model.safetensors",)
    assert found.pooling is not None and found.pooling.normalize and found.pooling.mode is PoolingMode.MEAN
    assert find_obstacle(found) == "" and signature(found).outputs[0].dims == (8,)


def test_model2vec_is_one_too(tmp_path: Path) -> None:
    readme = "---\npipeline_tag: feature-extraction\n---\n"
    files: dict[str, str | bytes] = {
        "config.json": MODEL2VEC,
        "tokenizer.json": TOKENIZER,
        "model.safetensors": POTION,
        "README.md": readme,
    }
    found = profile(lay(tmp_path / "m", files))
    assert (found.task, found.library, found.embedding_width, found.max_length) == (
        Task.FEATURE_EXTRACTION,
        "model2vec",
        8,
        512,
    )
    assert found.pooling is not None and found.pooling.normalize and "model2vec" in found.task_source


def test_with_modules_it_is_sentence_transformers_own(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"config.json": MODEL2VEC, "tokenizer.json": TOKENIZER, "model.safetensors": POTION}
    found = profile(lay(tmp_path / "m", {**files, "modules.json": modules(NEW, where=".")}))
    assert found.library == "sentence-transformers" and found.pooling is not None and not found.pooling.normalize


def test_torch_weights_are_read_too(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"{WHERE}/tokenizer.json": TOKENIZER, f"{WHERE}/pytorch_model.bin": torch_zip()}
    told = unsupported(lay(tmp_path / "m", {"modules.json": modules(NEW), **files}))
    assert "none of the tensors embedding.weight or embeddings" in told.why


@pytest.mark.parametrize("name", [f"{WHERE}/tokenizer.json", f"{WHERE}/model.safetensors"])
def test_what_is_missing_is_waited_for_and_then_named(tmp_path: Path, name: str) -> None:
    files: dict[str, str | bytes] = {f"{WHERE}/tokenizer.json": TOKENIZER, f"{WHERE}/model.safetensors": TABLE}
    del files[name]
    folder = lay(tmp_path / "m", {"modules.json": modules(NEW), **files})
    assert incomplete(folder).missing[0].file == name
    assert f"copy {name} too" in unsupported(folder, age_s=HOUR_S).hint


def test_half_a_table_is_not_whole_and_another_one_is_refused(tmp_path: Path) -> None:
    folder = lay(tmp_path / "m", {"modules.json": modules(NEW), f"{WHERE}/tokenizer.json": TOKENIZER})
    lay(folder, {f"{WHERE}/model.safetensors": TABLE[:-8]})
    assert "model.safetensors" in incomplete(folder).why
    lay(folder, {f"{WHERE}/model.safetensors": safetensors()})
    assert "none of the tensors" in unsupported(folder).why


def test_another_module_or_another_task_is_refused(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"{WHERE}/tokenizer.json": TOKENIZER, f"{WHERE}/model.safetensors": TABLE}
    folder = lay(tmp_path / "m", {"modules.json": modules(NEW, NORMALIZE), **files})
    assert profile(folder).weight_format is WeightFormat.SAFETENSORS
    assert "not for fill-mask" in unsupported(folder, override=ModelOverride(task=Task.FILL_MASK)).why
    lay(folder, {"modules.json": modules(NEW, "sentence_transformers.models.LSTM")})
    assert "LSTM beside a StaticEmbedding" in unsupported(folder).why

"""Folders as they come: empty, half copied, vanished, linked out of the watch directory, of other kinds, with odd files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelium.analyzers import analyze
from modelium.values import Incomplete, ModelProfile, Unsupported, WeightFormat
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


def test_an_empty_folder_is_incomplete_and_unsupported_when_nothing_comes(tmp_path: Path) -> None:
    folder = lay(tmp_path / "m", {})
    assert "expected config.json or an .onnx file" in incomplete(folder).why
    assert unsupported(folder, age_s=HOUR_S).hint


def test_a_folder_without_config_shows_the_weights_that_are_coming(tmp_path: Path) -> None:
    folder = lay(tmp_path / "m", {"model.safetensors": safetensors()[:100]})
    assert {part.file for part in incomplete(folder).missing} == {"config.json", "model.safetensors"}


def test_a_config_alone_waits_for_weights_and_names_a_download_under_way(tmp_path: Path) -> None:
    folder = lay(tmp_path / "m", {"config.json": json.dumps(BERT), "model.safetensors.part": b"x" * 70})
    (part,) = incomplete(folder).missing
    assert (part.file, part.present_bytes) == ("model.safetensors", 70)
    assert "weights" in unsupported(folder, age_s=HOUR_S).hint


@pytest.mark.parametrize(
    "name", [".model.safetensors", "model.safetensors.incomplete", "model.safetensors.tmp", "model.safetensors~"]
)
def test_hidden_and_temporary_names_are_not_weights(tmp_path: Path, name: str) -> None:
    incomplete(lay(tmp_path / "m", {"config.json": json.dumps(BERT), "tokenizer.json": "{}", name: safetensors()}))


def test_a_file_that_aria2_is_still_writing_is_not_taken_for_whole(tmp_path: Path) -> None:
    folder = drop(tmp_path / "m", files={"model.safetensors.aria2": b"x"})
    assert "being downloaded" in incomplete(folder).why
    (folder / "model.safetensors.aria2").unlink()
    profile(folder)


def test_a_missing_tokenizer_is_waited_for_and_then_named(tmp_path: Path) -> None:
    folder = drop(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    assert incomplete(folder).missing[0].file == "tokenizer.json"
    assert "copy tokenizer.json" in unsupported(folder, age_s=HOUR_S).hint
    (folder / "vocab.txt").write_text("[UNK]\n")
    profile(folder)


def test_all_that_is_missing_is_shown_at_once(tmp_path: Path) -> None:
    folder = drop(tmp_path / "m", files={"model.safetensors": safetensors()[:60], "tokenizer.json": '{"model": {"vo'})
    assert {part.file for part in incomplete(folder).missing} == {"model.safetensors", "tokenizer.json"}


def test_a_half_copy_that_completes_later_becomes_a_profile(tmp_path: Path) -> None:
    folder, whole = tmp_path / "m", safetensors()
    source = drop(tmp_path / "source")
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        for cut in (0, 20, None):
            (folder / name).write_bytes((source / name).read_bytes()[:cut])
            assert isinstance(look(folder), Incomplete)
    for cut in (4, 60, len(whole) - 1):
        (folder / "model.safetensors").write_bytes(whole[:cut])
        assert isinstance(look(folder), Incomplete)
    (folder / "model.safetensors").write_bytes(whole)
    assert isinstance(look(folder), ModelProfile)


# -- shards ------------------------------------------------------------------------------------------------------------


def _sharded(folder: Path, *, total: int | None = 256) -> Path:
    shards = {f"model-0000{n}-of-00002.safetensors": safetensors({f"w{n}": ("F32", [32], 128)}) for n in (1, 2)}
    index = {"metadata": {"total_size": total}, "weight_map": {f"w{n}": f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}}
    drop(folder, files={**shards, "model.safetensors.index.json": json.dumps(index)})
    (folder / "model.safetensors").unlink()
    return folder


def test_shards_are_summed(tmp_path: Path) -> None:
    found = profile(_sharded(tmp_path / "m"))
    assert (found.parameters, found.weight_bytes) == (64, 256)


def test_the_files_that_a_load_reads_come_with_the_profile(tmp_path: Path) -> None:
    shards = tuple(f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    assert profile(_sharded(tmp_path / "m")).weight_files == shards
    files: dict[str, str | bytes] = {"pytorch_model.bin": torch_zip(), "model-of-somebody-else.safetensors": b""}
    assert profile(drop(tmp_path / "n", files=files)).weight_files == ("model.safetensors",)
    (tmp_path / "n" / "model.safetensors").unlink()
    assert profile(tmp_path / "n").weight_files == ("pytorch_model.bin",)


def test_a_missing_and_a_short_shard_are_named_with_their_sizes(tmp_path: Path) -> None:
    folder = _sharded(tmp_path / "m")
    (folder / "model-00002-of-00002.safetensors").unlink()
    found = incomplete(folder, age_s=HOUR_S)
    assert "model-00002-of-00002.safetensors" in found.why and found.missing[0].expected_bytes == 128
    first = folder / "model-00001-of-00002.safetensors"
    size = first.stat().st_size
    os.truncate(first, size - 28)
    parts = {part.file: (part.present_bytes, part.expected_bytes) for part in incomplete(folder).missing}
    assert parts["model-00001-of-00002.safetensors"] == (size - 28, size)


def test_shards_before_their_index_are_incomplete(tmp_path: Path) -> None:
    folder = _sharded(tmp_path / "m")
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model-00001-of-00002.safetensors").unlink()
    files = {part.file for part in incomplete(folder).missing}
    assert files == {"model.safetensors.index.json", "model-00001-of-00002.safetensors"}


def test_an_index_that_lies_is_refused(tmp_path: Path) -> None:
    folder = _sharded(tmp_path / "m")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w1": "model-00002-of-00002.safetensors"}}))
    assert "lacks" in unsupported(folder).why
    index.write_text(json.dumps({"weight_map": {"w1": "../other/model.safetensors"}}))
    assert "outside" in unsupported(folder).why
    index.write_text(json.dumps({"weight_map": {}}))
    assert "no shards" in unsupported(folder).why


def test_torch_shards_are_read_too_and_safetensors_win(tmp_path: Path) -> None:
    index = {"weight_map": {"w": "pytorch_model-00001-of-00001.bin"}}
    torch_files: dict[str, str | bytes] = {
        "pytorch_model.bin.index.json": json.dumps(index),
        "pytorch_model-00001-of-00001.bin": torch_zip(),
    }
    folder = drop(tmp_path / "m", files=torch_files)
    assert profile(folder).weight_format is WeightFormat.SAFETENSORS
    (folder / "model.safetensors").unlink()
    assert profile(folder).weight_format is WeightFormat.PICKLE


# -- links and the file system -----------------------------------------------------------------------------------------


def test_a_hugging_face_cache_folder_is_followed_inside_the_root(tmp_path: Path) -> None:
    source = drop(tmp_path / "elsewhere")
    cache = tmp_path / "incoming" / "models--org--m"
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for number, file in enumerate(sorted(source.iterdir())):
        file.rename(cache / "blobs" / f"sha{number}")
        (snapshot / file.name).symlink_to(f"../../blobs/sha{number}")
    result = look(snapshot, root=tmp_path / "incoming")
    assert isinstance(result, ModelProfile) and result.parameters == 32
    (cache / "blobs" / "sha1").unlink()
    missing = look(snapshot, root=tmp_path / "incoming")
    assert isinstance(missing, Incomplete) and "link" in missing.why


def test_links_that_leave_the_watch_directory_are_refused(tmp_path: Path) -> None:
    secret = lay(tmp_path / "outside", {"secret.json": "{}"})
    root = tmp_path / "incoming"
    folder = drop(root / "m")
    (folder / "vocab.txt").symlink_to(secret / "secret.json")
    found = unsupported(folder)
    assert "vocab.txt is a link to" in found.why and found.hint
    (folder / "vocab.txt").unlink()
    (folder / "gone").symlink_to("/nowhere/at/all")
    unsupported(folder)
    whole = drop(tmp_path / "real")
    (root / "linked").symlink_to(whole)
    assert "outside" in unsupported(root / "linked").why
    (root / "m.onnx").symlink_to(secret / "secret.json")
    assert "outside" in unsupported(root / "m.onnx").why


def test_a_link_in_a_circle_and_a_pipe_do_no_harm(tmp_path: Path) -> None:
    folder = drop(tmp_path / "m")
    (folder / "circle").symlink_to(folder)
    (folder / "deep").mkdir()
    os.mkfifo(folder / "model.safetensors.index.json")
    profile(folder)
    (folder / "self").symlink_to("self")
    assert isinstance(look(folder), Incomplete | Unsupported)


def test_a_pipe_in_the_place_of_the_config_is_not_opened(tmp_path: Path) -> None:
    folder = drop(tmp_path / "m")
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    incomplete(folder)
    os.mkfifo(tmp_path / "p.onnx")
    assert "not a regular file" in unsupported(tmp_path / "p.onnx").why


def test_a_folder_that_vanished_is_incomplete(tmp_path: Path) -> None:
    assert "vanished" in incomplete(tmp_path / "gone").why
    assert "vanished" in incomplete(tmp_path / "gone.onnx").why


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    folder = drop(tmp_path / "m")
    (folder / "config.json").chmod(0)
    assert "config.json cannot be read" in unsupported(folder).why


def test_a_name_that_the_file_system_refuses_is_unsupported(tmp_path: Path) -> None:
    assert "cannot be read" in unsupported(tmp_path / ("n" * 300)).why
    assert "cannot be read" in unsupported(tmp_path / ("n" * 300 + ".onnx")).why


def test_a_directory_named_like_a_file_is_no_file(tmp_path: Path) -> None:
    folder = drop(tmp_path / "m")
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    incomplete(folder)


def test_a_collection_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelium.analyzers.folder.MAX_FILES", 30)
    assert "more than 30 files" in unsupported(drop(tmp_path / "m", files={f"{n}.txt": "" for n in range(40)})).why


def test_names_with_spaces_unicode_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    folder = drop(tmp_path / "ein Modell – 模型 🎉", files={"o\udcff.txt": "x", "notes – 2.txt": "y"})
    assert profile(folder).parameters == 32


def test_a_conflict_of_names_is_shown_on_the_later_model(tmp_path: Path) -> None:
    result = analyze(candidate(drop(tmp_path / "m"), conflict="the name m is taken by org/m"))
    assert isinstance(result, Unsupported) and "taken" in result.why


# -- other kinds of folders --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"model_index.json": "{}"}, "image of a text"),
        ({"tf_model.h5": b"x", "config.json": json.dumps(BERT)}, "TensorFlow"),
        ({"flax_model.msgpack": b"x", "config.json": json.dumps(BERT)}, "Flax"),
        ({"model.joblib": b"x"}, "Python pickle"),
        ({"model.fp16.safetensors": safetensors(), "config.json": json.dumps(BERT)}, "under a name"),
        ({"model.engine": b"x"}, "TensorRT"),
        ({"config.json": json.dumps({"architecture": "resnet50"}), "model.safetensors": safetensors()}, "timm"),
        ({"config.json": json.dumps({**BERT, "quantization": {"group_size": 64}}), "model.safetensors": safetensors()}, "MLX"),
    ],
)  # fmt: skip
def test_other_kinds_are_named_with_what_would_help(tmp_path: Path, files: dict[str, str | bytes], word: str) -> None:
    found = unsupported(lay(tmp_path / "m", files))
    assert word in found.why and found.hint


# -- the fingerprint ---------------------------------------------------------------------------------------------------


def test_the_fingerprint_changes_with_what_matters_and_with_nothing_else(tmp_path: Path) -> None:
    folder = drop(tmp_path / "m")
    first = profile(folder).fingerprint
    for change in ("README.md", "picture.png", ".gitattributes", "notes.tmp"):
        (folder / change).write_text("hello")
    for change in ("runs/Nov29/events.out.tfevents.1795949885.host.7.0", "__pycache__/code.cpython-312.pyc", "onnx/README.md"):
        (folder / change).parent.mkdir(parents=True)
        (folder / change).write_text("hello")
    os.utime(folder / "config.json", (1, 1))
    assert profile(folder).fingerprint == first
    (folder / "config.json").write_text(json.dumps({**BERT, "layer_norm_eps": 1e-5}))
    second = profile(folder).fingerprint
    (folder / "model.safetensors").write_bytes(safetensors()[:-1] + b"\2")
    third = profile(folder).fingerprint
    (folder / "generation_config.json").write_text("{}")
    assert len({first, second, third, profile(folder).fingerprint}) == 4


def test_large_weights_count_by_size_and_time(tmp_path: Path) -> None:
    folder = drop(tmp_path / "m", files={"model.safetensors": safetensors({"w": ("F32", [32_768], 131_072)})})
    first = profile(folder).fingerprint
    assert profile(folder).fingerprint == first
    os.utime(folder / "model.safetensors", (1, 1))
    assert profile(folder).fingerprint != first


def test_neither_torch_nor_transformers_are_imported(tmp_path: Path) -> None:
    drop(tmp_path / "m")
    code = (
        "import sys, pathlib\nfrom modelium.analyzers import analyze\nfrom modelium.values import Candidate\n"
        "p = pathlib.Path(sys.argv[1])\n"
        "c = Candidate(name='m', label='m', path=p, root=p.parent, signature='', newest_mtime=0)\n"
        "assert type(analyze(c)).__name__ == 'ModelProfile'\n"
        "print([m for m in ('torch', 'transformers', 'onnx', 'numpy') if m in sys.modules])"
    )
    top = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m")], cwd=top, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"

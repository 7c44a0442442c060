"""Entries on a real file system: whole or not there, ours or left alone, newer than what they replace."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from modelium.errors import EntryError
from modelium.repository import MARKER, ModelRepository, render
from modelium.repository.config import parse_config
from modelium.repository.staging import Staging, exchange_in_steps, newest_mtime_ns
from modelium.values import (
    DeviceKind,
    Footprint,
    ModelProfile,
    OnnxGraph,
    Placement,
    Runtime,
    Task,
    Tensor,
    WeightFormat,
)


def placement(runtime: Runtime = Runtime.PYTHON) -> Placement:
    return Placement(
        runtime=runtime,
        device_id="host",
        device_kind=DeviceKind.HOST,
        device_index=-1,
        footprint=Footprint(estimated_bytes=1),
        max_batch_size=8,
        reason="the only device",
    )


def classifier(name: str = "model", path: Path = Path("/models/model"), fingerprint: str = "1") -> ModelProfile:
    return ModelProfile(
        name=name,
        path=path,
        task=Task.TEXT_CLASSIFICATION,
        library="transformers",
        architecture="BertForSequenceClassification",
        fingerprint=fingerprint,
    )


def graph(path: Path, *, file: str = "", external_data: tuple[str, ...] = ()) -> ModelProfile:
    tensor = (Tensor(name="t", datatype="FP32", dims=(-1, 3)),)
    return ModelProfile(
        name="graph",
        path=path,
        task=Task.TENSORS,
        library="onnx",
        architecture="onnx",
        weight_format=WeightFormat.ONNX,
        onnx=OnnxGraph(inputs=tensor, outputs=tensor, dynamic_batch=True, opset=17, external_data=external_data, file=file),
    )


def test_an_entry_appears_whole_and_is_known_as_ours(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "repository")
    entry = repository.write(classifier(fingerprint="abc"), placement())
    assert entry == tmp_path / "repository" / "model"
    config = parse_config((entry / "config.pbtxt").read_text())
    assert config.parameters["model_path"].string_value == "/models/model"
    assert (entry / "1" / "model.py").is_file()
    assert "the only device" in (entry / "config.pbtxt").read_text()
    assert repository.owned() == {"model": "abc"}
    assert repository.owns("model") and repository.is_free("model") and repository.is_free("other")


def test_nothing_else_shows_up_in_the_repository_because_triton_lists_hidden_directories(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "repository")
    repository.write(classifier(), placement())
    repository.write(classifier(fingerprint="2"), placement())
    assert [path.name for path in (tmp_path / "repository").iterdir()] == ["model"]
    assert list((tmp_path / ".repository.staging").iterdir()) == []
    repository.close()
    assert not (tmp_path / ".repository.staging").exists()


def test_a_reader_never_sees_half_an_entry_while_it_is_replaced(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "repository")
    entry = repository.write(classifier(), placement())
    seen: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                parse_config((entry / "config.pbtxt").read_text())
                seen.append(json.loads((entry / MARKER).read_text())["fingerprint"])
            except (OSError, EntryError, ValueError) as error:
                seen.append(repr(error))

    reader = threading.Thread(target=read)
    reader.start()
    written = [str(revision) for revision in range(10)]
    try:
        for revision in written:
            repository.write(classifier(fingerprint=revision), placement())
    finally:
        stop.set()
        reader.join()
    assert seen
    assert set(seen) <= {"1", *written}


def test_each_write_is_strictly_newer_even_when_the_clock_was_set_back(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "repository")
    entry = repository.write(classifier(), placement())
    tomorrow = time.time_ns() + 86_400 * 10**9
    os.utime(entry / "1" / "model.py", ns=(tomorrow, tomorrow))
    before = newest_mtime_ns(entry)
    repository.write(classifier(), placement())
    after_write = newest_mtime_ns(entry)
    repository.touch("model")
    assert before < after_write < newest_mtime_ns(entry)
    # A newer config.pbtxt that says the same makes Triton reload nothing: the version directory has to be the newer one.
    assert (entry / "1").stat().st_mtime_ns == newest_mtime_ns(entry)


def test_what_says_the_same_already_keeps_its_bytecode_and_tells_the_newest_reason(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "repository")
    entry = repository.write(classifier(), placement())
    before, code = newest_mtime_ns(entry), (entry / "1" / "model.py").stat()
    bytecode = entry / "1" / "__pycache__" / "model.cpython-311.pyc"
    bytecode.parent.mkdir()
    bytecode.write_bytes(b"compiled")
    repository.write(classifier(), replace(placement(), reason="there is room again"))
    assert bytecode.read_bytes() == b"compiled"
    after = (entry / "1" / "model.py").stat()
    assert (after.st_ino, after.st_mtime_ns) == (code.st_ino, code.st_mtime_ns), "else the bytecode would be of another file"
    assert "there is room again" in (entry / "config.pbtxt").read_text()
    assert newest_mtime_ns(entry) > before, "Triton loads it anew"
    assert list((tmp_path / ".repository.staging").iterdir()) == []


@pytest.mark.parametrize("change", ["config", "code", "more", "less", "link", "mark"])
def test_what_says_something_else_is_replaced_as_a_whole(tmp_path: Path, change: str) -> None:
    repository = ModelRepository(tmp_path / "repository")
    entry = repository.write(classifier(), placement())
    wanted = (entry / "1" / "model.py").read_bytes()
    placed = placement()
    match change:
        case "config":
            placed = replace(placed, max_batch_size=placed.max_batch_size + 1)
        case "code":
            (entry / "1" / "model.py").write_bytes(wanted + b"\n")
        case "more":
            (entry / "1" / "more.py").touch()
        case "less":
            (entry / "1" / "tasks.py").unlink()
        case "link":
            (entry / "1" / "tasks.py").rename(tmp_path / "tasks.py")
            (entry / "1" / "tasks.py").symlink_to(tmp_path / "tasks.py")
        case "mark":
            pass
    before = entry.stat().st_ino
    repository.write(classifier(fingerprint="2" if change == "mark" else classifier().fingerprint), placed)
    assert entry.stat().st_ino != before
    assert (entry / "1" / "model.py").read_bytes() == wanted
    assert not (entry / "1" / "more.py").exists() and not (entry / "1" / "tasks.py").is_symlink()


def test_removing_and_touching_concern_our_entries_only(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "repository")
    repository.write(classifier(), placement())
    assert repository.remove("model") is True
    assert repository.remove("model") is False
    assert list((tmp_path / "repository").iterdir()) == []
    with pytest.raises(EntryError, match="not an entry of Modelium's"):
        repository.touch("model")


@pytest.mark.parametrize("kind", ["directory", "empty directory", "file", "link to ours", "copy of ours", "broken marker"])
def test_what_modelium_did_not_write_is_never_touched(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "repository"
    repository = ModelRepository(root)
    repository.write(classifier("ours"), placement())
    theirs = root / "model"
    match kind:
        case "file":
            theirs.write_text("mine")
        case "link to ours":
            theirs.symlink_to(root / "ours")
        case "copy of ours":
            shutil.copytree(root / "ours", theirs)
        case _:
            theirs.mkdir()
            if kind == "directory":
                (theirs / "config.pbtxt").write_text('backend: "python"')
            if kind == "broken marker":
                (theirs / MARKER).write_text('["modelium"]')
    before = sorted((path, path.lstat().st_mtime_ns) for path in (theirs, *theirs.rglob("*")))
    assert not repository.owns("model") and not repository.is_free("model")
    with pytest.raises(EntryError, match="Modelium did not write it"):
        repository.write(classifier(), placement())
    assert repository.remove("model") is False
    assert sorted((path, path.lstat().st_mtime_ns) for path in (theirs, *theirs.rglob("*"))) == before
    assert set(repository.owned()) == {"ours"}


def test_the_longest_prefix_of_the_path_mapping_wins_and_others_stay(tmp_path: Path) -> None:
    mapping = {"/models": "/mnt", "/models/incoming": "/data/in", "/models/in": "/wrong"}
    repository = ModelRepository(tmp_path / "repository", path_mapping=mapping)
    seen = {}
    for name, path in {"a": "/models/incoming/org/m", "b": "/models/m", "c": "/elsewhere/m", "d": "/models/incoming"}.items():
        entry = repository.write(classifier(name, Path(path)), placement())
        seen[name] = parse_config((entry / "config.pbtxt").read_text()).parameters["model_path"].string_value
    assert seen == {"a": "/data/in/org/m", "b": "/mnt/m", "c": "/elsewhere/m", "d": "/data/in"}


def test_relative_paths_are_written_absolute_and_links_keep_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "models").symlink_to("real")
    repository = ModelRepository(Path("repository"), path_mapping={"./models": "/data"})
    entry = repository.write(classifier(path=Path("models/../models/m")), placement())
    assert entry.is_absolute()
    assert parse_config((entry / "config.pbtxt").read_text()).parameters["model_path"].string_value == "/data/m"


def test_an_onnx_entry_links_the_model_and_its_side_files_under_their_relative_names(tmp_path: Path) -> None:
    folder = tmp_path / "incoming" / "graph"
    (folder / "onnx" / "side").mkdir(parents=True)
    for name in ("encoder.onnx", "encoder.onnx_data", "side/w0"):
        (folder / "onnx" / name).write_text(name)
    profile = graph(folder, file="onnx/encoder.onnx", external_data=("encoder.onnx_data", "side/w0"))
    entry = ModelRepository(tmp_path / "repository").write(profile, placement(Runtime.ONNXRUNTIME))
    assert (entry / "1" / "model.onnx").read_text() == "encoder.onnx"
    assert (entry / "1" / "encoder.onnx_data").read_text() == "encoder.onnx_data"
    assert (entry / "1" / "side" / "w0").read_text() == "side/w0"
    path = parse_config((entry / "config.pbtxt").read_text()).parameters["model_path"].string_value
    assert path == str(folder / "onnx" / "encoder.onnx")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "model.onnx"])
def test_side_files_outside_of_the_model_are_refused(tmp_path: Path, name: str) -> None:
    repository = ModelRepository(tmp_path / "repository")
    with pytest.raises(EntryError, match="cannot be linked"):
        repository.write(graph(tmp_path / "graph.onnx", external_data=(name,)), placement(Runtime.ONNXRUNTIME))
    assert list((tmp_path / "repository").iterdir()) == []


def test_an_entry_of_ray_without_a_plan_of_its_replicas_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EntryError, match="nothing was planned for its replicas"):
        ModelRepository(tmp_path / "repository").write(classifier(), placement(Runtime.RAY))


def test_render_writes_one_entry_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    entry = render(classifier(), placement(), tmp_path / "out")
    assert entry == tmp_path / "out" / "model"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_left_is_swept_and_work_in_progress_is_not(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    left = tmp_path / ".repository.staging" / "model-killed" / "model"
    left.mkdir(parents=True)
    inside = root / ".staging" / "model-killed"
    inside.mkdir(parents=True)
    with Staging(root).workspace("model") as busy:
        ModelRepository(root)
        assert busy.is_dir()
        assert not left.exists() and not inside.exists()
    assert not busy.exists()


def test_two_steps_swap_names_where_the_file_system_has_no_exchange(tmp_path: Path) -> None:
    for name in ("made", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    exchange_in_steps(tmp_path / "made", tmp_path / "target")
    assert (tmp_path / "target" / "made").exists() and (tmp_path / "made" / "target").exists()
    with pytest.raises(FileNotFoundError):
        exchange_in_steps(tmp_path / "absent", tmp_path / "target")
    assert (tmp_path / "target" / "made").exists()


def test_a_repository_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "repository").write_text("")
    with pytest.raises(EntryError, match=r"triton\.model_repository"):
        ModelRepository(tmp_path / "repository").write(classifier(), placement())

"""The watcher: what counts as a model in a watch directory, when its signature changes, who keeps a name, and wake-ups."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelium.file_names import WHOLE_MODELS
from modelium.values import Candidate, WatchDirectory
from modelium.watcher import Watcher
from modelium.watcher.survey import Surveyor
from tests.patience import PATIENCE_S

MINUTE_NS = 60_000_000_000


def fill(folder: Path, *files: str) -> Path:
    for name in files or ("config.json", "model.safetensors"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def by_label(candidates: tuple[Candidate, ...]) -> dict[str, Candidate]:
    return {candidate.label: candidate for candidate in candidates}


def one(watcher: Watcher) -> Candidate:
    (candidate,) = watcher.scan()
    return candidate


def wait_for(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.01)


# -- what is a model -------------------------------------------------------------------------------------------------


def test_folders_organisations_empty_folders_and_single_onnx_files_are_models(tmp_path: Path) -> None:
    fill(tmp_path / "minilm", "config.json", "1_Pooling/config.json", "onnx/model.onnx")
    fill(tmp_path / "google" / "vit")
    fill(tmp_path / "google" / "bert")
    (tmp_path / "google" / "README.md").write_text("what we keep here")
    (tmp_path / "to-be").mkdir()
    fill(tmp_path / "half-copied" / "1_Pooling", "config.json")
    fill(tmp_path, "net.onnx", "net.onnx.data", "weights.onnx_data", "notes.txt")
    found = by_label(Watcher([tmp_path]).scan())
    assert set(found) == {"minilm", "google/vit", "google/bert", "to-be", "half-copied", "net"}
    assert found["google/vit"].name == "google--vit"
    assert found["google/vit"].path == tmp_path / "google" / "vit"
    assert found["net"].path == tmp_path / "net.onnx"
    assert {candidate.root for candidate in found.values()} == {tmp_path}


def test_a_single_gguf_file_is_a_model_and_what_lies_beside_it_is_nothing_to_it(tmp_path: Path) -> None:
    fill(tmp_path, "Tiny.Q4_K_M.gguf", "notes.txt")
    watcher = Watcher([tmp_path])
    found = by_label(watcher.scan())
    assert set(found) == {"Tiny.Q4_K_M"} and found["Tiny.Q4_K_M"].path == tmp_path / "Tiny.Q4_K_M.gguf"
    fill(tmp_path, "more.txt")
    assert by_label(watcher.scan()) == found


@pytest.mark.parametrize(
    "name",
    [
        "__MACOSX",
        "__pycache__",
        "lost+found",
        "$RECYCLE.BIN",
        "@eaDir",
        ".cache",
        ".locks",
        "x.incomplete",
        "x.part",
        "x.tmp",
        "x.crdownload",
        "x.lock",
        ".hidden",
        ".onnx",
        "datasets--a--b",
    ],
)
def test_ignored_names_are_no_models(tmp_path: Path, name: str) -> None:
    fill(tmp_path / name)
    assert Watcher([tmp_path]).scan() == ()


def test_names_with_spaces_and_unicode_are_served_under_safe_names(tmp_path: Path) -> None:
    fill(tmp_path / "mein modèle")
    candidate = one(Watcher([tmp_path]))
    assert (candidate.label, candidate.name) == ("mein modèle", "mein_0x20_mod_0xc3a8_le")
    assert candidate.conflict is None


def test_a_name_of_300_characters_is_shown_with_what_to_do(tmp_path: Path) -> None:
    fill(tmp_path / ("o" * 150) / ("n" * 150))
    candidate = one(Watcher([tmp_path]))
    assert candidate.conflict is not None
    assert "use a shorter one" in candidate.conflict
    assert len(candidate.name) < 60


def test_a_name_that_is_not_utf8_can_be_shown(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")).mkdir()
    candidate = one(Watcher([tmp_path]))
    candidate.label.encode()
    assert candidate.name == "caf_0xe9_"


@pytest.mark.parametrize("first", ["config.pbtxt", "1/model.onnx"])
def test_an_entry_of_a_triton_repository_is_one_folder(tmp_path: Path, first: str) -> None:
    """What it is and what to do is told of the folder that was dropped, not of ``1``; whatever of it is copied first."""
    watcher = Watcher([tmp_path])
    fill(tmp_path / "entry", first)
    watcher.scan()
    fill(tmp_path / "entry", "config.pbtxt", "1/model.onnx", "2/model.onnx")
    fill(tmp_path / "repository" / "inner", "config.pbtxt", "1/model.onnx")
    assert {"entry", "repository/inner"} == set(by_label(Watcher([tmp_path]).scan()))
    assert {"entry", "repository/inner"} <= set(by_label(watcher.scan()))


def test_a_path_that_is_not_utf8_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """No runtime can be told of it: nothing is tried."""
    for name in (b"caf\xe9", b"caf\xe9-org/bert", b"net\xe9.onnx"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.write_text("x") if path.suffix else fill(path)
    found = Watcher([tmp_path]).scan()
    assert len(found) == 3
    for candidate in found:
        assert candidate.conflict is not None
        candidate.conflict.encode()
        assert "\\xe9" in candidate.conflict and candidate.conflict.endswith("so no runtime can be told of it: rename it")


def test_an_archives_litter_in_an_organisation_is_no_model(tmp_path: Path) -> None:
    fill(tmp_path / "acme" / "judge")
    fill(tmp_path / "acme" / "__MACOSX" / "judge", "._config.json")
    assert set(by_label(Watcher([tmp_path]).scan())) == {"acme/judge"}


STRAYS = [
    "download.log", "desktop.ini", "checksums.txt", "CACHEDIR.TAG", "x.tmp", "model.safetensors.part", "Thumbs.db",
    "index.json", "config.json", "training_args.bin", ".gitignore", ".git/HEAD", ".cache/huggingface/x", "__pycache__/x.pyc",
    "empty/", "logs/a.txt", "config.pbtxt",
    "model.safetensors", "notes.md", "onnx/readme.txt", "tokenizer.json", "sha256sum", "other.zip",
]  # fmt: skip


def leave(folder: Path, stray: str) -> None:
    if stray.endswith("/"):
        (folder / stray).mkdir()
    elif stray == "model.safetensors":
        (folder / stray).write_text("")  # named like weights, but empty
    else:
        fill(folder, stray)


@pytest.mark.parametrize("stray", STRAYS)
def test_a_stray_file_beside_a_model_never_takes_it_away(tmp_path: Path, stray: str) -> None:
    """Neither now nor after a restart: a folder stops being a model when it is gone."""
    fill(tmp_path / "acme" / "judge")
    fill(tmp_path / "acme" / "writer", "model.onnx")
    fill(tmp_path / "minilm", "config.json", "model.safetensors", "1_Pooling/config.json")
    watcher = Watcher([tmp_path])
    before = by_label(watcher.scan())
    assert set(before) == {"acme/judge", "acme/writer", "minilm"}
    leave(tmp_path / "acme", stray)
    leave(tmp_path, stray)
    for found in (by_label(watcher.scan()), by_label(Watcher([tmp_path]).scan())):
        assert {label: found[label] for label in before} == before
    if stray not in ("config.json", "model.safetensors"):  # those would be the model's own
        leave(tmp_path / "acme" / "judge", stray)
    assert set(before) <= set(by_label(watcher.scan()))


def test_a_model_stays_when_another_one_comes_to_stand_around_it(tmp_path: Path) -> None:
    fill(tmp_path / "acme" / "judge")
    watcher = Watcher([tmp_path])
    assert set(by_label(watcher.scan())) == {"acme/judge"}
    fill(tmp_path / "acme")
    assert set(by_label(watcher.scan())) == {"acme", "acme/judge"}
    (tmp_path / "acme" / "judge" / "model.safetensors").write_text("")  # it is being replaced
    assert set(by_label(watcher.scan())) == {"acme", "acme/judge"}
    shutil.rmtree(tmp_path / "acme" / "judge")
    assert set(by_label(watcher.scan())) == {"acme"}


def test_a_model_that_is_replaced_file_by_file_stays_a_model(tmp_path: Path) -> None:
    folder = fill(tmp_path / "acme", "config.json", "model.safetensors", "variants/model.safetensors", "variants/config.json")
    watcher = Watcher([tmp_path])
    assert set(by_label(watcher.scan())) == {"acme"}
    (folder / "model.safetensors").unlink()
    assert set(by_label(watcher.scan())) == {"acme"}
    fill(folder, "model.safetensors")
    assert set(by_label(watcher.scan())) == {"acme"}
    (folder / "config.json").unlink()
    (folder / "model.safetensors").unlink()  # gone, and another's files stand in it
    assert set(by_label(watcher.scan())) == {"acme/variants"}


@pytest.mark.parametrize("ending", WHOLE_MODELS)
def test_a_stray_file_that_could_be_a_model_takes_no_organisation_away(tmp_path: Path, ending: str) -> None:
    """Neither now, nor after a restart, nor where it was there first: it gets a line of its own."""
    acme, stray = tmp_path / "acme", tmp_path / "acme" / f"embeddings{ending}"
    fill(acme / "judge")
    fill(acme / "writer", f"model{ending}")
    watcher = Watcher([tmp_path])
    before = by_label(watcher.scan())
    fill(acme, stray.name)
    fill(tmp_path / "neworg", f"scorer{ending}")
    watcher.scan()
    fill(tmp_path / "neworg" / "a", "config.json")
    watcher.scan()
    fill(tmp_path / "neworg" / "a")
    for looked in (watcher, Watcher([tmp_path])):
        found = by_label(looked.scan())
        assert set(found) == {"acme/judge", "acme/writer", "neworg/a"}
        assert all(found[label] == candidate for label, candidate in before.items())
        said = {one.path: one.advice for one in looked.unclaimed}
        assert set(said) == {stray, tmp_path / "neworg" / f"scorer{ending}"}
        assert said[stray].startswith("a model of one file, outside a folder of its own: put it into NAME/ or ORG/NAME/")
        assert ("in the watched directory itself" in said[stray]) is (ending in (".onnx", ".gguf"))


@pytest.mark.parametrize(
    "files",
    [
        ("model.onnx", "model.onnx.data", "fp16/model.onnx", "data/weights.bin"),
        ("model.onnx", "1_Pooling/config.json", "1_Pooling/model.safetensors"),
        ("model.gguf", "original/config.json", "original/model.safetensors"),
        ("config.json", "model.safetensors", "pytorch/config.json", "pytorch/model.safetensors"),
        ("config.json", "onnx/model.onnx", "pytorch/config.json", "pytorch/model.safetensors"),
        ("config.json", "model.safetensors", "checkpoint-5/config.json", "checkpoint-5/model.safetensors"),
        ("model_index.json", "unet/config.json", "unet/model.safetensors", "prior/config.json", "prior/model.safetensors"),
        ("modules.json", "encoder/config.json", "encoder/model.safetensors", "head/config.json", "head/model.safetensors"),
        ("forest.pkl", "images/plot.png", "data/config.json"),
    ],
)
def test_a_model_with_directories_of_its_own_is_one_model(tmp_path: Path, files: tuple[str, ...]) -> None:
    fill(tmp_path / "acme", *files)
    watcher = Watcher([tmp_path])
    assert one(watcher).label == "acme" and watcher.unclaimed == ()


def test_a_copy_that_begins_with_parts_stays_one_model(tmp_path: Path) -> None:
    watcher = Watcher([tmp_path])
    for part in ("unet/config.json", "unet/model.safetensors", "prior/config.json", "prior/model.safetensors"):
        fill(tmp_path / "diffuser", part)
        assert one(watcher).label == "diffuser"


def test_a_whole_model_stays_while_its_files_are_replaced_one_by_one(tmp_path: Path) -> None:
    fill(tmp_path / "acme")
    fill(tmp_path / "acme" / "variants")
    watcher = Watcher([tmp_path])
    assert set(by_label(watcher.scan())) == {"acme"}
    (tmp_path / "acme" / "config.json").unlink()
    assert set(by_label(watcher.scan())) == {"acme"}
    fill(tmp_path / "acme")
    assert set(by_label(watcher.scan())) == {"acme"}


def test_a_stray_file_in_a_cache_folder_does_not_take_its_model_away(tmp_path: Path) -> None:
    snapshot = fill_cache(tmp_path, "aaa")
    fill(tmp_path / "models--org--name", "CACHEDIR.TAG", "desktop.ini", "config.json")
    assert one(Watcher([tmp_path])).path == snapshot


# -- the Hugging Face cache ------------------------------------------------------------------------------------------


def fill_cache(hub: Path, revision: str, *, main: bool = True) -> Path:
    folder = hub / "models--org--name"
    blob = fill(folder / "blobs", f"blob-{revision}") / f"blob-{revision}"
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to(os.path.relpath(blob, snapshot))
    if main:
        fill(folder / "refs", "main")
        (folder / "refs" / "main").write_text(revision)
    return snapshot


def test_a_cache_folder_serves_the_snapshot_of_main(tmp_path: Path) -> None:
    first = fill_cache(tmp_path, "aaa")
    watcher = Watcher([tmp_path])
    before = one(watcher)
    assert (before.label, before.name, before.path) == ("org/name", "org--name", first)
    second = fill_cache(tmp_path, "bbb")
    after = one(watcher)
    assert after.path == second
    assert after.signature != before.signature


def test_without_a_reference_the_newest_snapshot_is_served(tmp_path: Path) -> None:
    os.utime(fill_cache(tmp_path, "old", main=False), (1e9, 1e9))
    newest = fill_cache(tmp_path, "new", main=False)
    assert one(Watcher([tmp_path])).path == newest


@pytest.mark.parametrize("reference", ["../../..", "", "gone", "a/b", "\0", "x" * 500])
def test_a_bad_reference_never_leads_out_of_the_cache(tmp_path: Path, reference: str) -> None:
    snapshot = fill_cache(tmp_path, "aaa")
    (tmp_path / "models--org--name" / "refs" / "main").write_text(reference)
    assert one(Watcher([tmp_path])).path == snapshot


def test_a_cache_folder_whose_download_only_began_is_one_model(tmp_path: Path) -> None:
    fill(tmp_path / "models--org--name" / "blobs", "abc.incomplete")
    assert one(Watcher([tmp_path])).label == "org/name"


def test_while_the_snapshot_of_main_is_not_whole_the_older_one_is_served(tmp_path: Path) -> None:
    def snapshot(revision: str, *files: str) -> Path:
        folder = tmp_path / "models--org--name" / "snapshots" / revision
        fill(folder, *files)
        fill(tmp_path / "models--org--name" / "refs", "main")
        (tmp_path / "models--org--name" / "refs" / "main").write_text(revision)
        return folder

    parts = ("config.json", "tokenizer.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    first = snapshot("aaa", *parts)
    watcher = Watcher([tmp_path])
    before = one(watcher)
    assert (before.path, before.note) == (first, "")
    for count in range(1, len(parts)):
        second = snapshot("bbb", *parts[:1], *parts[4 - count : 3])
        for found in (one(watcher), one(Watcher([tmp_path]))):
            assert found.path == first
            assert found.note == "snapshot bbb is not whole yet, the older aaa is served: finish its download"
    snapshot("bbb", *parts)
    assert (one(watcher).path, one(watcher).note) == (second, "")
    shutil.rmtree(first)
    (second / "config.json").unlink()
    assert one(watcher).path == second


def test_a_pipe_in_the_place_of_a_reference_is_not_waited_for(tmp_path: Path) -> None:
    snapshot = fill_cache(tmp_path, "aaa")
    reference = tmp_path / "models--org--name" / "refs" / "main"
    reference.unlink()
    os.mkfifo(reference)
    assert one(Watcher([tmp_path])).path == snapshot


def test_what_is_found_is_signed_alike_by_each_process(tmp_path: Path) -> None:
    fill(tmp_path / "bert")
    fill(tmp_path, "net.onnx", "net.onnx.data", "tiny.gguf")
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom modelium.watcher.survey import Surveyor\n"
        "print(sorted((c.label, c.signature) for c in Surveyor(Path(sys.argv[1])).survey(time.time_ns())))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    said = {
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1 and b"net" in said.pop()


def test_a_look_at_one_model_sees_what_changes_it_and_nothing_else(tmp_path: Path) -> None:
    fill(tmp_path / "acme" / "judge")
    fill(tmp_path / "bert", "config.json", "model.safetensors", "onnx/model.onnx")
    fill(tmp_path, "net.onnx", "net.onnx.data", "tiny.gguf")
    snapshot = fill_cache(tmp_path, "aaa")
    found = Watcher([tmp_path]).scan()
    assert len(found) == 5

    def look() -> dict[str, str]:
        looks = {c.label: Surveyor(tmp_path).look_again(str(c.path)) for c in found}
        return {label: seen.signature if seen is not None else "" for label, seen in looks.items()}

    def changed() -> list[str]:
        now = look()
        return [label for label in before if now[label] != before[label]]

    before = look()
    fill(
        tmp_path,
        "download.log",
        "other.zip",
        "other.onnx",
        "other.bin",
        "acme/README.md",
        "acme/judge/wget.log",
        "bert/README.md",
    )
    fill(tmp_path / "bert" / "onnx", "picture.png")
    assert changed() == []
    (tmp_path / "bert" / "model.safetensors").chmod(0o600)  # mended rights are a change
    assert changed() == ["bert"]
    for label, file in {
        "org/name": snapshot / "config.json",
        "net": tmp_path / "net.onnx.data",
        "tiny": tmp_path / "tiny.gguf",
        "acme/judge": tmp_path / "acme" / "judge" / "config.json",
    }.items():
        before = look()
        file.write_bytes(file.read_bytes() + b"x")
        assert changed() == [label]
    before = look()
    shutil.rmtree(tmp_path / "acme")
    assert changed() == ["acme/judge"]


# -- links -----------------------------------------------------------------------------------------------------------


def test_a_link_out_of_the_watch_directory_is_shown_but_not_followed(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside" / "model")
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    (incoming / "linked").symlink_to(outside)
    (incoming / "nowhere").symlink_to(tmp_path / "missing")
    watcher = Watcher([incoming])
    before = watcher.scan()
    assert [(c.label, c.path) for c in before] == [("linked", incoming / "linked"), ("nowhere", incoming / "nowhere")]
    fill(outside, "more.json")
    assert watcher.scan() is before


def test_loops_of_links_end(tmp_path: Path) -> None:
    folder = fill(tmp_path / "model")
    (folder / "again").symlink_to(folder)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "round").symlink_to(tmp_path)
    assert {"model", "round", "self"} == set(by_label(Watcher([tmp_path]).scan()))


# -- signatures ------------------------------------------------------------------------------------------------------


def test_nothing_changed_gives_the_very_same_tuple(tmp_path: Path) -> None:
    fill(tmp_path / "model")
    fill(tmp_path / "org" / "name")
    fill(tmp_path, "net.onnx")
    watcher = Watcher([tmp_path])
    assert watcher.scan() is watcher.scan()


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: fill(folder, "new.json"),
        lambda folder: (folder / "config.json").write_text("longer than it was"),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "config.json").rename(folder / "other.json"),
        lambda folder: fill(folder, "onnx/model.onnx"),
        lambda folder: fill(folder, "model.bin.part"),
        lambda folder: rewrite_with_old_mtime(folder / "config.json"),
    ],
)
def test_any_change_changes_the_signature_of_that_model_only(tmp_path: Path, change: Callable[[Path], object]) -> None:
    fill(tmp_path / "other")
    folder = fill(tmp_path / "model")
    watcher = Watcher([tmp_path])
    before = by_label(watcher.scan())
    change(folder)
    after = by_label(watcher.scan())
    assert after["model"].signature != before["model"].signature
    assert after["other"] is before["other"]


def rewrite_with_old_mtime(path: Path) -> None:
    status = path.stat()
    path.write_text(path.read_text()[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_external_data_beside_an_onnx_file_counts_for_its_signature(tmp_path: Path) -> None:
    fill(tmp_path, "net.onnx")
    watcher = Watcher([tmp_path])
    before = one(watcher)
    fill(tmp_path, "weights.bin")
    assert one(watcher).signature != before.signature


def test_a_copy_with_preserved_times_counts_as_old_and_the_future_as_now(tmp_path: Path) -> None:
    folder = fill(tmp_path / "model", "config.json")
    os.utime(folder / "config.json", (1e9, 1e9))
    watcher = Watcher([tmp_path])
    assert one(watcher).newest_mtime == 1e9
    os.utime(folder / "config.json", (9e9, 9e9))
    assert one(watcher).newest_mtime == pytest.approx(time.time(), abs=60)


def test_a_huge_folder_is_bounded(tmp_path: Path) -> None:
    folder = fill(tmp_path / "model")
    deep = folder.joinpath(*"abcdefgh")
    deep.mkdir(parents=True)
    watcher = Watcher([tmp_path])
    before = one(watcher)
    fill(deep, "far-away.json")
    assert one(watcher) is before


def test_a_light_survey_sees_names_and_touched_folders_at_once_and_any_rewrite_within_four(tmp_path: Path) -> None:
    folders = [fill(tmp_path / f"model-{number}") for number in range(8)]
    surveyor = Surveyor(tmp_path)
    later = time.time_ns() + 10 * MINUTE_NS
    surveyor.survey(later)

    def survey(*touched: Path) -> dict[str, str]:
        found = surveyor.survey(later, touched=frozenset(map(str, touched)))
        return {candidate.label: candidate.signature for candidate in found}

    before = survey()
    for folder in folders:
        (folder / "config.json").write_text("rewritten in place")
    first = survey(folders[5])
    assert first["model-5"] != before["model-5"]
    assert sum(first[label] == signature for label, signature in before.items()) >= 4  # the others wait for their turn
    changed = [sum(survey()[label] != signature for label, signature in before.items()) for _ in range(4)]
    assert changed == sorted(changed)
    assert changed[-1] == 8
    shutil.rmtree(folders[0])
    fill(tmp_path / "new")
    fill(folders[1], "new.json")
    after = survey()
    assert set(before) - set(after) == {"model-0"}
    assert set(after) - set(before) == {"new"}


PLACES = st.sampled_from(
    [
        "a",
        "a/onnx",
        "a/x",
        "a/x/y",
        "b",
        "b/1_Pooling",
        "models--o--n",
        "models--o--n/snapshots/r",
        "models--o--n/refs",
        "c.onnx",
    ]
)
CHANGES = st.tuples(
    st.sampled_from(["mkdir", "write", "weigh", "empty", "stray", "part", "remove", "link", "move"]), PLACES, PLACES
)


@example(changes=[("mkdir", "a/onnx", "a"), ("mkdir", "a/x", "a"), ("weigh", "a/onnx", "a")])
@settings(max_examples=60)
@given(st.lists(CHANGES, max_size=12))
def test_what_is_remembered_never_differs_from_a_first_look(changes: list[tuple[str, str, str]]) -> None:
    with TemporaryDirectory() as directory:
        root = Path(directory)
        surveyor = Surveyor(root)
        later = time.time_ns() + MINUTE_NS  # so that no directory counts as just changed, and what is remembered is used
        for verb, place, other in changes:
            with contextlib.suppress(OSError):
                apply(verb, root / place, root / other)
            anew = Surveyor(root)
            anew.taken = dict(surveyor.taken)  # what a directory was taken for is remembered on purpose
            assert surveyor.survey(later) == anew.survey(later)
            assert surveyor.taken == anew.taken


def apply(verb: str, place: Path, other: Path) -> None:
    match verb:
        case "mkdir":
            place.mkdir(parents=True)
        case "write":
            fill(place.parent, place.name) if place.suffix else fill(place, "main", "config.json")
        case "weigh":
            fill(place, "model.safetensors", "config.json")
        case "empty":
            (place / "model.safetensors").write_text("")
        case "stray":
            fill(place, "download.log", "desktop.ini")
        case "part":
            fill(place, "weights.part")
        case "remove":
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        case "link":
            place.symlink_to(other)
        case "move":
            place.rename(other)


# -- names -----------------------------------------------------------------------------------------------------------


def test_of_two_models_with_one_name_the_first_seen_keeps_it(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    fill(second / "bert")
    first.mkdir()
    watcher = Watcher([first, second])
    assert one(watcher).conflict is None
    fill(first / "bert")
    fill(second / "bert", "touched-later.json")
    holder, later = watcher.scan()
    assert (holder.path, holder.conflict) == (second / "bert", None)
    assert later.conflict is not None
    assert "rename one of them" in later.conflict
    assert str(second / "bert") in later.conflict
    (first / "bert").rename(first / "bert-2")
    assert [candidate.conflict for candidate in watcher.scan()] == [None, None]


def test_the_name_goes_to_the_later_one_when_the_first_leaves(tmp_path: Path) -> None:
    fill(tmp_path / "org" / "name")
    watcher = Watcher([tmp_path])
    watcher.scan()
    fill_cache(tmp_path, "aaa")
    assert [candidate.conflict is None for candidate in watcher.scan()] == [True, False]
    shutil.rmtree(tmp_path / "org")
    assert one(watcher).conflict is None


# -- directories that go ---------------------------------------------------------------------------------------------


def test_a_folder_that_vanishes_is_gone_from_the_next_scan(tmp_path: Path) -> None:
    folder = fill(tmp_path / "model")
    watcher = Watcher([tmp_path])
    assert len(watcher.scan()) == 1
    shutil.rmtree(folder)
    assert watcher.scan() == ()


def test_a_watch_directory_that_vanishes_is_suspended_and_may_come_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    incoming = fill(tmp_path / "incoming" / "model").parent
    watcher = Watcher([incoming])
    before = watcher.scan()
    assert len(before) == 1 and not watcher.directories[0].suspended
    incoming.rename(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        assert watcher.scan() == watcher.scan() == before
    why = "it cannot be read (No such file or directory)"
    assert [record.message for record in caplog.records] == [
        f"watch directory {incoming} is suspended: {why}; its models stay as they were until it is back"
    ]
    assert watcher.directories == (WatchDirectory(path=incoming, suspended=why),)
    (tmp_path / "elsewhere").rename(incoming)
    fill(incoming / "other")
    assert len(watcher.scan()) == 2 and not watcher.directories[0].suspended


def test_an_empty_directory_of_another_mount_takes_no_model_away(tmp_path: Path) -> None:
    """What an unmounted disk leaves behind; an emptied directory of the same disk is empty."""
    fill(tmp_path / "disk" / "model")
    (incoming := tmp_path / "incoming").symlink_to(tmp_path / "disk")
    watcher = Watcher([incoming])
    before = watcher.scan()
    with TemporaryDirectory(dir="/dev/shm") as below:
        incoming.unlink()
        incoming.symlink_to(below)
        assert watcher.scan() == before
        assert "was it unmounted?" in watcher.directories[0].suspended
        fill(Path(below) / "new")
        assert set(by_label(watcher.scan())) == {"new"}  # it is used: another disk was meant
    incoming.unlink()
    incoming.symlink_to(tmp_path / "disk")
    assert set(by_label(watcher.scan())) == {"model"}
    shutil.rmtree(tmp_path / "disk" / "model")
    assert watcher.scan() == ()


def test_it_is_known_about_how_much_has_to_be_read(tmp_path: Path) -> None:
    (tmp_path / "m" / "1_Pooling").mkdir(parents=True)
    for name, size in (
        ("config.json", 700),
        ("1_Pooling/config.json", 300),
        ("tokenizer.json", 2**24),
        ("model.safetensors", 2**30),
    ):
        with (tmp_path / "m" / name).open("wb") as file:
            file.truncate(size)
    (tmp_path / "m" / "gone.json").symlink_to("nowhere")
    with (tmp_path / "one.gguf").open("wb") as file:
        file.truncate(2**30)
    found = {one.label: one.reading_bytes for one in Watcher([tmp_path]).scan()}
    assert found == {"m": 1000 + 2 * 2**18, "one": 2**18}


def test_what_looks_like_a_model_and_is_none_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, "bert.zip", "gpt.tar.gz", "model.safetensors", "notes.txt", "half.zip.part")
    fill(tmp_path / "acme", "old.7z", "judge/config.json", "judge/model.safetensors")
    fill(tmp_path, "bert.onnx.zst", "gpt.tar.xz", "forest.ubj", "serve.log.gz", "optimizer.pt")
    fill(tmp_path / "team" / "nlp" / "deep")
    fill(tmp_path / "plain")
    watcher = Watcher([tmp_path])
    with caplog.at_level(logging.WARNING):
        watcher.scan()
        watcher.scan()
    found = {str(one.path.relative_to(tmp_path)): one.advice for one in watcher.unclaimed}
    more = {"bert.onnx.zst", "gpt.tar.xz", "forest.ubj"}
    assert set(found) == {"bert.zip", "gpt.tar.gz", "model.safetensors", "acme/old.7z", "team/nlp/deep"} | more
    assert len(caplog.records) == 8
    assert found["bert.zip"].startswith("an archive: unpack it")
    assert found["team/nlp/deep"].startswith("a model three levels deep: move it up; models may lie in NAME/ or ORG/NAME/")
    assert "config.json" in found["model.safetensors"]
    (tmp_path / "bert.zip").unlink()
    shutil.rmtree(tmp_path / "team")
    watcher.scan()
    assert len(watcher.unclaimed) == 6


def test_beside_an_onnx_file_what_cannot_hold_its_tensors_is_named_all_the_same(tmp_path: Path) -> None:
    fill(tmp_path, "net.onnx", "net.onnx.data", "net.bin", "notes.txt")
    watcher = Watcher([tmp_path])
    assert one(watcher).label == "net" and [*watcher.unclaimed] == []
    fill(tmp_path, "bert.zip", "gpt.tar.gz", "model.safetensors", "forest.pkl")
    assert one(watcher).label == "net"
    assert [found.path.name for found in watcher.unclaimed] == ["bert.zip", "forest.pkl", "gpt.tar.gz", "model.safetensors"]
    (tmp_path / "net.onnx").unlink()
    watcher.scan()
    assert len(watcher.unclaimed) == 5


def test_a_watch_directory_inside_another_is_surveyed_once(tmp_path: Path) -> None:
    fill(tmp_path / "inner" / "model")
    fill(tmp_path / "outer-model")
    watcher = Watcher([tmp_path, tmp_path / "inner", tmp_path / "inner"])
    assert set(by_label(watcher.scan())) == {"model", "outer-model"}


# -- wake-ups --------------------------------------------------------------------------------------------------------


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    return tmp_path / "incoming"


@pytest.fixture
def woken(incoming: Path) -> Iterator[tuple[Watcher, threading.Event]]:
    watcher, event = Watcher([incoming], settle_seconds=0.01), threading.Event()
    threads = set(threading.enumerate())
    watcher.start(event.set)
    watcher.start(event.set)
    watcher.scan()
    yield watcher, event
    watcher.stop()
    watcher.stop()
    assert not set(threading.enumerate()) - threads  # one of another test may end meanwhile


def settle(watcher: Watcher, event: threading.Event) -> None:
    """Scan until nothing rings any more, as the controller would."""
    watcher.scan()
    event.clear()
    while event.wait(0.15):
        event.clear()


def test_start_makes_the_directory_and_a_dropped_model_wakes(
    incoming: Path, woken: tuple[Watcher, threading.Event], tmp_path: Path
) -> None:
    watcher, event = woken
    shutil.copytree(fill(tmp_path / "source"), incoming / "model")
    assert event.wait(PATIENCE_S)
    wait_for(lambda: len(watcher.scan()) == 1)


def test_a_rename_in_the_folder_wakes_at_once(incoming: Path, woken: tuple[Watcher, threading.Event]) -> None:
    """watchdog alone would hold each back for half a second; the fastest of many tells, however busy the machine is."""
    watcher, event = woken
    part = fill(incoming / "model", "model.safetensors.part") / "model.safetensors.part"
    whole, held_s = part.with_suffix(""), []
    for source, target in [(part, whole), (whole, part)] * 10:
        settle(watcher, event)
        began = time.monotonic()
        source.rename(target)
        assert event.wait(PATIENCE_S)
        held_s.append(time.monotonic() - began)
        if held_s[-1] < 0.4:
            return
    pytest.fail(f"each rename was held back: {held_s}")


def test_ignored_names_and_our_own_reading_do_not_wake(incoming: Path, woken: tuple[Watcher, threading.Event]) -> None:
    watcher, event = woken
    fill(incoming / "model", "config.json", ".cache/x")
    for attempt in range(20):  # what was written first may be told late, once or twice
        settle(watcher, event)
        fill(incoming / "model", f".cache/huggingface/{attempt}", f"{attempt}.incomplete", f"{attempt}.lock")
        (incoming / "model" / "config.json").read_text()
        if not event.wait(0.3):
            return
    pytest.fail("it woke each time")


def test_a_watch_directory_that_comes_back_is_watched_again(incoming: Path, woken: tuple[Watcher, threading.Event]) -> None:
    watcher, event = woken
    shutil.rmtree(incoming)
    watcher.scan()
    incoming.mkdir()
    settle(watcher, event)
    fill(incoming / "model")
    assert event.wait(PATIENCE_S)


def test_a_change_makes_the_watcher_look_again(incoming: Path, woken: tuple[Watcher, threading.Event]) -> None:
    watcher, event = woken
    folder = fill(incoming / "model")
    settle(watcher, event)
    with (folder / "model.safetensors").open("ab", buffering=0) as growing:  # a write sends no event that we listen to
        growing.write(b"x")
        before = watcher.scan()
        event.clear()
        assert event.wait(PATIENCE_S)
        growing.write(b"x")
        assert watcher.scan() != before

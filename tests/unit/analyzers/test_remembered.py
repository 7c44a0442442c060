"""A growing copy: what was read of its files is not read again, as long as they are the same."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.analyzers import Remembered, analyze
from modelium.values import Analysis, Incomplete, ModelProfile, Unsupported
from tests.unit.analyzers.folders import candidate, drop, safetensors

SHARDS = {name: safetensors({name: ("F32", [4, 8], 128)}) for name in ("a", "b")}
PLACED = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
QUANTIZED = '{"quantization_config": {"quant_method": "gptq", "bits": 4}, '
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The first of two shards, and the index."""
    made = drop(tmp_path / "m", files={INDEX: json.dumps({"weight_map": PLACED}), PLACED["a"]: SHARDS["a"]})
    (made / "model.safetensors").unlink()
    return made


def spoil(file: Path) -> None:
    """A lie in the header, of the same size and time: only who reads it again sees it."""
    times = file.stat()
    file.write_bytes(file.read_bytes().replace(b"[4, 8]", b"[4, 9]"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def look(folder: Path, text: str = "") -> tuple[Analysis, str]:
    remembered = Remembered(text)
    return analyze(candidate(folder), remembered=remembered), remembered.text()


def test_a_file_that_is_the_same_is_not_read_again(folder: Path) -> None:
    first, text = look(folder)
    assert isinstance(first, Incomplete) and PLACED["b"] in first.why and text
    spoil(folder / PLACED["a"])
    (folder / PLACED["b"]).write_bytes(SHARDS["b"])
    whole, text = look(folder, text)
    assert isinstance(whole, ModelProfile) and (whole.parameters, whole.weight_bytes, whole.loaded_bytes) == (64, 256, 256)
    assert look(folder, text)[0] == whole
    assert isinstance(look(folder)[0], Unsupported)  # with nothing to remember it is read


def test_what_has_changed_is_read(folder: Path) -> None:
    _, text = look(folder)
    spoil(folder / PLACED["a"])
    for changed in (INDEX, PLACED["a"], "config.json"):
        fresh = (folder / changed).stat()
        if changed == "config.json":  # tensors may mean something else now
            (folder / changed).write_text((folder / changed).read_text().replace("{", QUANTIZED, 1))
        else:
            os.utime(folder / changed, ns=(fresh.st_atime_ns, fresh.st_mtime_ns + 1))
        assert isinstance(look(folder, text)[0], Unsupported), changed
        os.utime(folder / changed, ns=(fresh.st_atime_ns, fresh.st_mtime_ns))


_json = st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(said=_json, kept=_json)
def test_what_is_none_of_ours_is_as_good_as_nothing(
    said: object, kept: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("m")
    drop(folder / "m")
    for text in (json.dumps(said), json.dumps({"basis": said, "files": {"model.safetensors": kept}}), str(said)):
        assert look(folder / "m", text)[0] == look(folder / "m")[0]

"""JSON that is whole, cut short or broken; the balance proof for tokenizers of any size."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelium.analyzers.folder import file_of
from modelium.analyzers.formats.json_text import parse_object, prove_whole
from modelium.analyzers.verdict import NotYet
from tests.unit.analyzers.folders import drop, incomplete, profile, unsupported

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
_objects = st.dictionaries(st.text(max_size=4), _values, max_size=4)


@settings(max_examples=100)
@given(_objects, st.booleans(), st.data())
def test_every_strict_prefix_of_an_object_is_cut_short_never_broken(
    value: dict[str, object], ascii_only: bool, data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(NotYet):
        parse_object(text[:cut], "config.json")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_objects, st.data())
def test_the_balance_proof_agrees_with_a_parser(tmp_path: Path, value: dict[str, object], data: st.DataObject) -> None:
    text = json.dumps(value).encode()
    cut = data.draw(st.integers(1, len(text)))
    path = tmp_path / "tokenizer.json"
    path.write_bytes(text[:cut])
    file = file_of(path, tmp_path)
    if cut == len(text):
        prove_whole(file, thorough=True)
    else:
        with pytest.raises(NotYet):
            prove_whole(file, thorough=True)


def test_the_balance_proof_holds_over_chunk_borders(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for shift in range(6):
        path.write_text(json.dumps({"a" * shift: ["\\", '"', "{", "é\\"] * 90_000}))
        prove_whole(file_of(path, tmp_path), thorough=True)
    text = path.read_bytes()
    path.write_bytes(text[: len(text) // 2] + b"}")  # ends well, and is cut short all the same
    with pytest.raises(NotYet):
        prove_whole(file_of(path, tmp_path), thorough=True)


@pytest.mark.parametrize("text", ['{"a" 1}', '{"a": 1,}', "{'a': 1}", '{"a": 1} trailing', '{"a": nul}', '{"a": tru, "b": 1}'])
def test_json_broken_in_the_middle_is_refused_with_the_place(tmp_path: Path, text: str) -> None:
    found = unsupported(drop(tmp_path / "m", files={"config.json": text}))
    assert "config.json is not valid JSON" in found.why and found.hint


def test_config_cut_short_is_incomplete(tmp_path: Path) -> None:
    found = incomplete(drop(tmp_path / "m", files={"config.json": '{"architectures": ["Ber'}))
    assert "cut short" in found.why and found.missing[0].file == "config.json"


def test_an_empty_config_and_one_of_zeros_are_incomplete(tmp_path: Path) -> None:
    incomplete(drop(tmp_path / "empty", files={"config.json": ""}))
    incomplete(drop(tmp_path / "zeros", files={"config.json": b"\0" * 512}))
    incomplete(drop(tmp_path / "tail", files={"config.json": b"{}" + b"\0" * 512}))


def test_huge_and_deep_and_odd_configs_are_refused(tmp_path: Path) -> None:
    huge = drop(tmp_path / "huge")
    os.truncate(huge / "config.json", 65 * 2**20)  # sparse: takes no room
    assert "64 MiB" in unsupported(huge).why
    assert "deeply" in unsupported(drop(tmp_path / "deep", files={"config.json": "[" * 100_000 + "]" * 100_000})).why
    assert "not an object" in unsupported(drop(tmp_path / "list", files={"config.json": "[]"})).why
    unsupported(drop(tmp_path / "digits", files={"config.json": '{"a": ' + "1" * 5000 + "}"}))
    unsupported(drop(tmp_path / "latin", files={"config.json": b'{"a": "\xe9 and more"}'}))


def test_values_of_the_wrong_kind_are_passed_over(tmp_path: Path) -> None:
    config: dict[str, object] = {
        "architectures": ["BertModel", 7],
        "model_type": "bert",
        "hidden_size": "wide",
        "id2label": [1],
    }
    config |= {"max_position_embeddings": True, "quantization_config": 3, "auto_map": "x", "text_config": []}
    config |= {"pad_token_id": {}, "task_specific_params": None}
    found = profile(drop(tmp_path / "m", config))
    assert (found.embedding_width, found.max_length) == (None, None)

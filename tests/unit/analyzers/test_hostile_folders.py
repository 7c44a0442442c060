"""Folders that would stop or break everybody else's: each is answered, with values that can be shown and computed with."""

from __future__ import annotations

import json
import time
from pathlib import Path

import orjson
import pytest

from modelium.analyzers import analyze
from modelium.values import Analysis, Candidate, Incomplete, ModelOverride, ModelProfile, Unsupported
from modelium.views import Described, FullProfile, written
from tests import hostile


def look(folder: Path) -> Analysis:
    candidate = Candidate(
        name=folder.name, label=folder.name, path=folder, root=folder.parent, signature="", newest_mtime=time.time() - 3600
    )
    return analyze(candidate, ModelOverride(allow_custom_code=True))


def refused(folder: Path) -> str:
    found = look(folder)
    assert isinstance(found, Unsupported), found
    return found.why


@pytest.mark.parametrize("kind", hostile.KINDS)
def test_every_kind_is_answered_with_values_that_can_be_sent(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / kind
    hostile.KINDS[kind](folder, 1)
    match look(folder):
        case ModelProfile() as profile:
            orjson.dumps(written(FullProfile, Described(profile=profile)))
            assert 0 <= profile.parameters <= 2**50
        case Unsupported(why=why, hint=hint) | Incomplete(why=why, missing=hint):
            assert 0 < len(why.encode()) < 3_000
            assert len(hint) <= 1_000
        case other:
            pytest.fail(repr(other))


def test_there_are_forty_kinds() -> None:
    assert len(hostile.KINDS) >= 40


def test_yaml_aliases_are_refused_before_they_are_followed(tmp_path: Path) -> None:
    folder = hostile.lay(tmp_path / "a", {"modelium.yaml": hostile.yaml_aliases(), "serve_app.py": "app = 1\n"})
    assert refused(folder) == "modelium.yaml uses an alias (*a0, line 3)"


def test_merged_yaml_keys_are_refused(tmp_path: Path) -> None:
    folder = hostile.lay(tmp_path / "a", {"modelium.yaml": hostile.yaml_merges(), "serve_app.py": "app = 1\n"})
    assert "uses an alias" in refused(folder)


def test_what_json_has_not_is_no_argument_of_an_application(tmp_path: Path) -> None:
    folder = hostile.lay(tmp_path / "a", {"modelium.yaml": "args: {day: 2026-01-01}", "serve_app.py": "app = 1\n"})
    assert "datetime.date(2026, 1, 1), which JSON has not" in refused(folder)


def test_a_name_of_tuples_is_never_put_into_words(tmp_path: Path) -> None:
    hostile.KINDS["pickle-long-name"](tmp_path / "a", 1)
    assert (tmp_path / "a" / "pytorch_model.bin").stat().st_size < 1_000
    assert refused(tmp_path / "a") == "pytorch_model.bin: its pickle is damaged (TypeError)"


def test_a_pickle_of_empty_lists_is_given_up(tmp_path: Path) -> None:
    hostile.KINDS["pickle-lists"](tmp_path / "a", 3)
    assert "takes more than 2,000,000 steps" in refused(tmp_path / "a")


def test_a_configuration_of_empty_lists_is_not_parsed(tmp_path: Path) -> None:
    folder = hostile.lay(tmp_path / "a", hostile.model(hostile.json_of_lists(60)))
    assert refused(folder).startswith("config.json has some 41,")


def test_a_header_of_too_many_tensors_says_how_many(tmp_path: Path) -> None:
    header = b'{"a":{"data_offsets":1}' + b',"a":{"data_offsets":1}' * 1_400_000 + b"}"
    folder = hostile.lay(tmp_path / "a", hostile.model(hostile.BERT, {"model.safetensors": hostile.safetensors(header)}))
    assert refused(folder) == "model.safetensors: its header lists 1,400,001 tensors; at most 250,000 are read"


def test_a_header_that_is_large_and_right_is_read(tmp_path: Path) -> None:
    header = hostile.header_of_tensors(20_000)
    data = hostile.safetensors(header, bytes(80_000))
    found = look(hostile.lay(tmp_path / "a", hostile.model(hostile.BERT, {"model.safetensors": data})))
    assert isinstance(found, ModelProfile)
    assert found.parameters == 20_000


def test_an_index_of_too_many_shards_says_how_many(tmp_path: Path) -> None:
    files = {"config.json": json.dumps(hostile.BERT), "model.safetensors.index.json": hostile.index_of_shards(100_000)}
    assert "names 100,000 shards" in refused(hostile.lay(tmp_path / "a", files))


def test_a_graph_of_too_many_inputs_is_refused(tmp_path: Path) -> None:
    folder = hostile.lay(tmp_path / "a", {"model.onnx": hostile.onnx_of_inputs(20_000)})
    assert refused(folder) == "model.onnx: its graph has 20,000 inputs; at most 4,096 are served"


def test_a_graph_of_empty_fields_is_given_up(tmp_path: Path) -> None:
    folder = hostile.lay(tmp_path / "a", {"model.onnx": hostile.onnx_of_empty_fields(2)})
    assert refused(folder) == "model.onnx has more fields than any ONNX model"


def test_a_zip_bomb_is_not_parsed(tmp_path: Path) -> None:
    folder = hostile.lay(tmp_path / "a", {"model.skops": hostile.skops_bomb(tmp_path / "zip", 60)})
    assert (folder / "model.skops").stat().st_size < 70_000
    assert "its schema.json has some" in refused(folder)


def test_half_a_surrogate_pair_is_shown_as_its_number(tmp_path: Path) -> None:
    hostile.KINDS["label-surrogate"](tmp_path / "a", 1)
    found = look(tmp_path / "a")
    assert isinstance(found, ModelProfile)
    assert found.labels == ("half \\ud83d", "whole")


def test_a_count_of_labels_that_none_names_does_not_become_megabytes(tmp_path: Path) -> None:
    hostile.KINDS["label-count"](tmp_path / "a", 1)
    assert refused(tmp_path / "a") == (
        "its config.json says 1,180,591,620,717,411,303,424 labels and names none; at most 4,096 are taken"
    )


def test_as_many_labels_as_imagenet_are_served(tmp_path: Path) -> None:
    names = {str(number): f"label {number}, or what else it is called" for number in range(21_843)}
    found = look(hostile.lay(tmp_path / "a", hostile.model({**hostile.BERT, "id2label": names})))
    assert isinstance(found, ModelProfile)
    assert len(found.labels) == 21_843


def test_more_parameters_than_any_model_has(tmp_path: Path) -> None:
    hostile.KINDS["parameters-huge"](tmp_path / "a", 1)
    assert refused(tmp_path / "a").startswith("its number of parameters is 4,611,686,018,427,387,904, more than")


def test_a_class_name_of_megabytes_is_not_repeated(tmp_path: Path) -> None:
    hostile.KINDS["class-name-long"](tmp_path / "a", 5)
    assert len(refused(tmp_path / "a")) < 700


def test_a_width_that_no_model_has(tmp_path: Path) -> None:
    hostile.KINDS["width-huge"](tmp_path / "a", 1)
    assert refused(tmp_path / "a").startswith("its embedding width is over 2^99, more than any model has")

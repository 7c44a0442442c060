"""Safetensors headers: exact counts, lies, truncation at every length, and random bytes that never raise."""

from __future__ import annotations

import itertools
import json
import math
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelium.analyzers.formats.safetensors_header import tally_header
from modelium.analyzers.verdict import Rejected
from modelium.values import Incomplete, ModelProfile, Unsupported, WeightFormat
from tests.unit.analyzers.folders import drop, incomplete, look, minilm, profile, safetensors, unsupported, with_header

_numbers = itertools.count()
_random = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_parameters_are_counted_from_the_header_without_index_buffers(tmp_path: Path) -> None:
    found = profile(drop(tmp_path / "m"))
    assert (found.parameters, found.weight_bytes, found.dtype) == (32, 152, "float32")
    assert found.weight_format is WeightFormat.SAFETENSORS


def test_the_dtype_is_the_one_that_most_parameters_have(tmp_path: Path) -> None:
    weights = safetensors({"a": ("BF16", [100], 200), "b": ("F32", [10], 40)})
    assert profile(drop(tmp_path / "m", files={"model.safetensors": weights})).dtype == "bfloat16"


def test_packed_four_bit_weights_show_the_type_they_are_packed_in(tmp_path: Path) -> None:
    weights = safetensors({"qweight": ("I32", [100], 400), "scales": ("F16", [4], 8)})
    config = {"architectures": ["BertModel"], "model_type": "bert", "quantization_config": {"quant_method": "gptq", "bits": 4}}
    found = profile(drop(tmp_path / "m", config, {"model.safetensors": weights}))
    assert (found.dtype, found.quantization, found.parameters) == ("int32", "gptq", 800)
    assert (found.weight_bytes, found.loaded_bytes) == (408, 408)


def test_a_shorter_file_is_incomplete_with_present_and_expected_bytes(tmp_path: Path) -> None:
    whole = safetensors()
    found = incomplete(drop(tmp_path / "m", files={"model.safetensors": whole[:-50]}), age_s=86_400)
    (part,) = found.missing
    assert (part.file, part.present_bytes, part.expected_bytes) == ("model.safetensors", len(whole) - 50, len(whole))
    assert "model.safetensors" in found.why and " of " in found.why


def test_no_truncation_of_a_file_is_ever_a_profile(tmp_path: Path) -> None:
    whole = safetensors()
    folder = drop(tmp_path / "m")
    for length in range(len(whole)):
        (folder / "model.safetensors").write_bytes(whole[:length])
        assert isinstance(look(folder), Incomplete), length
    (folder / "model.safetensors").write_bytes(whole)
    assert isinstance(look(folder), ModelProfile)


def _bytes_at(begin: int, end: int) -> dict[str, object]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "data", "word"),
    [
        ({"w": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}}, b"", "lies"),
        ({"w": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}, b"", "lies"),
        ({"w": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}, b"1" * 16, "shape"),
        ({"w": {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]}}, b"1" * 16, "cannot have"),
        ({"w": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 16]}}, b"1" * 16, "cannot have"),
        ({"w": {"dtype": "U8", "shape": [2**60], "data_offsets": [0, 2**60]}}, b"", "lies"),
        ({"w": _bytes_at(0, 9), "v": _bytes_at(4, 8)}, b"1" * 9, "overlap"),
        ({"w": _bytes_at(4, 8)}, b"1" * 8, "hole"),
        ({"w": {"dtype": "U8", "shape": "four", "data_offsets": [0, 4]}}, b"1" * 4, "no dtype"),
        ({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, b"1" * 9, "longer than its header says"),
        ([1, 2], b"", "not a JSON object"),
    ],
)  # fmt: skip
def test_a_lying_header_is_refused(tmp_path: Path, header: object, data: bytes, word: str) -> None:
    found = unsupported(drop(tmp_path / "m", files={"model.safetensors": with_header(header, data)}))
    assert word in found.why and found.hint


def test_a_gigantic_header_is_refused_without_reading_it(tmp_path: Path) -> None:
    found = unsupported(drop(tmp_path / "m", files={"model.safetensors": struct.pack("<Q", 2**50) + b"{}"}))
    assert "header" in found.why


def test_a_plausible_header_that_is_not_all_there_is_incomplete(tmp_path: Path) -> None:
    incomplete(drop(tmp_path / "m", files={"model.safetensors": struct.pack("<Q", 5000) + b'{"w":'}))


def test_a_file_reserved_with_zeros_is_incomplete_and_refused_when_nothing_comes(tmp_path: Path) -> None:
    folder = drop(tmp_path / "m", files={"model.safetensors": b"\0" * 4096})
    assert incomplete(folder).missing[0].expected_bytes == 4096
    assert "zeros" in unsupported(folder, age_s=3600).why


def test_a_git_lfs_pointer_says_how_to_get_the_weights(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90868376\n"
    found = incomplete(drop(tmp_path / "m", files={"model.safetensors": pointer}))
    assert "git lfs pull" in found.why and found.missing[0].expected_bytes == 90_868_376


@_random
@given(st.binary(max_size=300))
def test_random_bytes_never_raise_and_never_make_a_profile(tmp_path: Path, data: bytes) -> None:
    folder = drop(tmp_path / f"m{next(_numbers)}", files={"model.safetensors": data})
    found = look(folder)
    empty = len(data) >= 10 and data[8:].strip() == b"{}"
    assert isinstance(found, Incomplete | Unsupported) or empty


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "w"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@_random
@given(_json)
def test_random_headers_never_raise_anything_but_a_refusal(header: object) -> None:
    try:
        tally = tally_header(json.dumps(header).encode(), "model.safetensors")
    except Rejected as refusal:
        assert "model.safetensors" in refusal.why
    else:
        assert tally.data_bytes >= 0


def test_all_minilm_l6_v2_is_read_exactly() -> None:
    path = minilm()
    if path is None:
        pytest.skip("no model runtime here")
    found = profile(path)
    assert (found.parameters, found.weight_bytes, found.dtype) == (22_713_216, 90_856_960, "float32")
    assert (found.architecture, found.task, found.library) == ("BertModel", "sentence-similarity", "sentence-transformers")
    assert found.pooling is not None and (found.pooling.mode, found.pooling.normalize) == ("mean", True)
    assert (found.max_length, found.embedding_width, found.labels, found.is_llm) == (256, 384, (), False)
    assert "pipeline_tag" in found.task_source and len(found.fingerprint) == 32


_names = st.text("abc.019_é", min_size=1, max_size=12)
_tensors = st.dictionaries(
    _names, st.tuples(st.sampled_from(["F32", "BF16", "U8", "I64"]), st.lists(st.integers(0, 9), max_size=3))
)


@_random
@given(tensors=_tensors, metadata=st.booleans(), damage=st.integers(0, 6), at=st.integers(0, 10**6))
def test_a_header_is_read_alike_in_one_sweep_and_tensor_by_tensor(
    tensors: dict[str, tuple[str, list[int]]], metadata: bool, damage: int, at: int
) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt", "said": 'a "]},\\" b'}} if metadata else {}
    begin = 0
    for name, (dtype, shape) in tensors.items():
        end = begin + math.prod(shape) * {"F32": 4, "BF16": 2, "U8": 1, "I64": 8}[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        begin = end
    compact = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    if damage == 1:  # a digit becomes another: what lies is refused by both
        digits = [place for place, byte in enumerate(compact) if byte in b"0123456789"]
        if digits:
            place = digits[at % len(digits)]
            compact = compact[:place] + b"7" + compact[place + 1 :]
    assert _told(compact) == _told(compact.replace(b'":{"dtype"', b'": {"dtype"'))


def _told(header: bytes) -> object:
    try:
        tally = tally_header(header, "f")
    except Rejected as verdict:
        return verdict.why
    return dict(tally.tensors), tally.data_bytes

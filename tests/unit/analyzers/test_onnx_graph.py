"""ONNX: the wire walker against the onnx package, truncation at every length, external data, what Triton cannot carry."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, ValueInfoProto, helper

from modelium.analyzers.folder import file_of
from modelium.analyzers.formats.onnx_graph import read_onnx
from modelium.analyzers.formats.onnx_types import ITEM_BITS, KSERVE_WORDS, TORCH_WORDS
from modelium.analyzers.verdict import NotYet
from modelium.values import Incomplete, ModelOverride, ModelProfile, OnnxGraph, Task, WeightFormat
from tests.patience import cpu_s, work_s
from tests.unit.analyzers.folders import BERT, HOUR_S, incomplete, lay, look, profile, unsupported

_numbers = itertools.count()
_random = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _model(inputs: list[ValueInfoProto], outputs: list[ValueInfoProto], *, weights: bool = True, ir_version: int = 9) -> bytes:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 2], [0.5] * 8)
    shape = helper.make_tensor("s", TensorProto.INT64, [2], [1, 2])
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", inputs, outputs, [weight, shape] if weights else [])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 99)])
    made.producer_name, made.ir_version = "pytorch", ir_version
    data: bytes = made.SerializeToString()
    return data


def _value(name: str, kind: int, shape: list[str | int | None] | None) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _simple() -> bytes:
    x, y = _value("x", TensorProto.FLOAT, ["batch", 4]), _value("y", TensorProto.FLOAT, ["batch", 2])
    return _model([x], [y])


def _graph(path: Path) -> OnnxGraph:
    found = profile(path)
    assert found.onnx is not None
    return found.onnx


def test_a_single_file_is_a_model_of_tensors(tmp_path: Path) -> None:
    lay(tmp_path, {"m.onnx": _simple()})
    found = profile(tmp_path / "m.onnx")
    assert (found.task, found.library, found.architecture, found.weight_format) == (
        Task.TENSORS,
        "onnx",
        "pytorch",
        WeightFormat.ONNX,
    )
    assert (found.parameters, found.weight_bytes, found.dtype) == (8, 48, "float32")
    graph = _graph(tmp_path / "m.onnx")
    assert graph.opset == 17 and graph.dynamic_batch and graph.file == "" and graph.external_data == ()
    assert [(t.name, t.datatype, t.dims) for t in (*graph.inputs, *graph.outputs)] == [
        ("x", "FP32", (-1, 4)),
        ("y", "FP32", (-1, 2)),
    ]


def test_the_fields_agree_with_the_onnx_package() -> None:
    model, graph, tensor = onnx.ModelProto, onnx.GraphProto, onnx.TensorProto
    numbers = {
        m: {f.name: f.number for f in m.DESCRIPTOR.fields} for m in (model, graph, tensor, onnx.ValueInfoProto, onnx.TypeProto)
    }
    assert (numbers[model]["producer_name"], numbers[model]["graph"], numbers[model]["opset_import"]) == (2, 7, 8)
    assert (numbers[graph]["initializer"], numbers[graph]["input"], numbers[graph]["output"]) == (5, 11, 12)
    assert [numbers[tensor][n] for n in ("dims", "data_type", "name", "raw_data", "external_data")] == [1, 2, 8, 9, 13]
    assert (
        set(TORCH_WORDS) <= set(tensor.DataType.values())
        and set(KSERVE_WORDS) <= set(TORCH_WORDS)
        and ITEM_BITS[tensor.BFLOAT16] == 16
    )
    assert numbers[onnx.TypeProto]["tensor_type"] == 1


def test_no_truncation_is_ever_a_profile(tmp_path: Path) -> None:
    whole = _simple()
    path = tmp_path / "m.onnx"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        result = look(path)
        # The last field imports a second operator set: cut right before it, the file is a whole model of its own.
        assert isinstance(result, Incomplete) or length > len(whole) - 24, length


def test_a_short_file_says_how_long_it_has_to_be(tmp_path: Path) -> None:
    whole = _simple()
    part = incomplete(lay(tmp_path, {"m.onnx": whole[:80]}) / "m.onnx").missing[0]
    assert part.present_bytes == 80 and part.expected_bytes is not None and 80 < part.expected_bytes <= len(whole)


@pytest.mark.parametrize(
    ("first_in", "first_out", "dynamic"),
    [("batch", "batch", True), (None, None, True), ("batch", 1, False), (1, 1, False), ("images", "boxes", False)],
)
def test_rows_may_be_batched_only_when_every_first_dimension_is_the_same_symbol(
    tmp_path: Path, first_in: str | int | None, first_out: str | int | None, dynamic: bool
) -> None:
    made = _model([_value("x", TensorProto.FLOAT, [first_in, 4])], [_value("y", TensorProto.FLOAT, [first_out, 2])])
    assert _graph(lay(tmp_path, {"m.onnx": made}) / "m.onnx").dynamic_batch is dynamic


def test_scalars_strings_and_half_precision_keep_their_types(tmp_path: Path) -> None:
    kinds = [TensorProto.STRING, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.BOOL, TensorProto.INT64]
    inputs = [_value(f"x{kind}", kind, [1]) for kind in kinds]
    graph = _graph(lay(tmp_path, {"m.onnx": _model(inputs, [_value("y", TensorProto.FLOAT, [])])}) / "m.onnx")
    assert [t.datatype for t in graph.inputs] == ["BYTES", "FP16", "BF16", "BOOL", "INT64"]
    assert graph.outputs[0].dims == () and not graph.dynamic_batch


def test_weights_listed_among_the_inputs_are_not_inputs(tmp_path: Path) -> None:
    inputs = [_value("x", TensorProto.FLOAT, ["n", 4]), _value("w", TensorProto.FLOAT, [4, 2])]
    made = _model(inputs, [_value("y", TensorProto.FLOAT, ["n", 2])], ir_version=3)
    assert [t.name for t in _graph(lay(tmp_path, {"m.onnx": made}) / "m.onnx").inputs] == ["x"]


def test_what_triton_cannot_carry_is_refused_with_a_way_out(tmp_path: Path) -> None:
    x, y = _value("x", TensorProto.FLOAT, ["n", 4]), _value("y", TensorProto.FLOAT, ["n", 2])
    sequence = helper.make_tensor_sequence_value_info("p", TensorProto.FLOAT, None)
    cases = {
        "sequence": _model([x], [sequence]),
        "element type": _model([x], [_value("y", TensorProto.FLOAT8E4M3FN, ["n"])]),
        "dimensions": _model([x], [_value("y", TensorProto.FLOAT, None)]),
        "no inputs": _model([], [y]),
    }
    for word, data in cases.items():
        found = unsupported(lay(tmp_path, {"m.onnx": data}) / "m.onnx")
        assert word in found.why and found.hint


def _external(location: str, offset: int, length: int) -> bytes:
    made = onnx.load_from_string(_simple())
    tensor = made.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": str(offset), "length": str(length)}.items():
        tensor.external_data.add(key=key, value=value)
    data: bytes = made.SerializeToString()
    return data


def test_external_data_has_to_be_there_to_its_last_byte(tmp_path: Path) -> None:
    path = lay(tmp_path, {"m.onnx": _external("m.onnx.data", 64, 32)}) / "m.onnx"
    assert incomplete(path, age_s=HOUR_S).missing[0].expected_bytes == 96
    (tmp_path / "m.onnx.data").write_bytes(b"\0" * 95)
    assert incomplete(path).missing[0].present_bytes == 95
    (tmp_path / "m.onnx.data").write_bytes(b"\0" * 96)
    first = profile(path)
    assert first.onnx is not None and first.onnx.external_data == ("m.onnx.data",)
    assert (first.parameters, first.weight_bytes) == (8, 48)
    assert first.weight_files == ("m.onnx", "m.onnx.data")
    (tmp_path / "m.onnx.data").write_bytes(b"\0" * 97)
    assert profile(path).fingerprint != first.fingerprint


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../b", "..\\x"])
def test_external_data_may_not_lie_outside(tmp_path: Path, location: str) -> None:
    assert "outside" in unsupported(lay(tmp_path, {"m.onnx": _external(location, 0, 32)}) / "m.onnx").why


def test_a_folder_with_only_a_graph_is_served_from_the_graph(tmp_path: Path) -> None:
    config = str(BERT).replace("'", '"')
    folder = lay(
        tmp_path / "m",
        {"config.json": config, "onnx/model.onnx": _external("model.onnx_data", 0, 32), "onnx/model.onnx_data": b"\0" * 32},
    )
    found = profile(folder)
    assert found.onnx is not None and (found.onnx.file, found.task, found.path) == ("onnx/model.onnx", Task.TENSORS, folder)
    assert found.weight_files == ("onnx/model.onnx", "onnx/model.onnx_data")
    assert profile(lay(tmp_path / "bare", {"any.onnx": _simple()})).onnx is not None


def test_another_task_for_a_graph_is_refused(tmp_path: Path) -> None:
    path = lay(tmp_path, {"m.onnx": _simple()}) / "m.onnx"
    assert "tensors" in unsupported(path, override=ModelOverride(task=Task.FILL_MASK)).why


@_random
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_never_raise(tmp_path: Path, data: bytes, with_head: bool) -> None:
    path = tmp_path / f"m{next(_numbers)}.onnx"
    path.write_bytes(_simple()[:40] + data if with_head else data)
    result = look(path)
    assert not isinstance(result, ModelProfile) and "please report" not in getattr(result, "hint", "")


def test_a_file_that_shrinks_while_it_is_read_is_cut_short(tmp_path: Path) -> None:
    path = lay(tmp_path, {"m.onnx": _simple()}) / "m.onnx"
    listed = file_of(path, tmp_path)
    os.truncate(path, 60)
    with pytest.raises(NotYet):
        read_onnx(listed, lambda name: None)


def test_a_gigabyte_of_weights_is_skipped_over(tmp_path: Path) -> None:
    """The same graph with a sparse gigabyte inside its one tensor: the walk takes no longer than for eight numbers."""
    raw_length, at = 2**30, tmp_path / "m.onnx"
    tensor = b"\x08" + _varint(2**28) + b"\x10\x01" + b"\x42\x01w" + b"\x4a" + _varint(raw_length)
    tail = onnx.load_from_string(_simple()).graph
    tail.ClearField("initializer")
    rest = tail.SerializeToString()
    graph_length = 1 + len(_varint(len(tensor) + raw_length)) + len(tensor) + raw_length + len(rest)
    head = b"\x08\x09\x3a" + _varint(graph_length) + b"\x2a" + _varint(len(tensor) + raw_length) + tensor
    with at.open("wb") as stream:
        stream.write(head)
        stream.seek(raw_length, 1)
        stream.write(rest + b"\x42\x02\x10\x11")
    found: list[ModelProfile] = []
    assert cpu_s(lambda: found.append(profile(at))) < 5 * work_s()  # to read them costs ten times that
    assert (found[0].parameters, found[0].weight_bytes) == (2**28, raw_length)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])

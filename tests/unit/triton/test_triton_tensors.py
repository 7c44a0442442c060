"""Tensors on the wire: what is encoded is decoded again, in Triton's own layout."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient import utils
from tritonclient.grpc import service_pb2

from modelium.triton.tensors import Array, datatype_of, decode_bytes, encode_bytes, infer_request, read_outputs

numeric = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="="),
    hnp.unsigned_integer_dtypes(endianness="="),
    hnp.floating_dtypes(endianness="=", sizes=(16, 32, 64)),
)


def answered(request: service_pb2.ModelInferRequest) -> dict[str, Array]:
    """What a model that gives its inputs back would answer."""
    response = service_pb2.ModelInferResponse(raw_output_contents=request.raw_input_contents)
    for tensor in request.inputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return read_outputs(response)


@given(hnp.arrays(numeric, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
def test_numbers_survive(array: Array) -> None:
    back = answered(infer_request("m", {"X": array}))["X"]
    assert back.dtype == array.dtype and back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_bytes_survive(elements: list[bytes]) -> None:
    array = np.array([*elements, None], dtype=np.object_)[:-1]
    assert answered(infer_request("m", {"X": array}))["X"].tolist() == elements


@given(st.lists(st.text(max_size=10), min_size=1, max_size=6))
def test_layout_of_bytes_is_tritonclients(words: list[str]) -> None:
    array = np.array([word.encode() for word in words], dtype=np.object_)
    assert encode_bytes(array) == utils.serialize_byte_tensor(array).item()
    assert encode_bytes(np.array(words, dtype=np.object_)) == encode_bytes(array)


@given(st.binary(max_size=30))
def test_broken_bytes_are_an_error_never_a_crash(raw: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode_bytes(raw, [-1])


def test_transposed_and_big_endian_arrays_are_sent_in_row_order_and_little_endian() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    request = infer_request("m", {"X": array})
    assert request.inputs[0].datatype == "INT32"
    assert request.raw_input_contents[0] == np.ascontiguousarray(array.astype("<i4")).tobytes()


def test_bfloat16_becomes_float32() -> None:
    response = service_pb2.ModelInferResponse(raw_output_contents=[np.array([0x3FC0, 0xC000], np.uint16).tobytes()])
    response.outputs.add(name="Y", datatype="BF16", shape=[2])
    assert read_outputs(response)["Y"].tolist() == [1.5, -2.0]


def test_type_without_counterpart_is_named() -> None:
    with pytest.raises(ValueError, match="complex64"):
        datatype_of(np.zeros(1, np.complex64))


def test_only_the_outputs_asked_for_are_requested() -> None:
    assert [output.name for output in infer_request("m", {}, ["A", "B"]).outputs] == ["A", "B"]

"""The reader of protobuf's wire format against protobuf itself, and against hostile bytes."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from modelium.gateway.kserve_grpc import wire

TEXTS = st.text(max_size=40)
RAW = st.binary(max_size=300)


@st.composite
def requests(draw: st.DrawFn) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=draw(TEXTS), model_version=draw(TEXTS), id=draw(TEXTS))
    for _ in range(draw(st.integers(0, 3))):
        tensor = request.inputs.add(name=draw(TEXTS), datatype="FP32", shape=draw(st.lists(st.integers(0, 2**40), max_size=3)))
        tensor.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=3)))
        request.raw_input_contents.append(draw(RAW))
    for key in draw(st.lists(st.sampled_from(["priority", "x", "triton_enable_empty_final_response"]), max_size=3)):
        match draw(st.sampled_from(["bool", "int", "text", "none"])):
            case "bool":
                request.parameters[key].bool_param = draw(st.booleans())
            case "int":
                request.parameters[key].int64_param = draw(st.integers(-(2**60), 2**60))
            case "text":
                request.parameters[key].string_param = draw(TEXTS)
            case _:
                request.parameters[key].SetInParent()
    return request


@given(requests())
def test_a_request_is_read_as_protobuf_reads_it(request: pb.ModelInferRequest) -> None:
    data = request.SerializeToString()
    wants = "triton_enable_empty_final_response" in request.parameters
    assert wire.question_of(data) == wire.Question(
        name=request.model_name,
        version=request.model_version,
        id=request.id,
        wants_final=wants and request.parameters["triton_enable_empty_final_response"].bool_param,
    )
    assert wire.text_of(data, wire.INFER_NAME) == request.model_name
    assert wire.text_of(data, wire.INFER_VERSION) == request.model_version


@given(requests(), requests())
def test_of_two_messages_in_one_the_last_fields_count(first: pb.ModelInferRequest, second: pb.ModelInferRequest) -> None:
    """Protobuf merges what is written one after the other."""
    data = first.SerializeToString() + second.SerializeToString()
    merged = pb.ModelInferRequest.FromString(data)
    found = wire.question_of(data)
    assert (found.name, found.version, found.id) == (merged.model_name, merged.model_version, merged.id)
    assert found.wants_final is (
        "triton_enable_empty_final_response" in merged.parameters
        and merged.parameters["triton_enable_empty_final_response"].bool_param
    )


@given(requests(), TEXTS)
def test_a_message_is_renamed_and_nothing_else_changes(request: pb.ModelInferRequest, name: str) -> None:
    renamed = pb.ModelInferRequest.FromString(wire.renamed(request.SerializeToString(), wire.INFER_NAME, name))
    assert renamed.model_name == name
    renamed.model_name = request.model_name
    assert renamed.SerializeToString(deterministic=True) == request.SerializeToString(deterministic=True)


@given(requests())
def test_triton_is_asked_to_tell_the_end(request: pb.ModelInferRequest) -> None:
    told = pb.ModelInferRequest.FromString(wire.ending_told(request.SerializeToString()))
    assert told.parameters["triton_enable_empty_final_response"].bool_param is True
    assert told.model_name == request.model_name


@given(st.binary(max_size=200))
@example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x")  # a length of 2^64 - 1
@example(b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01")  # a number of eleven bytes
@example(b"\x00\x01")  # field 0
@example(b"\x0b\x0c")  # a group
@example(b"\x0a\x05ab")  # ends early
@example(b"\x0a\x01\xff")  # no UTF-8
def test_whatever_bytes_come_it_is_malformed_or_read_as_protobuf_does(data: bytes) -> None:
    try:
        found = wire.question_of(data)
    except wire.Malformed:
        return
    try:
        parsed = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        return  # inside of a tensor, which is Triton's to say
    assert (found.name, found.version, found.id) == (parsed.model_name, parsed.model_version, parsed.id)


@given(st.binary(max_size=200))
def test_a_response_of_any_bytes_is_malformed_or_read(data: bytes) -> None:
    try:
        found = wire.response_of(data)
    except wire.Malformed:
        return
    try:
        parsed = pb.ModelStreamInferResponse.FromString(data)
    except DecodeError:
        return
    assert (found.error, found.id) == (parsed.error_message, parsed.infer_response.id)


def test_a_field_of_another_wire_type_is_unknown() -> None:
    data = wire.bytes_field(1, "llama") + wire.number_field(1, 7)
    assert wire.text_of(data, 1) == "llama" == pb.ModelInferRequest.FromString(data).model_name


def test_a_message_of_very_many_fields_is_refused() -> None:
    assert wire.text_of(wire.number_field(9, 1) * wire.MOST_FIELDS, 1) == ""
    with pytest.raises(wire.Malformed, match="more than"):
        wire.text_of(wire.number_field(9, 1) * (wire.MOST_FIELDS + 1), 1)


@pytest.mark.parametrize("final", [None, False, True])
@pytest.mark.parametrize("error", ["", "bad one"])
@pytest.mark.parametrize("outputs", [0, 2])
def test_a_response_says_whether_it_is_the_last(final: bool | None, error: str, outputs: int) -> None:
    response = pb.ModelStreamInferResponse(error_message=error)
    response.infer_response.id = "a"
    if final is not None:
        response.infer_response.parameters["triton_final_response"].bool_param = final
        response.infer_response.parameters["other"].int64_param = 3
    for _ in range(outputs):
        response.infer_response.outputs.add(name="O")
        response.infer_response.raw_output_contents.append(b"1234")
    found = wire.response_of(response.SerializeToString())
    assert found == wire.Response(error=error, id="a", final=final, empty=not error and not outputs)


@given(TEXTS, TEXTS)
def test_an_error_of_our_own_looks_like_tritons(message: str, ident: str) -> None:
    parsed = pb.ModelStreamInferResponse.FromString(wire.error_response(message, ident))
    assert (parsed.error_message, parsed.infer_response.id) == (message, ident)


def test_the_parameters_of_a_load_are_named() -> None:
    request = pb.RepositoryModelLoadRequest(model_name="m")
    request.parameters["config"].string_param = "{}"
    request.parameters["file:1/model.onnx"].bytes_param = b"x" * 1000
    assert sorted(wire.keys_of(request.SerializeToString(), 3)) == ["config", "file:1/model.onnx"]

"""Examples of Triton's gRPC clients alone."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import uuid4

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.patience import PATIENCE_S
from tests.server.examples.either import UNKNOWN, client_of, given, is_right, pair, wanted
from tests.server.examples.models import LEFT, RIGHT, Array

_VALUES = (11, 7, 5, 3, 2, 0, 1)
_SEQUENCES: dict[int | str, Sequence[int]] = {
    1000: (0, *_VALUES),
    1001: (100, *(-value for value in _VALUES)),
    str(uuid4()): (20, *(-value for value in _VALUES)),
}


def infer(url: str) -> None:
    with client_of(triton, url) as client:
        for packed in (None, "gzip", "deflate"):
            more = {"compression_algorithm": packed, "headers": {"test": "1"}, "client_timeout": PATIENCE_S}
            is_right(client.infer("simple", pair(triton), outputs=wanted(triton), **more))
            is_right(client.infer("simple", pair(triton), **more))
        assert len(client.get_inference_statistics("simple").model_stats) == 1
        with pytest.raises(InferenceServerException, match=UNKNOWN):
            client.infer("wrong_model_name", pair(triton))


def async_infer(url: str) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with client_of(triton, url) as client:
        for _ in range(4):
            client.async_infer("simple", pair(triton), lambda result, error: answers.put(error or result))
        for _ in range(4):
            is_right(answers.get(timeout=PATIENCE_S))
        call = client.async_infer("simple", pair(triton), lambda result, error: answers.put(error or result))
        call.cancel()
        last = answers.get(timeout=PATIENCE_S)  # whichever came first
        if isinstance(last, InferenceServerException):
            assert "cancelled" in str(last).lower()
        else:
            is_right(last)


async def aio_infer(url: str) -> None:
    async with tritonclient.grpc.aio.InferenceServerClient(url) as client:
        is_right(await client.infer("simple", pair(triton), outputs=wanted(triton)))
        is_right(await client.infer("simple", pair(triton), compression_algorithm="gzip"))
        assert len((await client.get_inference_statistics("simple")).model_stats) == 1
        with pytest.raises(InferenceServerException, match=UNKNOWN):
            await client.infer("wrong_model_name", pair(triton))


def _one(ident: int | str, number: int) -> dict[str, Any]:
    """The ``number``-th request of a sequence."""
    values = _SEQUENCES[ident]
    return {
        "model_name": "simple_sequence",
        "inputs": given(triton, INPUT=np.array([[values[number]]], np.int32)),
        "outputs": [triton.InferRequestedOutput("OUTPUT")],
        "request_id": f"{ident} {number}",
        "sequence_id": ident,
        "sequence_start": number == 0,
        "sequence_end": number == len(values) - 1,
    }


def _check(results: Sequence[Any]) -> None:
    """Each request was answered, those of one sequence in their order."""
    found: dict[str, list[int]] = {}
    for result in results:
        ident, _, _ = result.get_response().id.partition(" ")
        found.setdefault(ident, []).append(int(result.as_numpy("OUTPUT")[0][0]))
    assert found == {str(ident): list(values) for ident, values in _SEQUENCES.items()}


def sequence_stream_infer(url: str) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with client_of(triton, url) as client:
        client.start_stream(lambda result, error: answers.put(error or result))
        asked = [(ident, number) for ident, values in _SEQUENCES.items() for number in range(len(values))]
        for ident, number in asked:
            client.async_stream_infer(**_one(ident, number))
        _check([answers.get(timeout=PATIENCE_S) for _ in asked])
        client.stop_stream()


async def aio_sequence_stream_infer(url: str) -> None:
    async def asked() -> AsyncIterator[dict[str, Any]]:
        for ident, values in _SEQUENCES.items():
            for number in range(len(values)):
                yield _one(ident, number)

    async with tritonclient.grpc.aio.InferenceServerClient(url) as client:
        answers = [pair async for pair in client.stream_infer(asked())]
    assert [error for _, error in answers] == [None] * len(answers)
    _check([result for result, _ in answers])


def custom_args(url: str) -> None:
    options = [
        ("grpc.max_send_message_length", 2**20),
        ("grpc.max_receive_message_length", 2**20),
        ("grpc.keepalive_time_ms", 2**31 - 1),
        ("grpc.keepalive_permit_without_calls", False),
        ("grpc.dns_enable_srv_queries", 1),
    ]
    with client_of(triton, url, channel_args=options) as client:
        is_right(client.infer("simple", pair(triton), headers={"test": "1"}))


def keepalive(url: str) -> None:
    options = triton.KeepAliveOptions(keepalive_time_ms=10_000, keepalive_timeout_ms=20_000, http2_max_pings_without_data=0)
    with client_of(triton, url, keepalive_options=options) as client:
        is_right(client.infer("simple", pair(triton), headers={"test": "1"}))


def grpc_client(url: str) -> None:
    """The generated stub, without a client around it."""
    with grpc.insecure_channel(url) as channel:
        rpc = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert rpc.ServerLive(pb.ServerLiveRequest()).live and rpc.ServerReady(pb.ServerReadyRequest()).ready
        assert rpc.ModelMetadata(pb.ModelMetadataRequest(name="simple")).name == "simple"
        assert rpc.ModelConfig(pb.ModelConfigRequest(name="simple")).config.name == "simple"
        request = pb.ModelInferRequest(model_name="simple", id="my request id")
        for name, array in (("INPUT0", LEFT), ("INPUT1", RIGHT)):
            request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
            request.raw_input_contents.append(array.tobytes())
        answer = rpc.ModelInfer(request)
        found = [np.frombuffer(data, np.int32) for data in answer.raw_output_contents]
        assert answer.id == "my request id" and np.array_equal(found, [(LEFT + RIGHT)[0], (LEFT - RIGHT)[0]])


def explicit_int_content(url: str) -> None:
    _explicit(url, "simple", "INT32", np.int32)


def explicit_int8_content(url: str) -> None:
    _explicit(url, "simple_int8", "INT8", np.int8)


def _explicit(url: str, model: str, datatype: str, kind: Any) -> None:
    """Numbers as protobuf has them, not as bytes."""
    request = pb.ModelInferRequest(model_name=model)
    for name, array in (("INPUT0", LEFT), ("INPUT1", RIGHT)):
        request.inputs.add(name=name, datatype=datatype, shape=[1, 16]).contents.int_contents[:] = array[0].tolist()
    found = _raw(url, request)
    assert np.array_equal([np.frombuffer(data, kind) for data in found], [(LEFT + RIGHT)[0], (LEFT - RIGHT)[0]])


def explicit_byte_content(url: str) -> None:
    request = pb.ModelInferRequest(model_name="simple_string")
    for name, array in (("INPUT0", LEFT), ("INPUT1", RIGHT)):
        texts = [str(number).encode() for number in array[0]]
        request.inputs.add(name=name, datatype="BYTES", shape=[1, 16]).contents.bytes_contents[:] = texts
    sums: Array = triton_texts(_raw(url, request)[0])
    assert sums.astype(np.int32).tolist() == (LEFT + RIGHT)[0].tolist()


def triton_texts(data: bytes) -> Array:
    found: Array = tritonclient.utils.deserialize_bytes_tensor(data)
    return found


def _raw(url: str, request: pb.ModelInferRequest) -> Sequence[bytes]:
    with grpc.insecure_channel(url) as channel:
        answer: Sequence[bytes] = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request).raw_output_contents
        return answer

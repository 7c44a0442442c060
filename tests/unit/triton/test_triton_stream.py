"""``TritonClient.stream`` against a gRPC server on this machine that answers ModelStreamInfer as Triton does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import grpc
import grpc.aio
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from modelium.errors import DeadlineExceeded, InferenceFailed, ModelGone, TritonUnavailable
from modelium.triton.client import TritonClient
from modelium.triton.tensors import encode_bytes
from tests.patience import PATIENCE_S

Answer = Callable[[pb.ModelInferRequest, grpc.aio.ServicerContext], AsyncIterator[pb.ModelStreamInferResponse]]
INPUTS = {"text_input": np.array([b"Once"], dtype=np.object_)}


class StreamingServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers each stream with ``answer``."""

    def __init__(self) -> None:
        self.answer: Answer = told("Hello")
        self.seen: list[pb.ModelInferRequest] = []
        self.cancelled = asyncio.Event()
        self.client: TritonClient

    async def ModelStreamInfer(self, requests, context):  # type: ignore[no-untyped-def]
        async for request in requests:
            self.seen.append(request)
            try:
                async for response in self.answer(request, context):
                    yield response
            except asyncio.CancelledError:
                self.cancelled.set()
                raise


@pytest.fixture
async def triton() -> AsyncIterator[StreamingServer]:
    servicer, server = StreamingServer(), grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    servicer.client = TritonClient(http_url="127.0.0.1:1", grpc_url=f"127.0.0.1:{port}")
    yield servicer
    await servicer.client.close()
    await server.stop(grace=None)


def said(text: str, *, last: bool = False) -> pb.ModelStreamInferResponse:
    response = pb.ModelStreamInferResponse()
    response.infer_response.outputs.add(name="text_output", datatype="BYTES", shape=[1])
    response.infer_response.raw_output_contents.append(encode_bytes(np.array([text.encode()], dtype=np.object_)))
    response.infer_response.parameters["triton_final_response"].bool_param = last
    return response


def end() -> pb.ModelStreamInferResponse:
    response = pb.ModelStreamInferResponse()
    response.infer_response.parameters["triton_final_response"].bool_param = True
    return response


def failed(message: str) -> pb.ModelStreamInferResponse:
    return pb.ModelStreamInferResponse(error_message=message)


def told(*texts: str, then: tuple[pb.ModelStreamInferResponse, ...] | None = None) -> Answer:
    async def answer(request: pb.ModelInferRequest, context: object) -> AsyncIterator[pb.ModelStreamInferResponse]:
        for text in texts:
            yield said(text)
        for response in (end(),) if then is None else then:
            yield response

    return answer


async def heard(triton: StreamingServer, *, timeout_s: float = 5.0) -> list[str]:
    async with aclosing(triton.client.stream("llama", INPUTS, timeout_s=timeout_s)) as responses:
        return [outputs["text_output"].item(0).decode() async for outputs in responses]


async def test_responses_come_in_order_and_the_empty_last_one_is_only_an_end(triton: StreamingServer) -> None:
    triton.answer = told("Hel", "lo", "")
    assert await heard(triton) == ["Hel", "lo", ""]
    (request,) = triton.seen
    assert (request.model_name, request.inputs[0].name) == ("llama", "text_input")
    assert request.parameters["triton_enable_empty_final_response"].bool_param


async def test_a_last_response_may_carry_the_last_piece(triton: StreamingServer) -> None:
    triton.answer = told("Hel", then=(said("lo", last=True),))
    assert await heard(triton) == ["Hel", "lo"]


@pytest.mark.parametrize(
    ("message", "error", "shown"),
    [
        ("Request for unknown model: 'llama' is not found", ModelGone, "not found"),
        ("Model is unavailable due to unhealthy vLLM engine: the engine died", ModelGone, "unhealthy"),
        ("Error generating stream: EngineCore encountered an issue. See stack trace", ModelGone, "EngineCore"),
        ("Request was cancelled", ModelGone, "cancelled"),
        (
            "Error generating stream: The decoder prompt is longer than 8",
            InferenceFailed,
            "The decoder prompt is longer than 8",
        ),
        ("temperature must be non-negative, got -1.0.", InferenceFailed, "temperature must be non-negative, got -1.0."),
    ],
)
async def test_an_error_in_the_stream_is_told_by_its_words(
    triton: StreamingServer, message: str, error: type[Exception], shown: str
) -> None:
    triton.answer = told("Hel", then=(failed(message),))
    with pytest.raises(error, match=shown) as raised:
        await heard(triton)
    if error is InferenceFailed:
        assert str(raised.value) == shown


async def test_an_answer_that_breaks_off_is_no_answer(triton: StreamingServer) -> None:
    triton.answer = told("Hel", then=())
    with pytest.raises(ModelGone, match="broke off"):
        await heard(triton)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, TritonUnavailable),
        (grpc.StatusCode.CANCELLED, TritonUnavailable),
        (grpc.StatusCode.NOT_FOUND, ModelGone),
        (grpc.StatusCode.INTERNAL, InferenceFailed),
    ],
)
async def test_an_error_of_the_call_is_told_by_its_code(
    triton: StreamingServer, code: grpc.StatusCode, error: type[Exception]
) -> None:
    async def answer(
        request: pb.ModelInferRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        yield said("Hel")
        await context.abort(code, "so it goes")

    triton.answer = answer
    with pytest.raises(error):
        await heard(triton)


async def test_nobody_there_is_unavailable() -> None:
    client = TritonClient(http_url="127.0.0.1:1", grpc_url="127.0.0.1:1")
    with pytest.raises(TritonUnavailable):
        async for _ in client.stream("llama", INPUTS, timeout_s=PATIENCE_S):
            pass
    await client.close()


async def until_cancelled(request: object, context: object) -> AsyncIterator[pb.ModelStreamInferResponse]:
    yield said("Hel")
    await asyncio.Event().wait()


async def test_time_runs_out(triton: StreamingServer) -> None:
    triton.answer = until_cancelled
    with pytest.raises(DeadlineExceeded):
        await heard(triton, timeout_s=0.1)


async def test_closing_cancels_at_the_server(triton: StreamingServer) -> None:
    triton.answer = until_cancelled
    async with asyncio.timeout(PATIENCE_S), aclosing(triton.client.stream("llama", INPUTS)) as responses:
        await anext(responses)
        await responses.aclose()
        await triton.cancelled.wait()


async def test_cancelling_the_reader_cancels_at_the_server(triton: StreamingServer) -> None:
    triton.answer = until_cancelled
    first = asyncio.Event()

    async def read() -> None:
        async for _ in triton.client.stream("llama", INPUTS):
            first.set()

    async with asyncio.timeout(PATIENCE_S):
        reader = asyncio.create_task(read())
        await first.wait()
        reader.cancel()
        await triton.cancelled.wait()
        with pytest.raises(asyncio.CancelledError):
            await reader


async def test_a_closed_client_is_no_cancellation_of_the_reader(triton: StreamingServer) -> None:
    triton.answer = until_cancelled

    async def read() -> None:
        async for _ in triton.client.stream("llama", INPUTS):
            await triton.client.close()

    with pytest.raises(TritonUnavailable):
        await read()

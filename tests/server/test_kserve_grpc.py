"""Triton's own gRPC clients at Modelium's port: each call of the service, on models that are here, away, gone or broken."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
import tritonclient.grpc as sync
import tritonclient.grpc.aio as aio
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as shm

from tests.patience import PATIENCE_S
from tests.server.systems import System, system, write_adder, write_counter, write_unloadable

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module")
async def client(modelium: System) -> AsyncIterator[Any]:
    async with aio.InferenceServerClient(modelium.running.grpc_url) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def rpc(modelium: System) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(modelium.running.grpc_url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def one(x: float, kind: Any = sync) -> list[Any]:
    made = kind.InferInput("x", [1, 1], "FP32")
    made.set_data_from_numpy(np.array([[x]], np.float32))
    return [made]


def request(name: str, x: float, ident: str = "") -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name=name, id=ident)
    made.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    made.raw_input_contents.append(np.float32(x).tobytes())
    return made


def y_of(response: pb.ModelInferResponse) -> float:
    return float(np.frombuffer(response.raw_output_contents[0], np.float32)[0])


async def dropped(modelium: System, *names: str) -> None:
    for name in names:
        write_adder(modelium.incoming / f"{name}.onnx")
    for name in names:
        await modelium.becomes(name, "LOADED")


async def away(modelium: System, *names: str) -> None:
    await dropped(modelium, *names)
    for name in names:
        assert (await modelium.post(f"/models/{name}/unload"))[0] == 200


async def no_lease_is_left(modelium: System, name: str) -> None:
    await modelium.becomes(name, "LOADED", lambda model: model["leases"] == 0)


# -- one answer --------------------------------------------------------------------------------------------------------


async def test_a_model_that_is_away_is_loaded_and_answers(modelium: System, client: Any) -> None:
    await away(modelium, "early")
    answers = await asyncio.gather(*(client.infer("early", one(float(x))) for x in range(8)))
    assert [answer.as_numpy("y")[0][0] for answer in answers] == [x + 1.0 for x in range(8)]
    assert (await modelium.get("/models/early"))["loads"] == 2  # one when it was dropped
    text = await modelium.metrics()
    assert 'modelium_requests_total{code="200",model="early"} 8.0' in text
    await no_lease_is_left(modelium, "early")


async def test_the_answer_is_tritons_byte_for_byte(modelium: System) -> None:
    await dropped(modelium, "same")
    wrong = request("same", 1.0)
    wrong.inputs[0].name = "z"
    of_no_version = request("same", 1.0)
    of_no_version.model_version = "7"
    answers = []
    for url in (modelium.running.server.grpc_url, modelium.running.grpc_url):
        async with grpc.aio.insecure_channel(url) as channel:
            ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            seen: list[object] = [await ask(request("same", 1.0, "an id").SerializeToString())]
            for bad in (wrong, of_no_version):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ask(bad.SerializeToString())
                seen.append((caught.value.code(), caught.value.details(), caught.value.trailing_metadata()))
            answers.append(seen)
    assert answers[0] == answers[1]
    assert (await modelium.get("/models/same"))["loads"] == 1


async def test_sync_and_async_infer_of_the_plain_client(modelium: System) -> None:
    await away(modelium, "plain")

    def ask() -> list[float]:
        with sync.InferenceServerClient(modelium.running.grpc_url) as made:
            first = made.infer("plain", one(1.0), compression_algorithm="gzip").as_numpy("y")[0][0]
            answers: queue.Queue[Any] = queue.Queue()
            made.async_infer("plain", one(2.0), lambda result, error: answers.put((result, error)))
            result, error = answers.get(timeout=PATIENCE_S)
            assert error is None
            assert made.is_server_live() and made.is_server_ready() and made.is_model_ready("plain")
            assert made.get_model_metadata("plain").inputs[0].name == "x"
            assert made.get_model_config("plain").config.backend == "onnxruntime"
            assert made.get_inference_statistics("plain").model_stats[0].name == "plain"
            assert made.get_server_metadata().name == "triton"
            return [first, result.as_numpy("y")[0][0]]

    assert await asyncio.to_thread(ask) == [2.0, 3.0]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_compressed_requests(modelium: System, client: Any, algorithm: str) -> None:
    await dropped(modelium, "packed")
    assert (await client.infer("packed", one(1.0), compression_algorithm=algorithm)).as_numpy("y")[0][0] == 2.0


async def test_a_model_unloaded_behind_modeliums_back_comes_back(modelium: System, client: Any) -> None:
    await dropped(modelium, "behind")
    for version in ("", "1"):
        await modelium.running.client.unload("behind")
        assert (await client.infer("behind", one(1.0), model_version=version)).as_numpy("y")[0][0] == 2.0
    await no_lease_is_left(modelium, "behind")


async def test_names(modelium: System, client: Any) -> None:
    folder = modelium.incoming / "org" / "adder"
    folder.mkdir(parents=True)
    write_adder(folder / "model.onnx")
    seen = await modelium.until("/models/org--adder", lambda model: model.get("state") == "LOADED", "it is loaded")
    for name in (seen["label"], "org--adder"):
        answer = await client.infer(name, one(1.0))
        assert answer.as_numpy("y")[0][0] == 2.0
        assert answer.get_response().model_name == "org--adder"
        assert (await client.get_model_metadata(name)).name == "org--adder"
    with pytest.raises(InferenceServerException, match=r"NOT_FOUND.*Request for unknown model: 'adderr' is not found"):
        await client.infer("adderr", one(1.0))


async def test_a_load_that_fails(modelium: System, client: Any) -> None:
    write_unloadable(modelium.incoming / "broken.onnx")
    await modelium.becomes("broken", "FAILED")
    with pytest.raises(InferenceServerException, match=r"UNAVAILABLE.*NoSuchOperator"):
        await client.infer("broken", one(1.0))
    assert not await client.is_model_ready("broken")


async def test_bytes_that_are_no_message(modelium: System) -> None:
    async with grpc.aio.insecure_channel(modelium.running.grpc_url) as channel:
        for method in ("ModelInfer", "ModelMetadata", "RepositoryModelLoad"):
            ask = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            for data in (b"\x0a\xff", b"\x0a\x01\xff", b"\x00", b"\x0b" * 50):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ask(data)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (method, data)


async def test_a_client_that_hangs_up_gives_its_lease_back(modelium: System, rpc: Any) -> None:
    write_counter(modelium.incoming / "hung.onnx")
    await modelium.becomes("hung", "LOADED")
    long = pb.ModelInferRequest(model_name="hung")
    long.inputs.add(name="x", datatype="INT64", shape=[1])
    long.raw_input_contents.append(np.int64(100_000_000).tobytes())
    call = rpc.ModelInfer(long)
    asking = asyncio.ensure_future(call.code())
    await modelium.becomes("hung", "LOADED", lambda model: model["leases"] == 1)
    call.cancel()
    assert await asking is grpc.StatusCode.CANCELLED
    await no_lease_is_left(modelium, "hung")
    stream = rpc.ModelStreamInfer(iter([long]))
    reading = asyncio.ensure_future(stream.code())
    await modelium.becomes("hung", "LOADED", lambda model: model["leases"] == 1)
    stream.cancel()
    assert await reading is grpc.StatusCode.CANCELLED
    await no_lease_is_left(modelium, "hung")


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_a_stream_asks_several_models(modelium: System, rpc: Any) -> None:
    await dropped(modelium, "left")
    await away(modelium, "right")
    asked = [request(name, float(x), f"{name} {x}") for x in range(5) for name in ("left", "right", "nobody")]
    answers, refused = {}, {}
    async for reply in rpc.ModelStreamInfer(iter(asked)):
        response = reply.infer_response
        if reply.error_message:
            refused[response.id] = reply.error_message
        else:
            answers[response.id] = (response.model_name, y_of(response))
    assert answers == {f"{name} {x}": (name, x + 1.0) for x in range(5) for name in ("left", "right")}
    assert refused.keys() == {f"nobody {x}" for x in range(5)} and "unknown model" in refused["nobody 0"]
    for name in ("left", "right"):
        await no_lease_is_left(modelium, name)


async def test_a_stream_holds_no_lease_between_its_messages(modelium: System, rpc: Any) -> None:
    await dropped(modelium, "patient")
    stream = rpc.ModelStreamInfer()
    for _ in range(3):  # it is unloaded each time while the stream stays
        await stream.write(request("patient", 1.0))
        assert y_of((await stream.read()).infer_response) == 2.0
        assert (await modelium.post("/models/patient/unload"))[0] == 200
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_in_a_stream_too_a_model_unloaded_behind_modeliums_back_comes_back(modelium: System, rpc: Any) -> None:
    await dropped(modelium, "slipped")
    await modelium.running.client.unload("slipped")
    asked = [request("slipped", float(x)) for x in range(9)]
    seen = [y_of(reply.infer_response) async for reply in rpc.ModelStreamInfer(iter(asked))]
    assert seen == [x + 1.0 for x in range(9)]  # each once, and in their order
    await no_lease_is_left(modelium, "slipped")


async def test_stream_infer_of_the_plain_client(modelium: System) -> None:
    await away(modelium, "streamed")

    def ask() -> list[float]:
        answers: queue.Queue[Any] = queue.Queue()
        with sync.InferenceServerClient(modelium.running.grpc_url) as made:
            made.start_stream(lambda result, error: answers.put((result, error)))
            for number in range(4):
                sequence = {"sequence_id": 7, "sequence_start": number == 0, "sequence_end": number == 3}
                made.async_stream_infer("streamed", one(float(number)), **sequence)
            found = [answers.get(timeout=PATIENCE_S) for _ in range(4)]
            made.stop_stream()
        assert [error for _, error in found] == [None] * 4
        return [result.as_numpy("y")[0][0] for result, _ in found]

    assert await asyncio.to_thread(ask) == [1.0, 2.0, 3.0, 4.0]


async def test_a_stream_of_a_client_with_a_wrong_tensor_goes_on(modelium: System, rpc: Any) -> None:
    await dropped(modelium, "forgiving")
    wrong = request("forgiving", 1.0, "wrong")
    wrong.inputs[0].name = "z"
    replies = [reply async for reply in rpc.ModelStreamInfer(iter([wrong, request("forgiving", 1.0, "right")]))]
    assert [bool(reply.error_message) for reply in replies] == [True, False]
    await no_lease_is_left(modelium, "forgiving")


# -- the server --------------------------------------------------------------------------------------------------------


async def test_loading_and_unloading_is_the_controllers(modelium: System, client: Any) -> None:
    await dropped(modelium, "mine")
    await client.unload_model("mine")
    assert (await modelium.get("/models/mine"))["state"] == "UNLOADED"
    assert await client.is_model_ready("mine")  # it would answer
    index = {row.name: row for row in (await client.get_model_repository_index()).models}
    assert index["mine"].state == "UNAVAILABLE" and "UNLOADED" in index["mine"].reason
    with pytest.raises(InferenceServerException, match="would replace its entry"):
        await client.load_model("mine", config="{}")
    with pytest.raises(InferenceServerException, match="would replace its entry"):
        await client.load_model("mine", config="{}", files={"file:1/model.onnx": b"x"})
    await client.load_model("mine")
    assert (await modelium.get("/models/mine"))["state"] == "LOADED"
    index = {row.name: row for row in (await client.get_model_repository_index()).models}
    assert (index["mine"].state, index["mine"].version) == ("READY", "1")


async def test_what_is_not_for_clients_is_refused(modelium: System, client: Any) -> None:
    for call in (
        client.get_trace_settings(),
        client.update_log_settings({"log_verbose_level": 1}),
        client.get_system_shared_memory_status(),
        client.register_cuda_shared_memory("x", b"", 0, 1),
    ):
        with pytest.raises(InferenceServerException, match="PERMISSION_DENIED"):
            await call
    async with grpc.aio.insecure_channel(modelium.running.grpc_url) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/inference.GRPCInferenceService/NoSuchMethod")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


KEY = "0123456789abcdef-a-key"


async def test_keys_times_sizes_and_shared_memory(tmp_path: Path) -> None:
    """What needs settings of its own."""
    keys = tmp_path / "keys"
    keys.write_text(f"me: {KEY}\n")
    gateway = {"api_keys_file": keys, "shared_memory": True, "max_body_bytes": 100_000, "kserve_ready": "loaded"}
    async with system(tmp_path, gateway=gateway, orchestration={"load_on_discovery": False}) as modelium:
        modelium.http.headers["X-API-Key"] = KEY
        write_adder(modelium.incoming / "locked.onnx")
        await modelium.becomes("locked", "UNLOADED")
        url = modelium.running.grpc_url
        async with aio.InferenceServerClient(url) as client:
            for headers in ({}, {"authorization": "Bearer wrong-wrong-wrong-wrong"}, {"x-api-key": "no"}):
                for call in (
                    client.infer("locked", one(1.0), headers=headers),
                    client.get_model_repository_index(headers=headers),
                    client.load_model("locked", headers=headers),
                    client.get_system_shared_memory_status(headers=headers),
                ):
                    with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                        await call
            assert (await modelium.get("/models/locked"))["state"] == "UNLOADED"
            assert await client.is_server_live() and await client.is_server_ready()  # probes have no key
            headers = {"authorization": f"Bearer {KEY}"}
            assert not await client.is_model_ready("locked", headers=headers)
            with pytest.raises(InferenceServerException, match=r"DEADLINE_EXCEEDED|Deadline Exceeded"):
                await client.infer("locked", one(1.0), headers=headers, client_timeout=0.002)
            answer = await client.infer("locked", one(1.0), headers={"x-api-key": KEY})
            assert answer.as_numpy("y")[0][0] == 2.0
            assert await client.is_model_ready("locked", headers=headers)
            await _too_large(client, headers)
            await _in_shared_memory(client, headers)


async def _too_large(client: Any, headers: dict[str, str]) -> None:
    """Also one that is small on the wire."""
    large = aio.InferInput("x", [100_000, 1], "FP32")
    large.set_data_from_numpy(np.zeros((100_000, 1), np.float32))
    for algorithm in (None, "gzip"):
        with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED"):
            await client.infer("locked", [large], headers=headers, compression_algorithm=algorithm)


async def _in_shared_memory(client: Any, headers: dict[str, str]) -> None:
    region = shm.create_shared_memory_region("mine", "/modelium_test_kserve", 8)
    try:
        shm.set_shared_memory_region(region, [np.array([[41.0]], np.float32)])
        await client.register_system_shared_memory("mine", "/modelium_test_kserve", 8, headers=headers)
        (x,) = one(0.0, aio)
        x.set_shared_memory("mine", 4)
        y = aio.InferRequestedOutput("y")
        y.set_shared_memory("mine", 4, offset=4)
        await client.infer("locked", [x], outputs=[y], headers=headers)
        assert shm.get_contents_as_numpy(region, np.float32, [1, 1], offset=4)[0][0] == 42.0
        await client.unregister_system_shared_memory("mine", headers=headers)
    finally:
        shm.destroy_shared_memory_region(region)


# -- accidents ---------------------------------------------------------------------------------------------------------


def count_to(name: str, turns: int) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name=name)
    made.inputs.add(name="x", datatype="INT64", shape=[1])
    made.raw_input_contents.append(np.int64(turns).tobytes())
    return made


async def test_a_triton_that_ends_answers_what_it_had_with_an_error_and_the_next_request_waits(tmp_path: Path) -> None:
    async with system(tmp_path) as modelium, grpc.aio.insecure_channel(modelium.running.grpc_url) as channel:
        rpc = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        write_counter(modelium.incoming / "long.onnx")
        await modelium.becomes("long", "LOADED")
        quiet = rpc.ModelStreamInfer()  # of which Triton has nothing when it ends
        await quiet.write(count_to("long", 1))
        assert not (await quiet.read()).error_message
        unary = rpc.ModelInfer(count_to("long", 1_000_000_000))
        stream = rpc.ModelStreamInfer(iter([count_to("long", 1_000_000_000)]))
        ends = asyncio.gather(unary.code(), stream.code())
        await modelium.becomes("long", "LOADED", lambda model: model["leases"] == 2)
        pid = modelium.running.server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert list(await ends) == [grpc.StatusCode.UNAVAILABLE] * 2  # it may have been executed: nobody sends it again
        for answer in (await rpc.ModelInfer(count_to("long", 3)), await _next(quiet, count_to("long", 3))):
            assert np.frombuffer(answer.raw_output_contents[0], np.int64)[0] == 3
        await no_lease_is_left(modelium, "long")


async def _next(stream: Any, asked: pb.ModelInferRequest) -> pb.ModelInferResponse:
    await stream.write(asked)
    reply = await stream.read()
    assert not reply.error_message
    await stream.done_writing()
    assert await stream.code() is grpc.StatusCode.OK
    return reply.infer_response


async def test_clients_that_hang_up_at_any_moment_leave_nothing_behind(modelium: System, rpc: Any) -> None:
    await dropped(modelium, "fleeting")

    async def hang_up(number: int) -> None:
        asked = [request("fleeting", 1.0)]
        call = rpc.ModelStreamInfer(iter(asked)) if number % 2 else rpc.ModelInfer(asked[0])
        ending = asyncio.ensure_future(call.code())
        await asyncio.sleep(0.0005 * (number % 60))
        call.cancel()
        await ending

    await asyncio.gather(*(hang_up(number) for number in range(200)))
    await no_lease_is_left(modelium, "fleeting")
    assert y_of(await rpc.ModelInfer(request("fleeting", 1.0))) == 2.0

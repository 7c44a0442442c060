"""A language model's stream through the gateway's gRPC port: decoupled answers, beside a model with one answer each."""

from __future__ import annotations

import asyncio
import json
import queue
import shutil
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype

from modelium.triton.tensors import infer_request
from tests.models.language import LLAMA, continuations
from tests.patience import PATIENCE_S
from tests.server.systems import HEAVY, system, write_adder

pytestmark = pytest.mark.server


def generation(prompt: str, tokens: int, ident: str, *, wants_final: bool) -> pb.ModelInferRequest:
    made = infer_request(LLAMA, tensors(prompt, tokens), ())
    made.id = ident
    if wants_final:
        made.parameters["triton_enable_empty_final_response"].bool_param = True
    return made


def tensors(prompt: str, tokens: int) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "text_input": np.array([prompt.encode()], np.object_),
        "stream": np.array([True]),
        "sampling_parameters": np.array([json.dumps({"max_tokens": tokens, "temperature": 0}).encode()], np.object_),
        "exclude_input_in_output": np.array([True]),
    }


async def test_two_generations_and_an_adder_on_one_stream(tmp_path: Path, language_models: Path) -> None:
    written = continuations(language_models, LLAMA)[0]
    settings = {"devices": {"host_memory": "14GiB"}, "models": {LLAMA: {"engine_args": {"dtype": "float32"}}}}
    async with system(tmp_path, orchestration={"policies": HEAVY, "load_on_discovery": False}, **settings) as modelium:
        write_adder(modelium.incoming / "adder.onnx")
        shutil.copytree(language_models / LLAMA, modelium.incoming / LLAMA)
        for name in ("adder", LLAMA):
            await modelium.becomes(name, "UNLOADED")
        adds = infer_request("adder", {"x": np.array([[41.0]], np.float32)}, ())
        asked = [
            generation(written.prompt, written.max_new_tokens, "plain", wants_final=False),
            adds,
            generation(written.prompt, written.max_new_tokens, "told", wants_final=True),
        ]
        pieces: dict[str, list[bytes]] = {"plain": [], "told": []}
        empty = {"plain": 0, "told": 0}
        last = {"plain": 0, "told": 0}
        added = []
        async with grpc.aio.insecure_channel(modelium.running.grpc_url) as channel:
            rpc = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            async for reply in rpc.ModelStreamInfer(iter(asked)):
                assert not reply.error_message
                response = reply.infer_response
                if response.id:
                    last[response.id] += response.parameters["triton_final_response"].bool_param
                if response.model_name == "adder":
                    added.append(np.frombuffer(response.raw_output_contents[0], np.float32)[0])
                elif response.outputs:
                    pieces[response.id].append(response.raw_output_contents[0][4:])
                else:
                    assert response.parameters["triton_final_response"].bool_param
                    empty[response.id] += 1
        assert added == [42.0]
        assert last["told"] == 1 and empty["plain"] == 0  # only who asked for it sees an end with nothing in it
        assert {b"".join(each).decode() for each in pieces.values()} == {written.text}
        assert min(map(len, pieces.values())) > 1
        await modelium.becomes(LLAMA, "LOADED", lambda model: model["leases"] == 0)
        assert (await modelium.post(f"/models/{LLAMA}/unload"))[0] == 200
        count = await asyncio.to_thread(repeat, modelium.running.grpc_url, written.prompt)
        assert 1 < count <= 10, "a busy engine puts two tokens into one answer"
        await modelium.becomes(LLAMA, "LOADED", lambda model: model["leases"] == 0)


def repeat(url: str, prompt: str) -> int:
    """Triton's example of a decoupled model (``simple_grpc_custom_repeat``), with one that writes ten tokens: how many answers
    the client's callback gets for one request until the last, which says so."""
    answers: queue.Queue[Any] = queue.Queue()
    inputs = []
    for name, array in tensors(prompt, 10).items():
        inputs.append(triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    with triton.InferenceServerClient(url) as client:
        client.start_stream(lambda result, error: answers.put(error or result))
        client.async_stream_infer(LLAMA, inputs, request_id="repeat", enable_empty_final_response=True)
        count = 0
        while True:
            response = answers.get(timeout=PATIENCE_S).get_response()
            assert response.id == "repeat"
            count += bool(response.outputs)
            if response.parameters["triton_final_response"].bool_param:
                break
        client.stop_stream()
    return count

"""A language model's stream through the gateway's gRPC port: decoupled answers, beside a model with one answer each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import grpc.aio
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from modelium.triton.tensors import infer_request
from tests.models.language import LLAMA, continuations
from tests.server.systems import HEAVY, system, write_adder

pytestmark = pytest.mark.server


def generation(prompt: str, tokens: int, ident: str, *, wants_final: bool) -> pb.ModelInferRequest:
    inputs = {
        "text_input": np.array([prompt.encode()], np.object_),
        "stream": np.array([True]),
        "sampling_parameters": np.array([json.dumps({"max_tokens": tokens, "temperature": 0}).encode()], np.object_),
        "exclude_input_in_output": np.array([True]),
    }
    made = infer_request(LLAMA, inputs, ())
    made.id = ident
    if wants_final:
        made.parameters["triton_enable_empty_final_response"].bool_param = True
    return made


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

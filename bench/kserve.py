"""Requests of KServe's v2 protocol for benches: a kind enters, its bytes leave; and a closed loop that sends them."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import sys
import time
from pathlib import Path

import grpc
import grpc.aio
from onnx import TensorProto, helper
from served import ROOT
from tritonclient.grpc import service_pb2

sys.path.insert(0, str(ROOT))

from tests.server.systems import save_graph, write_adder

_JSON = b'{"inputs":[{"name":"x","shape":[4,1],"datatype":"FP32","data":[1,2,3,4]}]}'
_TEXT = "a text of some length, so that the model has something to do"
PIXELS = 150_000
_TICKS = os.sysconf("SC_CLK_TCK")


def binary(shape: tuple[int, int]) -> tuple[bytes, int]:
    """Floats as Triton's clients send them, and the length of the JSON in front."""
    size = 4 * math.prod(shape)
    floats = {"name": "x", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": size}}
    asked = {"inputs": [floats], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    head = json.dumps(asked).encode()
    return head + bytes(size), len(head)


def request_of(kind: str) -> bytes:
    """The whole request, head and body."""
    match kind:
        case "JSON":
            return posted("/v2/models/adder/infer", _JSON)
        case "binary":
            return posted("/v2/models/adder/infer", *binary((4, 1)))
        case "600 kB":
            return posted("/v2/models/picture/infer", *binary((1, PIXELS)))
        case "MiniLM":
            text = {"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": [_TEXT]}
            return posted("/v2/models/minilm/infer", json.dumps({"inputs": [text]}).encode())
        case "MiniLM, /predict":
            return posted("/predict/minilm", json.dumps({"inputs": _TEXT}).encode())
    raise ValueError(kind)


def posted(path: str, body: bytes, of_json: int = 0) -> bytes:
    """``of_json``: the length of the JSON in front of tensors, 0 where all is JSON."""
    more = "Content-Type: application/json\r\n"
    if of_json:
        more = f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {of_json}\r\n"
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> None:
    """One request and its answer."""
    writer.write(sent)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"a request was refused: {head!r} {await reader.read(300)!r}")
    await reader.readexactly(int(head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]))


async def closed_loop(port: int, sent: bytes, connections: int, seconds: float) -> list[float]:
    """The time of each request; a connection sends the next one when it has its answer."""
    times: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            await exchange(reader, writer, sent)
            times.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    return times


async def closed_loop_of_grpc(port: int, connections: int, seconds: float) -> list[float]:
    """The same over gRPC: 4 floats, over as many channels."""
    message = service_pb2.ModelInferRequest(model_name="adder", raw_input_contents=[bytes(16)])
    message.inputs.add(name="x", datatype="FP32", shape=[4, 1])
    sent, times = message.SerializeToString(), list[float]()

    async def client(_number: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # else all channels share a connection
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            await ask(sent)
            end = time.perf_counter() + seconds
            while (began := time.perf_counter()) < end:
                await ask(sent)
                times.append(time.perf_counter() - began)

    await asyncio.gather(*map(client, range(connections)))
    return times


async def open_loop(port: int, sent: bytes, per_s: float, seconds: float, connections: int = 64) -> list[float]:
    """The time of each request from when it was due: they come at random moments, whatever became of those before."""
    idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(connections):
        idle.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    times: list[float] = []

    async def one(due: float) -> None:
        connection = await idle.get()
        await exchange(*connection, sent)
        idle.put_nowait(connection)
        times.append(time.perf_counter() - due)

    due, chance = time.perf_counter(), random.Random(7)
    end = due + seconds
    async with asyncio.TaskGroup() as group:
        while (due := due + chance.expovariate(per_s)) < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(due))
    while not idle.empty():
        idle.get_nowait()[1].close()
    return times


def cpu_s(pid: int) -> float:
    """What a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def fill(incoming: Path) -> None:
    """Drop the adder, and a model that takes 600 kB: it answers with their mean."""
    write_adder(incoming / "adder.onnx")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", PIXELS])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])
    mean = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=1)
    save_graph(helper.make_graph([mean], "picture", [x], [y]), incoming / "picture.onnx")

"""Requests of KServe's v2 protocol for benches: a kind enters, its bytes leave; and a closed loop that sends them."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import time
from pathlib import Path

from onnx import TensorProto, helper
from served import ROOT

sys.path.insert(0, str(ROOT))

from tests.server.systems import save_graph, write_adder

_JSON = b'{"inputs":[{"name":"x","shape":[4,1],"datatype":"FP32","data":[1,2,3,4]}]}'
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
    body, more = _JSON, "Content-Type: application/json\r\n"
    model = "picture" if kind == "600 kB" else "adder"
    if kind != "JSON":
        body, size = binary((4, 1) if kind == "binary" else (1, PIXELS))
        more = f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {size}\r\n"
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


async def closed_loop(port: int, sent: bytes, connections: int, seconds: float) -> list[float]:
    """The time of each request."""
    times: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            writer.write(sent)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"a request was refused: {head!r} {await reader.read(300)!r}")
            await reader.readexactly(int(head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]))
            times.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
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

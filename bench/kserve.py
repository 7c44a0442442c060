"""KServe's v2 protocol through the gateway beside Triton direct, in turns: requests a second at 16 connections, the median time
at one, and the gateway's own CPU time a request. Closed loop over plain sockets, an adder of 4 floats.

    python bench/kserve.py [seconds a turn] [turns]
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path

import uvloop
from onnx import TensorProto, helper
from served import ROOT, serve

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


async def measure(gateway: int, triton: int, pid: int, seconds: float, turns: int) -> None:
    """Print one line a payload."""
    for kind in ("JSON", "binary"):
        sent = request_of(kind)
        rates: dict[int, list[float]] = {gateway: [], triton: []}
        medians: dict[int, list[float]] = {gateway: [], triton: []}
        costs = []
        for _ in range(turns):
            for port in (triton, gateway):
                began = cpu_s(pid)
                done = await closed_loop(port, sent, 16, seconds)
                rates[port].append(len(done) / seconds)
                if port == gateway:
                    costs.append((cpu_s(pid) - began) / len(done))
                medians[port].append(statistics.median(await closed_loop(port, sent, 1, seconds)))
        ratios = [through / direct for through, direct in zip(rates[gateway], rates[triton], strict=True)]
        more = [through - direct for through, direct in zip(medians[gateway], medians[triton], strict=True)]
        print(
            f"{kind}: direct {statistics.median(rates[triton]):.0f}/s, through {statistics.median(rates[gateway]):.0f}/s, "
            f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}); p50 at 1 direct "
            f"{1000 * statistics.median(medians[triton]):.2f} ms, +{1000 * statistics.median(more):.2f} ms; "
            f"gateway's CPU {1e6 * statistics.median(costs):.0f} µs a request"
        )


def fill(incoming: Path) -> None:
    """Drop the adder, and a model that takes 600 kB: it answers with their mean."""
    write_adder(incoming / "adder.onnx")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", PIXELS])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])
    mean = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=1)
    save_graph(helper.make_graph([mean], "picture", [x], [y]), incoming / "picture.onnx")


def main() -> None:
    seconds, turns = float((sys.argv[1:] or ["3"])[0]), int((sys.argv[2:] or ["3"])[0])
    with serve({}, prepare=fill) as served:
        served.wait("adder is LOADED", lambda: served.are_loaded(["adder"]), within_s=120)
        triton = int(served.http_url.rpartition(":")[2])
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure(served.port, triton, served.pid, seconds, turns))


if __name__ == "__main__":
    main()

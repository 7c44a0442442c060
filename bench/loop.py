"""What Modelium adds to Triton's own load time (figures for: ≤ 0.5 s after a copy, ≤ 50 ms for a request to an unloaded model).

1. A folder is copied whole; from the end of the copy to the first answer of ``/predict``, less Triton's load.
2. The model is unloaded; from the request to its answer, less Triton's load. The model's first inference after a load is slower
   than the later ones and is part of both figures; it is measured on its own, through Triton's port, to see how large a part.

Triton's load is what Modelium reports as ``load_seconds``: the duration of the one gRPC call. As a check on that, the same
entry is also loaded by a second Triton that serves the same repository without a Modelium (the port of the first one takes
no orders from strangers), and both medians are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import statistics
import time
from collections.abc import Iterator

import numpy as np
import tritonclient.grpc as grpcclient
from served import ROOT, Answer, Served, minilm, serve

from modelium.config import TritonSettings
from modelium.triton.embedded import EmbeddedServer

_QUESTION = {"inputs": "how long does it take?"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    source = minilm()
    dropped, returned, direct = [], [], []
    # Twice the threshold never comes: only our own unloads unload.
    settings = {"orchestration": {"policies": {"evict_after_idle_seconds": 3600}}}
    with serve(settings) as served, alone(served) as triton:
        for run in range(runs):
            name = f"minilm-{run}"
            shutil.copytree(source, served.incoming / name)
            copied = time.perf_counter()
            answer = until_answered(served, name)
            dropped.append((answer.at - copied, triton_load_s(served, name)))
            returned.append(come_back(served, name))
            direct.append(direct_s(triton, name))
    print(f"copy finished → answers     {summary(dropped)}")
    print(f"request to unloaded model   {summary(returned)}")
    load, first = (statistics.median(column) for column in zip(*direct, strict=True))
    print(f"a Triton without Modelium: load {load:.2f} s, first inference {first * 1e3:.0f} ms (medians)")


@contextlib.contextmanager
def alone(served: Served) -> Iterator[EmbeddedServer]:
    """A second Triton over the same repository."""
    server = EmbeddedServer(
        TritonSettings(
            http_url="127.0.0.1:0",
            grpc_url="127.0.0.1:0",
            metrics_url="127.0.0.1:0",
            model_repository=served.directory / "repository",
            state_directory=served.directory / "alone",
            runtime_directory=ROOT / ".runtime",
        )
    )
    with asyncio.Runner() as runner:
        runner.run(server.start())
        try:
            yield server
        finally:
            runner.run(server.stop())


def until_answered(served: Served, name: str) -> Answer:
    """Ask until the model is known; then one request waits for the load and is answered."""
    while True:
        answer = served.ask("POST", f"/predict/{name}", _QUESTION)
        if answer.status == 200:
            return answer
        if answer.status != 404 and answer.body.get("type") != "not_servable":
            raise SystemExit(f"{name}: {answer.status} {answer.body}")
        time.sleep(0.005)


def come_back(served: Served, name: str) -> tuple[float, float]:
    """Unload, ask once: (the request's seconds, Triton's load)."""
    unloaded = served.ask("POST", f"/models/{name}/unload")
    if unloaded.status != 200:
        raise SystemExit(f"unload of {name}: {unloaded.status} {unloaded.body}")
    began = time.perf_counter()
    answer = served.ask("POST", f"/predict/{name}", _QUESTION)
    if answer.status != 200:
        raise SystemExit(f"{name}: {answer.status} {answer.body}")
    result = answer.at - began, triton_load_s(served, name)
    served.ask("POST", f"/models/{name}/unload")  # the next run has the machine to itself
    return result


def triton_load_s(served: Served, name: str) -> float:
    return float(served.model(name)["load_seconds"])


def direct_s(server: EmbeddedServer, name: str) -> tuple[float, float]:
    """Load, ask once and unload through Triton's own gRPC port: seconds of the load and of the first inference."""
    with grpcclient.InferenceServerClient(server.grpc_url) as triton:
        headers = dict(server.headers)
        began = time.perf_counter()
        triton.load_model(name, headers=headers)
        loaded = time.perf_counter()
        text = grpcclient.InferInput("TEXT", [1, 1], "BYTES")
        text.set_data_from_numpy(np.array([[_QUESTION["inputs"].encode()]], dtype=object))
        triton.infer(name, [text])
        answered = time.perf_counter()
        triton.unload_model(name, headers=headers)
    return loaded - began, answered - loaded


def summary(measured: list[tuple[float, float]]) -> str:
    over = sorted(total - load for total, load in measured)
    loads = [load for _, load in measured]
    spread = f"(min {over[0] * 1e3:.0f}, max {over[-1] * 1e3:.0f}, {len(over)} runs)"
    load = f"Triton's load: median {statistics.median(loads):.2f} s"
    return f"over Triton's load: median {statistics.median(over) * 1e3:.0f} ms {spread}; {load}"


if __name__ == "__main__":
    main()

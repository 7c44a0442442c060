"""Triton's own clients, and one without a library."""

from __future__ import annotations

import queue
import subprocess
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

from tests.clients.asked import ADDER, PATIENCE_S, At, asks

_TIMES: dict[str, Any] = {"connection_timeout": PATIENCE_S, "network_timeout": PATIENCE_S}


def _one(kind: Any) -> list[Any]:
    import numpy as np

    x = kind.InferInput("x", [1, 1], "FP32")
    x.set_data_from_numpy(np.array([[41.0]], np.float32))
    return [x]


def _y(result: Any) -> float:
    found = float(result.as_numpy("y")[0][0])
    assert found == 42.0, found
    return found


@asks(ADDER, "tritonclient.http infer")
def http_infer(at: At) -> float:
    import tritonclient.http as triton

    with triton.InferenceServerClient(at.netloc, **_TIMES) as client:
        return _y(client.infer(at.model, _one(triton)))


@asks(ADDER, "tritonclient.http async_infer")
def http_async_infer(at: At) -> float:
    import tritonclient.http as triton

    with triton.InferenceServerClient(at.netloc, **_TIMES) as client:
        return _y(client.async_infer(at.model, _one(triton)).get_result(timeout=PATIENCE_S))


@asks(ADDER, "tritonclient.http gzip both ways")
def http_packed(at: At) -> float:
    import tritonclient.http as triton

    packed = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}
    with triton.InferenceServerClient(at.netloc, **_TIMES) as client:
        return _y(client.infer(at.model, _one(triton), **packed))


@asks(ADDER, "tritonclient.http ready, metadata, infer")
def http_checks_first(at: At) -> float:
    """As clients do that look before they ask."""
    import tritonclient.http as triton

    with triton.InferenceServerClient(at.netloc, **_TIMES) as client:
        if client.is_model_ready(at.model):
            assert client.get_model_metadata(at.model)["inputs"][0]["name"] == "x"
        return _y(client.infer(at.model, _one(triton)))


@asks(ADDER, "tritonclient.http system shared memory")
def http_memory(at: At) -> float:
    import tritonclient.http as triton

    return _by_memory(at, triton, triton.InferenceServerClient(at.netloc, **_TIMES))


@asks(ADDER, "tritonclient.grpc system shared memory")
def grpc_memory(at: At) -> float:
    import tritonclient.grpc as triton

    return _by_memory(at, triton, triton.InferenceServerClient(at.grpc))


def _by_memory(at: At, triton: Any, client: Any) -> float:
    import numpy as np
    from tritonclient.utils import shared_memory

    key = f"modelium_{uuid4().hex[:12]}"
    region = shared_memory.create_shared_memory_region(key, f"/{key}", 8)
    try:
        shared_memory.set_shared_memory_region(region, [np.array([[41.0]], np.float32)])
        client.register_system_shared_memory(key, f"/{key}", 8)
        (x,), y = _one(triton), triton.InferRequestedOutput("y")
        x.set_shared_memory(key, 4)
        y.set_shared_memory(key, 4, offset=4)
        client.infer(at.model, [x], outputs=[y])
        return float(shared_memory.get_contents_as_numpy(region, np.float32, [1, 1], offset=4)[0][0])
    finally:
        client.unregister_system_shared_memory(key)
        shared_memory.destroy_shared_memory_region(region)
        client.close()


@asks(ADDER, "tritonclient.http.aio infer")
async def http_aio(at: At) -> float:
    import tritonclient.http.aio as triton

    async with triton.InferenceServerClient(at.netloc, conn_timeout=PATIENCE_S) as client:
        return _y(await client.infer(at.model, _one(triton)))


@asks(ADDER, "tritonclient.grpc infer")
def grpc_infer(at: At) -> float:
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(at.grpc) as client:
        return _y(client.infer(at.model, _one(triton), client_timeout=PATIENCE_S))


@asks(ADDER, "tritonclient.grpc async_infer")
def grpc_async_infer(at: At) -> float:
    import tritonclient.grpc as triton

    answers: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(at.grpc) as client:
        client.async_infer(at.model, _one(triton), lambda result, error: answers.put((result, error)))
        return _told(answers)


@asks(ADDER, "tritonclient.grpc gzip, sequence parameters")
def grpc_packed(at: At) -> float:
    import tritonclient.grpc as triton

    marks = {"sequence_id": 7, "sequence_start": True, "sequence_end": True, "compression_algorithm": "gzip"}
    with triton.InferenceServerClient(at.grpc) as client:
        return _y(client.infer(at.model, _one(triton), client_timeout=PATIENCE_S, **marks))


@asks(ADDER, "tritonclient.grpc stream_infer")
def grpc_stream(at: At) -> float:
    import tritonclient.grpc as triton

    answers: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(at.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer(at.model, _one(triton))
        try:
            return _told(answers)
        finally:
            client.stop_stream()


def _told(answers: queue.Queue[Any]) -> float:
    result, error = answers.get(timeout=PATIENCE_S)
    if error is not None:
        raise error
    return _y(result)


@asks(ADDER, "tritonclient.grpc.aio infer")
async def grpc_aio(at: At) -> float:
    import tritonclient.grpc.aio as triton

    async with triton.InferenceServerClient(at.grpc) as client:
        return _y(await client.infer(at.model, _one(triton), client_timeout=PATIENCE_S))


@asks(ADDER, "tritonclient.grpc.aio stream_infer")
async def grpc_aio_stream(at: At) -> float:
    import tritonclient.grpc.aio as triton

    async def asked() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": at.model, "inputs": _one(triton)}

    async with triton.InferenceServerClient(at.grpc) as client:
        async for result, error in client.stream_infer(asked()):
            if error is not None:
                raise error
            return _y(result)
    raise AssertionError("the stream ended without an answer")


@asks(ADDER, "curl /v2/…/infer")
def curl(at: At) -> str:
    body = '{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[41]}]}'
    return run_curl(f"{at.http}/v2/models/{at.model}/infer", "-d", body)


def run_curl(url: str, *more: str) -> str:
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", str(PATIENCE_S), url, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{done.stdout} {done.stderr}")
    return done.stdout

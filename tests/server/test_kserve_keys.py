"""Triton's protocol where keys are needed, over HTTP and gRPC: who has none, who has too many waiting, and what nobody may do;
and a Triton that ends in the middle of an inference over HTTP.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import pytest_asyncio
import tritonclient.grpc.aio as by_grpc
import tritonclient.http.aio as by_http
from tritonclient.utils import InferenceServerException

from tests.patience import PATIENCE_S
from tests.server.systems import System, system, write_adder, write_counter

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

ANA, BATCH = "0123456789-the-key-of-ana", "0123456789-the-key-of-batch"


def bearer() -> dict[str, str]:
    """Made for each call: the HTTP client writes headers of its own into what it is given."""
    return {"authorization": f"Bearer {ANA}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modelium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """``holder`` is pinned, and ``waiter`` does not fit beside it. Of each key, two may wait."""
    directory = tmp_path_factory.mktemp("keys")
    (directory / "keys").write_text(f"ana: {ANA}\nbatch: {BATCH}\n", encoding="utf-8")
    gateway = {"api_keys_file": directory / "keys", "max_waiting_per_key": 2}
    models = {"holder": {"memory": "3GiB", "pin": True}, "waiter": {"memory": "3GiB"}}
    async with system(directory, gateway=gateway, models=models, orchestration={"load_on_discovery": False}) as running:
        running.http.headers["X-API-Key"] = BATCH
        for name in ("holder", "waiter", "adder"):
            write_adder(running.incoming / f"{name}.onnx")
        write_counter(running.incoming / "counter.onnx")
        for name in ("adder", "counter"):
            await running.becomes(name, "UNLOADED")
        await running.becomes("holder", "LOADED")
        await running.becomes("waiter", "UNLOADED")
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def clients(modelium: System) -> AsyncIterator[dict[str, Any]]:
    """Of both protocols."""
    http = by_http.InferenceServerClient(urlsplit(modelium.running.gateway_url).netloc, conn_timeout=PATIENCE_S)
    async with http, by_grpc.InferenceServerClient(modelium.running.grpc_url) as grpc:
        yield {"http": http, "grpc": grpc}


def one(protocol: str) -> list[Any]:
    x = (by_http if protocol == "http" else by_grpc).InferInput("x", [1, 1], "FP32")
    x.set_data_from_numpy(np.ones((1, 1), np.float32))
    return [x]


def counted(turns: int) -> list[Any]:
    x = by_http.InferInput("x", [1], "INT64")
    x.set_data_from_numpy(np.array([turns], np.int64))
    return [x]


@pytest.mark.parametrize(("protocol", "said"), [("http", "401"), ("grpc", "UNAUTHENTICATED")])
async def test_who_has_no_key_gets_nothing_and_loads_nothing(
    modelium: System, clients: dict[str, Any], protocol: str, said: str
) -> None:
    client = clients[protocol]
    for sent in ({}, {"authorization": "Bearer not-a-key-of-anybody"}, {"x-api-key": "not-a-key-of-anybody"}):
        for ask in (
            client.infer("adder", one(protocol), headers=dict(sent)),
            client.get_model_metadata("adder", headers=dict(sent)),
            client.load_model("adder", headers=dict(sent)),
            client.get_model_repository_index(headers=dict(sent)),
        ):
            with pytest.raises(InferenceServerException, match=said):
                await ask
    assert await client.is_server_live() and await client.is_server_ready()
    assert (await modelium.get("/models/adder"))["state"] == "UNLOADED"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_who_has_one_is_answered(modelium: System, clients: dict[str, Any], protocol: str) -> None:
    for headers in (bearer(), {"x-api-key": ANA}):
        answer = await clients[protocol].infer("adder", one(protocol), headers=headers)
        assert answer.as_numpy("y").tolist() == [[2.0]]
    assert (await modelium.post("/models/adder/unload"))[0] == 200


@pytest.mark.parametrize(("protocol", "said"), [("http", "403"), ("grpc", "PERMISSION_DENIED")])
async def test_what_is_not_for_clients_stays_refused_with_a_key(clients: dict[str, Any], protocol: str, said: str) -> None:
    client = clients[protocol]
    for ask in (
        client.get_trace_settings(headers=bearer()),
        client.update_log_settings({"log_verbose_level": 1}, headers=bearer()),
        client.get_system_shared_memory_status(headers=bearer()),
        client.register_system_shared_memory("x", "/x", 1, headers=bearer()),
        client.get_cuda_shared_memory_status(headers=bearer()),
    ):
        with pytest.raises(InferenceServerException, match=said):
            await ask


async def test_one_key_cannot_fill_the_queue_for_another_in_either_protocol(modelium: System, clients: dict[str, Any]) -> None:
    async def waits(protocol: str, headers: dict[str, str], count: int) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(clients[protocol].infer("waiter", one(protocol), headers=headers))
        await modelium.until("/models/waiter", lambda model: model["waiting"] == count, f"{count} wait")
        return task

    waiting = [await waits("http", bearer(), 1), await waits("grpc", bearer(), 2)]
    for protocol, said in (("http", "429"), ("grpc", "RESOURCE_EXHAUSTED")):
        with pytest.raises(InferenceServerException, match="max_waiting_per_key = 2") as refused:
            await clients[protocol].infer("waiter", one(protocol), headers=bearer())
        assert said in str(refused.value)
    waiting += [await waits(protocol, {"x-api-key": BATCH}, count) for count, protocol in enumerate(("http", "grpc"), start=3)]
    for task in waiting:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await modelium.until("/models/waiter", lambda model: not model["waiting"], "nobody waits")


async def test_a_triton_that_ends_in_the_middle_is_an_error_and_the_next_request_waits_for_it(
    modelium: System, clients: dict[str, Any]
) -> None:
    """The last test: it ends the server. What may have been executed is not sent again; what comes meanwhile is."""
    client = clients["http"]
    assert (await client.infer("counter", counted(3), headers=bearer())).as_numpy("y").tolist() == [3]
    long = asyncio.ensure_future(client.infer("counter", counted(1_000_000_000), headers=bearer()))
    await modelium.becomes("counter", "LOADED", lambda model: model["leases"] == 1)
    pid = modelium.running.server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(InferenceServerException, match="503"):
        await long
    assert (await client.infer("counter", counted(3), headers=bearer())).as_numpy("y").tolist() == [3]
    assert (await client.get_model_metadata("counter", headers=bearer()))["name"] == "counter"
    await modelium.becomes("counter", "LOADED", lambda model: model["leases"] == 0)

"""Who waits with a real Triton, and what for: a load that has no room, a place at a busy model, and to be told of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import tritonclient.grpc.aio as triton

from tests.patience import PATIENCE_S
from tests.server.systems import System, system, write_adder, write_counter

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

LONG_TURNS = 3_000_000  # of the counter, in one of its two instances: it is given up, not waited for


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modelium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """``holder`` and ``waiter`` do not fit together; ``counter`` answers one request at a time."""
    models = {
        "holder": {"memory": "3GiB"},
        "waiter": {"memory": "3GiB"},
        "counter": {"max_in_flight": 1, "instance_count": 2},
    }
    gateway, orchestration = {"max_waiting_per_model": 3}, {"load_on_discovery": False}
    directory = tmp_path_factory.mktemp("waiting")
    async with system(directory, gateway=gateway, models=models, orchestration=orchestration) as running:
        for name in ("holder", "waiter", "adder"):
            write_adder(running.incoming / f"{name}.onnx")
        write_counter(running.incoming / "counter.onnx")
        for name in ("holder", "waiter", "adder", "counter"):
            await running.becomes(name, "UNLOADED")
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(modelium: System) -> AsyncIterator[triton.InferenceServerClient]:
    async with triton.InferenceServerClient(modelium.running.grpc_url) as made:
        yield made


def asked(number: float = 1.0) -> list[Any]:
    x = triton.InferInput("x", [1, 1], "FP32")
    x.set_data_from_numpy(np.full((1, 1), number, np.float32))
    return [x]


def counted(turns: int) -> list[Any]:
    x = triton.InferInput("x", [1], "INT64")
    x.set_data_from_numpy(np.array([turns], np.int64))
    return [x]


async def waits(modelium: System, name: str, count: int) -> Any:
    return await modelium.until(f"/models/{name}", lambda model: model["waiting"] == count, f"{count} wait for {name}")


async def gone(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_beyond_max_in_flight_the_more_urgent_go_first_whatever_the_protocol(
    modelium: System, client: triton.InferenceServerClient
) -> None:
    answered: list[str] = []

    async def over_http(name: str, priority: str) -> None:
        status, _ = await modelium.post("/predict/counter", {"inputs": {"x": [1]}}, headers={"X-Priority": priority})
        assert status == 200
        answered.append(name)

    async def over_grpc(name: str, priority: str) -> None:
        await client.infer("counter", counted(1), headers={"x-priority": priority})
        answered.append(name)

    assert (await modelium.post("/predict/counter", {"inputs": {"x": [1]}}))[0] == 200
    first = asyncio.create_task(modelium.post("/predict/counter", {"inputs": {"x": [LONG_TURNS]}}))
    await modelium.until("/models/counter", lambda model: model["leases"] == 1, "the first is under way")
    tasks = []
    for number, ask in enumerate((over_http("low", "low"), over_grpc("normal", "normal"), over_grpc("high", "high")), start=1):
        tasks.append(asyncio.create_task(ask))
        seen = await waits(modelium, "counter", number)
        assert (seen["leases"], seen["state"]) == (1, "LOADED")
    await gone(first)  # its client hangs up: its place is the next one's
    await asyncio.gather(*tasks)
    assert answered == ["high", "normal", "low"]
    await modelium.until("/models/counter", lambda model: not model["leases"] and not model["waiting"], "nothing is left")


async def test_a_load_that_nobody_waits_for_any_more_does_not_begin(
    modelium: System, client: triton.InferenceServerClient
) -> None:
    assert (await modelium.post("/models/holder/pin"))[0] == 200
    await modelium.becomes("holder", "LOADED")
    by_http = [asyncio.create_task(modelium.add("waiter", 1.0)) for _ in range(2)]
    await waits(modelium, "waiter", 2)
    by_grpc = asyncio.ensure_future(client.infer("waiter", asked()))
    await waits(modelium, "waiter", 3)
    async with modelium.http.post(modelium.running.gateway_url + "/predict/waiter", json={"inputs": {"x": [[1.0]]}}) as refused:
        body = await refused.json()
        assert (refused.status, body["type"], refused.headers["Retry-After"]) == (503, "queue_full", "5")
        assert "max_waiting_per_model = 3" in body["error"]
    with pytest.raises(Exception, match="max_waiting_per_model = 3") as caught:
        await client.infer("waiter", asked())
    assert "RESOURCE_EXHAUSTED" in str(caught.value)
    text = await modelium.metrics()
    assert 'modelium_requests_waiting{model="waiter"} 3.0' in text
    await gone(*by_http, by_grpc)
    await waits(modelium, "waiter", 0)
    assert (await modelium.post("/models/holder/unpin"))[0] == 200
    assert (await modelium.add("holder", 1.0))[0] == 200, "it stays, for nobody wants its room"
    seen = await modelium.get("/models/waiter")
    assert (seen["state"], seen["loads"], seen["waiting"]) == ("UNLOADED", 0, 0)
    assert 'modelium_queue_wait_seconds_count{model="waiter"} 3.0' in await modelium.metrics()


async def test_a_load_is_followed_by_its_events(modelium: System) -> None:
    heard: list[tuple[str, str, str | None]] = []
    async with modelium.http.get(modelium.running.gateway_url + "/events?model=adder") as response:
        assert response.status == 200
        asking = asyncio.create_task(modelium.add("adder", 1.0))
        kind, last = "", ""
        async for line in response.content:
            field, _, value = line.decode().strip().partition(": ")
            if field == "event":
                kind = value
            elif field == "id":
                last = value
            elif field == "data" and kind == "state":
                data = json.loads(value)
                heard.append((data["state"], last, data.get("stage")))
                if data["state"] == "LOADED":
                    break
        assert (await asking)[0] == 200
    states = [state for state, _, _ in heard]
    assert states[0] == "UNLOADED" and "LOADING" in states and states[-1] == "LOADED"
    assert [stage for _, _, stage in heard if stage] == ["preparing", "loading"]
    changes = [ident for _, ident, _ in heard[1:]]
    assert changes == sorted(set(changes), key=lambda ident: int(ident.rpartition("-")[2]))
    again = {"Last-Event-ID": changes[0]}
    async with modelium.http.get(modelium.running.gateway_url + "/events?model=adder", headers=again) as response:
        missed = []
        async for line in response.content:
            if line.startswith(b"id: "):
                missed.append(line.decode().strip().removeprefix("id: "))
                if missed[-1] == changes[-1]:
                    break
    assert missed == changes[1:]


async def test_who_waits_until_its_deadline_is_told_so_in_each_protocol(
    modelium: System, client: triton.InferenceServerClient
) -> None:
    assert (await modelium.post("/models/holder/pin"))[0] == 200
    await modelium.becomes("holder", "LOADED")
    status, body = await modelium.add("waiter", 1.0, headers={"X-Request-Timeout": "0.3"})
    assert (status, body["type"]) == (504, "deadline_exceeded")
    with pytest.raises(Exception, match="DEADLINE_EXCEEDED"):
        await asyncio.wait_for(client.infer("waiter", asked(), client_timeout=0.3), PATIENCE_S)
    await waits(modelium, "waiter", 0)
    assert (await modelium.post("/models/holder/unpin"))[0] == 200

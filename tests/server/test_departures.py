"""The end of an unload, at the real Triton: processes end when Triton has let go of them, and not before."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator

import aiohttp
import numpy as np
import pytest
import pytest_asyncio

from modelium.controller.departures import Departures
from modelium.devices import Devices, Process
from modelium.triton.client import TritonClient
from modelium.triton.embedded import EmbeddedServer
from modelium.triton.heartbeats import Heartbeats
from tests.patience import PATIENCE_S
from tests.server.entries import write_echo
from tests.server.loading import load
from tests.server.systems import settings_in

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]


class Echo:
    """An embedded Triton with one model, loaded anew for each test."""

    def __init__(self, server: EmbeddedServer, client: TritonClient, name: str) -> None:
        self.client, self.name = client, name
        self.devices = Devices(host_memory=None, gpu_memory_fraction=0.9)
        self.departures = Departures(client=client, devices=self.devices, within_s=PATIENCE_S)
        self._server = server

    def processes(self) -> tuple[Process, ...]:
        assert self._server.pid is not None
        return self.devices.processes(self._server.pid).get(self.name, ())

    def heartbeats(self) -> Heartbeats:
        return Heartbeats.of([each.pid for each in self.processes()], self._server.pid)

    async def ask(self, value: float) -> float:
        return float((await self.client.infer(self.name, {"IN": np.array([value], np.float32)}))["OUT"][0])

    async def state(self) -> str:
        return (await self.client.index())[self.name].state

    async def queues(self, count: int) -> None:
        """Wait until so many requests wait behind the one that is computed."""
        waiting = re.compile(rf'^nv_inference_pending_request_count{{.*model="{self.name}".*}} {count}$', re.MULTILINE)
        async with asyncio.timeout(PATIENCE_S), aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"http://{self._server.metrics_url}/metrics") as response:
                    if waiting.search(await response.text()):
                        return

    async def unloaded(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.state() != "UNAVAILABLE":  # noqa: ASYNC110 — the truth lies in another process
                await asyncio.sleep(0.02)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def echoing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Echo]:
    directory = tmp_path_factory.mktemp("departures")
    server = EmbeddedServer(settings_in(directory))
    await server.start()
    client = TritonClient(http_url=server.http_url, grpc_url=server.grpc_url, log_path=server.log_path, headers=server.headers)
    yield Echo(server, client, write_echo(directory / "repository"))
    await client.close()
    await server.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def echo(echoing: Echo) -> Echo:
    await load(echoing.client, echoing.name)
    return echoing


async def test_a_request_that_is_under_way_is_answered_before_its_model_ends(echo: Echo) -> None:
    processes = echo.processes()
    with echo.heartbeats() as heartbeats:
        assert heartbeats
        heartbeats.renew()
        asked = [asyncio.create_task(echo.ask(1000.0 + part)) for part in (0.5, 0.25, 0.125)]  # seconds, one after the other
        await echo.queues(len(asked) - 1)
        await echo.client.unload(echo.name)
        assert not await echo.departures.verify(echo.name, processes, heartbeats)
    answers = [await request for request in asked]
    assert answers == [1000.5, 1000.25, 1000.125]
    assert not any(map(echo.devices.alive, processes))
    await echo.unloaded()


async def test_who_ended_before_triton_told_it_to_is_not_waited_for(echo: Echo) -> None:
    processes = echo.processes()
    with echo.heartbeats() as heartbeats:
        heartbeats.renew()
        await echo.client.unload(echo.name)
        async with asyncio.timeout(PATIENCE_S):
            while not heartbeats.let_go():  # noqa: ASYNC110 — nobody tells
                await asyncio.sleep(0.002)
        heartbeats.renew()  # as the stub may at any moment before it ends
        assert not heartbeats.let_go()
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
        heartbeats.end()
        await echo.unloaded()
        assert heartbeats.region_bytes() == 0


async def test_a_model_loads_beside_what_triton_has_let_go_of_and_not_yet_forgotten(echo: Echo) -> None:
    for _ in range(5):
        processes = echo.processes()
        with echo.heartbeats() as heartbeats:
            heartbeats.renew()
            await echo.client.unload(echo.name)
            await echo.departures.verify(echo.name, processes, heartbeats)
        await load(echo.client, echo.name)
        assert await echo.ask(1.5) == 1.5
        assert not set(processes) & set(echo.processes())


async def test_a_moment_that_was_missed_costs_time_and_nothing_else(echo: Echo) -> None:
    processes = echo.processes()
    await echo.client.unload(echo.name)
    assert not await echo.departures.verify(echo.name, processes, Heartbeats())
    assert await echo.state() == "UNAVAILABLE"

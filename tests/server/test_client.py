"""The client against the real Triton: control, statistics, inference, and what each failure becomes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from modelium.errors import DeadlineExceeded, InferenceFailed, LoadFailed, ModelGone, TritonError, TritonUnavailable
from modelium.guarded.processes import descendants
from modelium.triton.client import TritonClient
from modelium.triton.embedded import EmbeddedServer
from tests.patience import PATIENCE_S
from tests.server.entries import write_echo, write_model
from tests.server.loading import load
from tests.server.systems import settings_in

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("triton")


@pytest.fixture(scope="module")
def repository(directory: Path) -> Path:
    return directory / "repository"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(directory: Path, repository: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(settings_in(directory, model_repository=repository))
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: EmbeddedServer, repository: Path) -> AsyncIterator[TritonClient]:
    client = TritonClient(http_url=server.http_url, grpc_url=server.grpc_url, log_path=server.log_path, headers=server.headers)
    await load(client, write_echo(repository), timeout_s=240)
    yield client
    await client.close()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110 — the truth lies in another process
            await asyncio.sleep(0.02)


async def test_server_tells_that_it_lives_and_what_it_is(client: TritonClient) -> None:
    assert await client.live()
    assert await client.version() == "2.51.0"


async def test_numbers_and_words_come_back_unchanged(client: TritonClient) -> None:
    text = np.array([b"\x00raw", "größer".encode(), b""], dtype=np.object_)
    answer = await client.infer("echo", {"IN": np.array([1.5, 2.5], np.float32), "TEXT": text})
    assert answer["OUT"].tolist() == [1.5, 2.5]
    assert answer["ECHO"].tolist() == text.tolist()


async def test_only_the_outputs_asked_for_are_sent(client: TritonClient) -> None:
    assert list(await client.infer("echo", {"IN": np.zeros(1, np.float32)}, outputs=["OUT"])) == ["OUT"]


async def test_large_tensors_pass(client: TritonClient) -> None:
    big = np.arange(8_000_000, dtype=np.float32)  # 32 MB, gRPC's default limit is 4
    assert np.array_equal((await client.infer("echo", {"IN": -0.0 * big}))["OUT"], 0 * big)


async def test_exception_in_the_model_is_this_requests_own(client: TritonClient) -> None:
    with pytest.raises(InferenceFailed, match=r"^negative numbers are not for me$"):
        await client.infer("echo", {"IN": np.array([-1], np.float32)})


async def test_wrong_tensor_is_this_requests_own(client: TritonClient) -> None:
    with pytest.raises(InferenceFailed, match="IN"):
        await client.infer("echo", {"IN": np.array([1], np.int64)})


async def test_deadline_ends_the_wait(client: TritonClient) -> None:
    with pytest.raises(DeadlineExceeded):
        await client.infer("echo", {"IN": np.array([1002], np.float32)}, timeout_s=0.2)


async def test_cancelled_task_cancels_the_request_in_triton(client: TritonClient) -> None:
    long = asyncio.create_task(client.infer("echo", {"IN": np.array([11_000], np.float32)}))
    await asyncio.sleep(0)
    await client.live()  # a round trip later the request is on its way
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    async with asyncio.timeout(PATIENCE_S):  # the only instance is free again, not in three hours
        await client.infer("echo", {"IN": np.zeros(1, np.float32)})


async def test_statistics_count_every_request(client: TritonClient) -> None:
    before = (await client.statistics())["echo"]
    await client.infer("echo", {"IN": np.zeros(1, np.float32)})
    with pytest.raises(InferenceFailed):
        await client.infer("echo", {"IN": np.array([-1], np.float32)})

    async def counted() -> bool:  # Triton counts a moment after it has answered
        return (await client.statistics())["echo"].completed == before.completed + 2

    await until(counted)


async def test_configuration_is_what_triton_uses(client: TritonClient) -> None:
    config = await client.model_config("echo")
    assert config["name"] == "echo"
    assert [tensor["name"] for tensor in config["output"]] == ["OUT", "ECHO"]
    with pytest.raises(TritonError, match="nothing"):
        await client.model_config("nothing")


async def test_life_of_an_entry_in_the_index(client: TritonClient, repository: Path) -> None:
    name = write_echo(repository, "short-lived")
    assert (await client.index())[name].state == ""
    await load(client, name, timeout_s=240)
    assert (await client.index())[name].state == "READY"
    await client.unload(name)

    async def unloaded() -> bool:
        return (await client.index())[name].state == "UNAVAILABLE"

    await until(unloaded)
    assert (await client.index())[name].reason == "unloaded"
    with pytest.raises(ModelGone):
        await client.infer(name, {"IN": np.zeros(1, np.float32)})
    with pytest.raises(ModelGone):
        await client.infer("never-heard-of", {"IN": np.zeros(1, np.float32)})
    await client.unload("never-heard-of")  # Triton has nothing against that


async def test_failed_load_gives_the_cause_alone(client: TritonClient, repository: Path) -> None:
    code = "class TritonPythonModel:\n    def initialize(self, args):\n        raise RuntimeError('boom: 3 of 4; no')\n"
    with pytest.raises(LoadFailed) as caught:
        await load(client, write_model(repository, "failing", code), timeout_s=240)
    assert str(caught.value) == "RuntimeError: boom: 3 of 4; no"


async def test_unreadable_entry_gives_the_cause_from_the_log(client: TritonClient, repository: Path) -> None:
    name = write_echo(repository, "misnamed")
    config = repository / name / "config.pbtxt"
    config.write_text(config.read_text().replace('"misnamed"', '"other"'))
    with pytest.raises(LoadFailed, match=r"unexpected directory name 'misnamed' for model 'other'"):
        await load(client, name, timeout_s=240)
    with pytest.raises(LoadFailed, match="not found in any model repository"):
        await load(client, "no-such-entry", timeout_s=240)


async def test_dead_stub_means_that_the_model_is_gone(client: TritonClient, server: EmbeddedServer, repository: Path) -> None:
    assert server.pid is not None
    before = {process.pid for process in descendants(server.pid)}
    await load(client, write_echo(repository, "doomed"), timeout_s=240)
    (stub,) = {process.pid for process in descendants(server.pid)} - before
    os.kill(stub, signal.SIGKILL)
    with pytest.raises(ModelGone, match="not healthy"):
        await client.infer("doomed", {"IN": np.zeros(1, np.float32)}, timeout_s=240)


async def test_restarted_server_is_used_at_once(client: TritonClient, server: EmbeddedServer) -> None:
    """gRPC's own back-off would keep a client away for up to two minutes. The last test: it ends the server."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await server.wait()
    assert not await client.live()
    for _ in range(20):
        with pytest.raises(TritonUnavailable):
            await client.infer("echo", {"IN": np.zeros(1, np.float32)}, timeout_s=PATIENCE_S)
    with pytest.raises(TritonUnavailable):
        await client.load("echo", timeout_s=PATIENCE_S)
    await server.start()
    await until(client.live)
    await load(client, "echo", timeout_s=240)
    await client.infer("echo", {"IN": np.zeros(1, np.float32)})

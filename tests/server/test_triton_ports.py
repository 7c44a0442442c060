"""What a stranger at the embedded Triton's ports may do, and what other users of the machine, and models, see of Modelium."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import numpy as np
import pytest
import pytest_asyncio
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from modelium.errors import TritonError
from modelium.guarded.processes import descendants
from modelium.triton.client import TritonClient
from modelium.triton.embedded import EmbeddedServer
from modelium.triton.launch import GRPC_HEADER, HEADER
from tests.patience import PATIENCE_S
from tests.server.entries import write_echo
from tests.server.loading import load
from tests.server.systems import settings_in
from tests.server.test_embedded import guardian_of, memory_of, until

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

_SECRETS = {"AWS_SECRET_ACCESS_KEY": "cloud", "HF_TOKEN": "hub", "MY_DATABASE": "postgres://me:word@db/x"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedServer]:
    """One that has loaded a model, started from a shell full of secrets under a generous umask."""
    directory = tmp_path_factory.mktemp("ports")
    before, mask = dict(os.environ), os.umask(0o022)
    os.environ.update(_SECRETS, MINE="mine")
    settings = settings_in(directory, environment=["MINE"])
    server = EmbeddedServer(settings)
    await server.start()
    os.environ.clear()
    os.environ.update(before)
    os.umask(mask)
    client = TritonClient(http_url=server.http_url, grpc_url=server.grpc_url, headers=server.headers)
    await load(client, write_echo(settings.model_repository), timeout_s=240)
    await client.close()
    yield server
    await server.stop()


def directory_of(server: EmbeddedServer) -> Path:
    return server.log_path.parent.parent


async def test_over_http_a_stranger_may_ask_models_and_nothing_else(server: EmbeddedServer) -> None:
    refused = [
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/echo/load"),
        ("POST", "/v2/repository/models/echo/unload"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/x/register"),
        ("POST", "/v2/systemsharedmemory/unregister"),
        ("GET", "/v2/cudasharedmemory/status"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/trace/setting"),
        ("POST", "/v2/models/echo/trace/setting"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/logging"),
        ("GET", "/v2/models/stats"),
        ("GET", "/v2/models/echo/stats"),
    ]
    secret = server.headers[GRPC_HEADER]
    async with aiohttp.ClientSession(f"http://{server.http_url}") as http:
        for method, path in refused:
            for headers in ({}, {HEADER: "guessed"}, {HEADER: ""}, {GRPC_HEADER: secret}):
                async with http.request(method, path, data=b"{}" if method == "POST" else None, headers=headers) as response:
                    assert response.status == 403, (method, path, headers)
        async with http.post("/v2/repository/index", data=b"{}", headers={HEADER: secret}) as response:
            assert response.status == 200
        for path in ("/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/echo", "/v2/models/echo/config"):
            async with http.get(path) as response:
                assert response.status == 200, path
        question = {"inputs": [{"name": "IN", "shape": [1], "datatype": "FP32", "data": [0.0]}]}
        async with http.post("/v2/models/echo/infer", json=question) as response:
            assert response.status == 200, await response.text()
        async with http.get(f"http://{server.metrics_url}/metrics") as response:
            assert response.status == 200


async def test_over_grpc_a_stranger_may_ask_models_and_nothing_else(server: EmbeddedServer) -> None:
    async with grpc.aio.insecure_channel(server.grpc_url) as channel:
        rpc = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        refused = [
            (rpc.RepositoryIndex, pb.RepositoryIndexRequest()),
            (rpc.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name="echo")),
            (rpc.RepositoryModelUnload, pb.RepositoryModelUnloadRequest(model_name="echo")),
            (rpc.SystemSharedMemoryStatus, pb.SystemSharedMemoryStatusRequest()),
            (rpc.SystemSharedMemoryRegister, pb.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=1)),
            (rpc.CudaSharedMemoryStatus, pb.CudaSharedMemoryStatusRequest()),
            (rpc.TraceSetting, pb.TraceSettingRequest()),
            (rpc.LogSettings, pb.LogSettingsRequest()),
            (rpc.ModelStatistics, pb.ModelStatisticsRequest()),
        ]
        for call, request in refused:
            for metadata in ((), ((GRPC_HEADER, "guessed"),)):
                with pytest.raises(grpc.aio.AioRpcError, match="restricted"):
                    await call(request, metadata=metadata, timeout=PATIENCE_S)
    stranger = TritonClient(http_url=server.http_url, grpc_url=server.grpc_url)
    assert await stranger.live() and await stranger.version()
    assert await stranger.infer("echo", {"IN": np.array([0], np.float32)}, timeout_s=PATIENCE_S)
    with pytest.raises(TritonError, match=r"restricted.*triton\.headers"):
        await stranger.index()
    await stranger.close()


async def test_the_secret_stands_nowhere_where_another_user_can_read_it(server: EmbeddedServer) -> None:
    secret = server.headers[GRPC_HEADER]
    assert server.pid is not None
    tree = descendants(guardian_of(directory_of(server)))
    assert len(tree) >= 2
    for process in tree:
        assert secret.encode() not in command_line_of(process.pid)
    assert b"modelium=hidden" in command_line_of(server.pid), "ps still shows what is restricted"
    assert secret not in server.log_path.read_text(encoding="utf-8")


async def test_a_model_inherits_no_secret_and_what_the_user_chose(server: EmbeddedServer) -> None:
    assert server.pid is not None
    (stub,) = descendants(server.pid)
    seen = environment_of(stub.pid)
    for name, value in _SECRETS.items():
        assert name.encode() not in seen and value.encode() not in seen, name
    assert server.headers[GRPC_HEADER].encode() not in seen
    assert b"\0MINE=mine\0" in b"\0" + seen + b"\0"


async def test_what_modelium_keeps_and_what_models_share_is_this_users_alone(server: EmbeddedServer) -> None:
    directory = directory_of(server)
    assert stat.S_IMODE((directory / "state").stat().st_mode) == 0o700
    memory = memory_of(directory)
    assert memory
    files = (*memory, server.log_path, directory / "state" / "server.json")
    await until(lambda: not any(map(open_to_others, files)))  # the guardian follows Triton, which sets 0644


def open_to_others(path: Path) -> bool:
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def command_line_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_a_state_directory_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    server = EmbeddedServer(settings_in(tmp_path))
    await server.start()
    try:
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    finally:
        await asyncio.shield(server.stop())

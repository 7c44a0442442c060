"""The embedded server on this machine: it starts, says why when it can't, and leaves nothing behind — whoever is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from modelium.errors import LoadFailed, ModelGone, RuntimeMissing, TritonError, TritonUnavailable
from modelium.guarded.processes import ProcessRow, descendants, read_process, same
from modelium.guarded.supervisor import Supervisor
from modelium.triton.client import TritonClient
from modelium.triton.embedded import EmbeddedServer
from tests.patience import PATIENCE_S
from tests.server.entries import write_echo, write_family
from tests.server.loading import load
from tests.server.systems import settings_in

pytestmark = pytest.mark.server

ROOT = Path(__file__).parent.parent.parent
SHM = Path("/dev/shm")


@dataclass
class Family:
    """Everything that a run has made, so that its end can be waited for."""

    processes: list[ProcessRow] = field(default_factory=list)
    memory: list[Path] = field(default_factory=list)

    def left(self) -> list[object]:
        return [*(process for process in self.processes if same(process)), *(path for path in self.memory if path.exists())]

    async def is_gone(self) -> None:
        await until(lambda: not self.left(), self.left)


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """How to reach a server that another process has started."""

    http_url: str
    grpc_url: str
    headers: Mapping[str, str]


Address = Elsewhere | EmbeddedServer


async def until(holds: Callable[[], bool], what: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"still not so: {what()}"
        await asyncio.sleep(0.02)


async def load_family(directory: Path, address: Address, guardian: int) -> Family:
    """Load a model with a child that outlives it, and note every process and every shared-memory file."""
    family_file = directory / "family.json"
    name = write_family(directory / "repository", family_file)
    client = TritonClient(http_url=address.http_url, grpc_url=address.grpc_url, headers=address.headers)
    await load(client, name, timeout_s=240)
    await client.close()
    await until(family_file.exists)
    child = json.loads(family_file.read_text())
    me = read_process(guardian)
    assert me is not None
    family = Family(processes=[me, *descendants(guardian)])
    assert child["pid"] in {process.pid for process in family.processes}
    family.memory = [SHM / child["memory"], *memory_of(directory)]
    assert len(family.memory) > 1
    assert len(family.left()) == len(family.processes) + len(family.memory)
    return family


def memory_of(directory: Path) -> list[Path]:
    prefix = json.loads((directory / "state" / "server.json").read_text())["shm_prefix"]
    return [path for path in SHM.iterdir() if path.name.startswith(prefix)]


def guardian_of(directory: Path) -> int:
    return int(json.loads((directory / "state" / "server.json").read_text())["guardian"])


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(settings_in(tmp_path))
    await server.start()
    yield server
    await server.stop()


async def test_stop_ends_every_process_and_all_shared_memory(tmp_path: Path, server: EmbeddedServer) -> None:
    family = await load_family(tmp_path, server, guardian_of(tmp_path))
    assert server.pid in {process.pid for process in family.processes}
    assert "python" in server.backends

    await server.stop()

    assert family.left() == []
    assert (await server.wait()).intended
    assert not (tmp_path / "state" / "server.json").exists()


async def test_a_stopped_server_starts_again_at_the_same_addresses(server: EmbeddedServer) -> None:
    before = (server.http_url, server.grpc_url, server.metrics_url)
    await server.stop()
    await server.start()
    assert (server.http_url, server.grpc_url, server.metrics_url) == before
    assert server.log_path.with_name("tritonserver.log.1").exists()


async def test_killed_tritonserver_takes_everything_with_it(tmp_path: Path, server: EmbeddedServer) -> None:
    family = await load_family(tmp_path, server, guardian_of(tmp_path))
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)

    async with asyncio.timeout(PATIENCE_S):
        end = await server.wait()

    assert end.code == -signal.SIGKILL and not end.intended
    assert "SIGKILL" in str(end)
    assert family.left() == []


_MODELIUM = """
import asyncio, json, sys
from modelium.triton.embedded import EmbeddedServer
from modelium.config import TritonSettings

async def serve():
    server = EmbeddedServer(TritonSettings.model_validate_json(sys.argv[1]))
    await server.start()
    print(json.dumps([server.http_url, server.grpc_url, server.headers]), flush=True)
    await server.wait()

asyncio.run(serve())
"""


async def start_in_another_process(directory: Path) -> tuple[asyncio.subprocess.Process, Elsewhere]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _MODELIUM, settings_in(directory).model_dump_json()),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    http_url, grpc_url, headers = json.loads(await process.stdout.readline())
    return process, Elsewhere(http_url=http_url, grpc_url=grpc_url, headers=headers)


async def test_killed_modelium_leaves_nothing(tmp_path: Path) -> None:
    modelium, address = await start_in_another_process(tmp_path)
    family = await load_family(tmp_path, address, guardian_of(tmp_path))

    modelium.kill()
    await modelium.wait()

    await family.is_gone()


async def test_killed_guardian_is_noticed_and_cleaned_up_after(tmp_path: Path, server: EmbeddedServer) -> None:
    guardian = guardian_of(tmp_path)
    family = await load_family(tmp_path, server, guardian)
    os.kill(guardian, signal.SIGKILL)

    async with asyncio.timeout(PATIENCE_S):
        end = await server.wait()

    assert end.code is None
    assert family.left() == []


async def test_next_start_ends_what_a_killed_modelium_and_guardian_left(tmp_path: Path) -> None:
    modelium, address = await start_in_another_process(tmp_path)
    guardian = guardian_of(tmp_path)
    family = await load_family(tmp_path, address, guardian)
    os.kill(guardian, signal.SIGKILL)
    modelium.kill()
    await modelium.wait()
    assert family.left() != []

    server = EmbeddedServer(settings_in(tmp_path))
    await server.start()
    try:
        assert family.left() == []
    finally:
        await server.stop()


async def test_child_of_a_killed_stub_is_ended_while_the_server_goes_on(tmp_path: Path, server: EmbeddedServer) -> None:
    """vLLM's EngineCore lives on when its stub is killed, with all of its GPU memory."""
    await load_family(tmp_path, server, guardian_of(tmp_path))
    child = json.loads((tmp_path / "family.json").read_text())
    orphan = read_process(child["pid"])
    assert orphan is not None
    os.kill(orphan.parent, signal.SIGKILL)

    await Family(processes=[orphan], memory=[SHM / child["memory"]]).is_gone()

    assert server.pid is not None and read_process(server.pid) is not None


async def test_two_servers_do_not_touch_each_other(tmp_path: Path, server: EmbeddedServer) -> None:
    other_directory = tmp_path / "other"
    other = EmbeddedServer(settings_in(other_directory))
    await other.start()
    family = await load_family(tmp_path, server, guardian_of(tmp_path))
    other_family = await load_family(other_directory, other, guardian_of(other_directory))

    await other.stop()

    assert other_family.left() == []
    assert len(family.left()) == len(family.processes) + len(family.memory)


async def test_stop_does_not_wait_for_a_stub_that_hangs(tmp_path: Path, server: EmbeddedServer) -> None:
    family = await load_family(tmp_path, server, guardian_of(tmp_path))
    client = TritonClient(http_url=server.http_url, grpc_url=server.grpc_url, headers=server.headers)
    await load(client, write_echo(tmp_path / "repository"), timeout_s=240)
    hanging = asyncio.create_task(client.infer("echo", {"IN": np.array([1_000_000], np.float32)}))
    assert server.pid is not None
    await until(lambda: len(list(descendants(server.pid or 0))) >= 3)
    for stub in descendants(server.pid):
        os.kill(stub.pid, signal.SIGSTOP)

    async with asyncio.timeout(PATIENCE_S):  # the stub itself would never end
        await server.stop()

    assert family.left() == []
    with pytest.raises((TritonUnavailable, ModelGone)):
        await hanging
    await client.close()


async def test_taken_port_is_named_with_its_owner_and_its_key(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = EmbeddedServer(settings_in(tmp_path, grpc_url=f"127.0.0.1:{port}"))
        with pytest.raises(TritonError) as caught:
            await server.start()
    assert f"port {port}" in str(caught.value)
    assert f"process {os.getpid()}" in str(caught.value)
    assert "`triton.grpc_url`" in str(caught.value)
    await server.start()  # the port is free now: nothing was left over from the failed start
    await server.stop()


async def test_second_server_with_one_state_directory_is_refused(tmp_path: Path, server: EmbeddedServer) -> None:
    with pytest.raises(TritonError, match=rf"process {os.getpid()}.*state_directory"):
        await EmbeddedServer(settings_in(tmp_path)).start()
    assert server.pid is not None and read_process(server.pid) is not None


async def test_missing_runtime_names_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(RuntimeMissing, match=r"modelium runtime install.*triton\.mode: external"):
        await EmbeddedServer(settings_in(tmp_path, runtime_directory=tmp_path / "nothing")).start()


async def test_load_error_carries_the_cause_that_only_the_log_has(tmp_path: Path, server: EmbeddedServer) -> None:
    write_echo(tmp_path / "repository", "broken")
    (tmp_path / "repository" / "broken" / "config.pbtxt").write_text('name: "broken"\nbakend: "python"\n')
    client = TritonClient(http_url=server.http_url, grpc_url=server.grpc_url, log_path=server.log_path, headers=server.headers)
    with pytest.raises(LoadFailed, match="text proto"):
        await load(client, "broken", timeout_s=240)
    await client.close()


async def test_supervisor_brings_a_killed_server_back(tmp_path: Path) -> None:
    server = EmbeddedServer(settings_in(tmp_path))
    ups: asyncio.Queue[None] = asyncio.Queue()
    downs: asyncio.Queue[str] = asyncio.Queue()
    supervisor = Supervisor(server, on_up=lambda: ups.put_nowait(None), on_down=downs.put_nowait)
    running = asyncio.create_task(supervisor.run())
    async with asyncio.timeout(PATIENCE_S):
        await ups.get()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        assert "SIGKILL" in await downs.get()
        await ups.get()
    pid = server.pid
    assert pid is not None and read_process(pid) is not None
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert read_process(pid) is None


async def test_supervisor_reports_a_taken_port_and_starts_when_it_is_free(tmp_path: Path) -> None:
    ups: asyncio.Queue[None] = asyncio.Queue()
    downs: asyncio.Queue[str] = asyncio.Queue()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = EmbeddedServer(settings_in(tmp_path, http_url=f"127.0.0.1:{taken.getsockname()[1]}"))
        supervisor = Supervisor(server, on_up=lambda: ups.put_nowait(None), on_down=downs.put_nowait)
        running = asyncio.create_task(supervisor.run())
        async with asyncio.timeout(PATIENCE_S):
            assert "`triton.http_url`" in await downs.get()
    async with asyncio.timeout(PATIENCE_S):
        await ups.get()
    running.cancel()
    await asyncio.wait([running])


async def test_supervisor_gives_up_where_no_runtime_is(tmp_path: Path) -> None:
    server = EmbeddedServer(settings_in(tmp_path, runtime_directory=tmp_path / "nothing"))
    with pytest.raises(RuntimeMissing):
        await Supervisor(server, on_up=lambda: None, on_down=lambda _why: None).run()

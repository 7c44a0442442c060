"""vLLM's own server of the installed version, to ask it what Modelium is asked: a folder enters, an address leaves."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.server.systems import RUNTIME

LOAD_S = 900.0
_VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOOPBACK_IP": "127.0.0.1",
    "OMP_NUM_THREADS": "2",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass
class Beside:
    """A server that was started."""

    http: aiohttp.ClientSession
    url: str
    process: asyncio.subprocess.Process

    async def up(self) -> None:
        """Its port opens when it can answer."""
        ended = asyncio.ensure_future(self.process.wait())
        async with asyncio.timeout(LOAD_S):
            while not ended.done():
                with suppress(aiohttp.ClientError):
                    async with self.http.get(f"{self.url}/health") as answer:
                        if answer.status == 200:
                            ended.cancel()
                            return
                await asyncio.wait([ended], timeout=0.5)
        raise AssertionError("vLLM's server ended")


@asynccontextmanager
async def vllm_server(http: aiohttp.ClientSession, folder: Path, name: str, *more: str) -> AsyncIterator[Beside]:
    """Of ``folder`` under ``name``; wait until it is ``up``. ``more``: arguments."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(RUNTIME / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--port", str(port), "--host", "127.0.0.1", "--served-model-name", name, "--dtype", "float32", *more]
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, env={**os.environ, **_VARIABLES})
    try:
        yield Beside(http=http, url=f"http://127.0.0.1:{port}", process=process)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def told(answer: Any, leave_out: frozenset[str]) -> Any:
    """What an answer says: no ids and times, numbers as far as two runs agree, and of nothing no trace."""
    match answer:
        case dict():
            kept = {name: told(value, leave_out) for name, value in answer.items() if name not in leave_out}
            return {name: value for name, value in kept.items() if value not in (None, [], {})}
        case list():
            return [told(value, leave_out) for value in answer]
        case float():
            return round(answer, 2) if math.isfinite(answer) else str(answer)
        case _:
            return answer

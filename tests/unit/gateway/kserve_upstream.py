"""A stand-in for Triton's HTTP port, which does on demand what a real one does seldom, and a gateway in front of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from modelium.values import Task

from .stand_in import Served, profile_of, served

INFER = "/v2/models/m/infer"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Upstream:
    """Triton's HTTP port: answers with ``handlers`` in turn, the last one for good, and keeps what came."""

    handlers: list[Handler]
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.raw_path, dict(request.headers), await request.read()))
        handler = self.handlers.pop(0) if len(self.handlers) > 1 else self.handlers[0]
        try:
            return await handler(request)
        except asyncio.CancelledError:
            self.gone.set()
            raise


@asynccontextmanager
async def gateway(*handlers: Handler, **settings: Any) -> AsyncIterator[tuple[Served, Upstream]]:
    upstream = Upstream(list(handlers))
    app = web.Application(client_max_size=0)
    app.router.add_route("*", "/{path:.*}", upstream.answer)
    runner = web.AppRunner(app, handler_cancellation=True, auto_decompress=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with served(**{"request_timeout_seconds": 60, "max_body_bytes": 100_000, **settings}) as running:
            running.serve(profile_of(Task.TEXT_CLASSIFICATION))
            running.triton.http_url = f"127.0.0.1:{runner.addresses[0][1]}"
            running.triton.http_headers = {"modelium": "secret"}
            yield running, upstream
    finally:
        await runner.cleanup()


def says(status: int, body: bytes, **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers=headers)

    return handler


def error(words: str) -> bytes:
    return json.dumps({"error": words}).encode()


GONE = says(404, error("Request for unknown model: 'm' is not found"))
FINE = says(200, b"\x00answer", **{"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "7"})


async def breaks_off(request: web.Request) -> web.StreamResponse:
    """Before it answers anything."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def breaks_off_amid(request: web.Request) -> web.StreamResponse:
    """After a tenth of a megabyte."""
    response = web.StreamResponse(headers={"Content-Length": "1000000"})
    await response.prepare(request)
    await response.write(b"x" * 100_000)
    assert request.transport is not None
    request.transport.close()
    return response


async def hangs(request: web.Request) -> web.StreamResponse:
    """For ever."""
    await asyncio.Event().wait()
    return web.Response()

"""A front as a user writes it in an hour: Starlette takes a request, httpx sends it to Triton. ``TRITON``: its address."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_PASSED = ("content-type", "inference-header-content-length")


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """One client for all."""
    async with httpx.AsyncClient(base_url=os.environ["TRITON"], limits=httpx.Limits(max_connections=None)) as client:
        app.state.client = client
        yield


async def pass_on(request: Request) -> Response:
    """Whatever it is."""
    client = request.app.state.client
    answer = await client.post(request.url.path, content=await request.body(), headers=passed(request.headers))
    return Response(answer.content, answer.status_code, passed(answer.headers))


def passed(headers: Mapping[str, str]) -> dict[str, str]:
    """Of a request or an answer."""
    return {name: headers[name] for name in _PASSED if name in headers}


if __name__ == "__main__":
    app = Starlette(routes=[Route("/{path:path}", pass_on, methods=["POST"])], lifespan=lifespan)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")

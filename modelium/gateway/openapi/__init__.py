"""What the gateway is, for programs and for people: its routes enter, ``/openapi.json`` and ``/docs`` leave."""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web

from modelium.gateway.http.describing import describes
from modelium.gateway.http.keys import API_KEYS
from modelium.gateway.openapi.document import Json, build_document
from modelium.gateway.openapi.page import show_page

__all__ = ["OpenAPI", "build_document"]


class OpenAPI:
    """The handlers. The document is made once, when it is first asked for: by then all routes are there."""

    def __init__(self) -> None:
        self._made: asyncio.Task[bytes] | None = None

    def routes(self) -> list[web.RouteDef]:
        """Both."""
        return [web.get("/openapi.json", self.show), web.get("/docs", show_page)]

    @describes("This document.", gives=Json)
    async def show(self, request: web.Request) -> web.Response:
        """``GET /openapi.json``."""
        if self._made is None:
            self._made = asyncio.create_task(asyncio.to_thread(_written, request.app))  # it takes a fifth of a second
        return web.Response(body=await asyncio.shield(self._made), content_type="application/json")


def _written(app: web.Application) -> bytes:
    return orjson.dumps(build_document(app.router.routes(), keys=app.get(API_KEYS) is not None))

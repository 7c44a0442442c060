"""``GET /trace``: which model was asked when, as the CSV that ``modelium simulate`` reads."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

from aiohttp import web

from modelium.gateway.http.answers import write_within
from modelium.gateway.http.describing import Reply, describes
from modelium.trail import HEADER

if TYPE_CHECKING:
    from modelium.controller import Controller

_CHUNK = 256 * 1024
_STALL_S = 60.0


class Trace:
    """The handler of ``/trace``."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    @describes(
        "Which model was asked when, of the last days, for `modelium simulate`.",
        gives=Reply(content_type="text/csv", says="the oldest first"),
    )
    async def show(self, request: web.Request) -> web.StreamResponse:
        """All that is kept, the oldest first; the header alone where ``gateway.trace_bytes`` is 0."""
        trail = self._controller.trail
        if trail is not None:
            await trail.flush()
        response = web.StreamResponse(headers={"Content-Type": "text/csv; charset=utf-8"})
        with ExitStack() as opened:
            found = await asyncio.to_thread(trail.open_files) if trail is not None else []
            files = [opened.enter_context(file) for file in found]
            await response.prepare(request)
            await write_within(request, _STALL_S, response.write(HEADER))
            for file in files:
                while chunk := await asyncio.to_thread(file.read, _CHUNK):
                    await write_within(request, _STALL_S, response.write(chunk))
        await write_within(request, _STALL_S, response.write_eof())
        return response

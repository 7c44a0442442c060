"""``/health``: what enters is the controller's own account, what leaves is 200 or 503 and the reason.

Liveness means that the controller's loop turns, not that this port answers (a deadlocked scheduler kept Ollama "healthy"
for hours). Readiness is Modelium's own: Triton's turns false while any one model loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from modelium.gateway.http.answers import json_response
from modelium.gateway.http.describing import Reply, describes
from modelium.gateway.status.shapes import Alive, Ready
from modelium.views import Server, written

if TYPE_CHECKING:
    from modelium.controller import Controller


class Health:
    """The handlers of the probes."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def routes(self) -> list[web.RouteDef]:
        """``/health`` and all below it."""
        # What load generators and proxies of vLLM ask first is whether the server lives.
        return [web.get("/health", self.live), web.get("/health/live", self.live), web.get("/health/ready", self.ready)]

    @describes("Whether the controller's loop runs.", gives=Alive, also=(Reply(kind=Alive, status=503),))
    async def live(self, _request: web.Request) -> web.Response:
        """``GET /health/live``: 503 when the controller's loop stands still."""
        alive = self._controller.alive()
        return json_response({"alive": alive}, status=200 if alive else 503)

    @describes("Whether Triton is up and the first scan has finished.", gives=Ready, also=(Reply(kind=Ready, status=503),))
    async def ready(self, _request: web.Request) -> web.Response:
        """``GET /health/ready``: 503 until the folders were looked at and Triton is up."""
        ready = self._controller.ready()
        body = {"ready": ready, "scanned": self._controller.scanned(), "triton": written(Server, self._controller.server())}
        return json_response(body, status=200 if ready else 503)

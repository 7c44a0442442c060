"""KServe's v2 protocol over HTTP: what Triton's clients send enters, Triton's own answers leave, byte for byte.

What goes wrong here and not in Triton is answered in Modelium's own shape, in which Triton's clients find what they read
(``{"error": …}``).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from modelium.api_keys import ApiKeys
from modelium.config import GatewaySettings
from modelium.gateway.asking import Asking
from modelium.gateway.http.browsers import Guard
from modelium.gateway.http.deadline import usual_deadline
from modelium.gateway.http.fast_path import FastPath
from modelium.gateway.kserve.fast_path import FastInfer
from modelium.gateway.kserve.models import KServeModels
from modelium.gateway.kserve.passing import Passage
from modelium.gateway.kserve.server import KServeServer
from modelium.metrics import Recorder

if TYPE_CHECKING:
    from modelium.controller import Controller
    from modelium.triton.client import TritonClient

__all__ = ["KServe"]


class KServe:
    """The handlers of ``/v2``."""

    def __init__(self, controller: Controller, client: TritonClient, asking: Asking, gateway: GatewaySettings) -> None:
        timeout_s = gateway.request_timeout_seconds
        self._controller, self._gateway = controller, gateway
        self._passage = Passage(client)
        self._models = KServeModels(controller, asking, self._passage, ready=gateway.kserve_ready, timeout_s=timeout_s)
        self._server = KServeServer(controller, self._passage, shared_memory=gateway.shared_memory, timeout_s=timeout_s)

    def routes(self) -> list[web.RouteDef]:
        """All below ``/v2``."""
        return [*self._models.routes(), *self._server.routes()]

    def fast_path(self, recorder: Recorder, guard: Guard, keys: ApiKeys | None, max_timeout_s: float) -> FastPath:
        """Answers inferences that need nothing to be waited for."""
        gateway = self._gateway
        deadline = partial(usual_deadline, gateway.request_timeout_seconds, max_timeout_s)
        return FastInfer(self._controller, self._passage, recorder, guard, keys, deadline, gateway.max_body_bytes)

    async def close(self, _app: web.Application) -> None:
        """For the application's ``on_cleanup``."""
        self._passage.close()

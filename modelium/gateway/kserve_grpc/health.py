"""gRPC's standard health service (``grpc.health.v1``): the controller's word enters, SERVING or NOT_SERVING leaves.

A service is the server as a whole ("" or KServe's own). It serves when Triton is up and the watch directories were scanned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc

from modelium.gateway.kserve_grpc import wire
from modelium.gateway.kserve_grpc.caller import Context

SERVICE = "grpc.health.v1.Health"
_SERVING, _NOT_SERVING, _UNKNOWN = 1, 2, 3
_LOOK_EVERY_S = 1.0


class Health:
    """The handlers. ``services``: those that may be asked for beside ""."""

    def __init__(self, ready: Callable[[], bool], services: frozenset[str]) -> None:
        self._ready = ready
        self._services = services | {""}

    async def check(self, request: bytes, context: Context) -> bytes:
        """``Check``: now."""
        status = self._status(wire.text_of(request, 1))
        if status == _UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service is served here")
        return _said(status)

    async def watch(self, request: bytes, context: Context) -> None:
        """``Watch``: now, and whenever it changes."""
        service, last = wire.text_of(request, 1), 0
        while True:
            status = self._status(service)
            if status != last:
                last = status
                await context.write(_said(status))
            await asyncio.sleep(_LOOK_EVERY_S)

    def _status(self, service: str) -> int:
        if service not in self._services:
            return _UNKNOWN
        return _SERVING if self._ready() else _NOT_SERVING


def _said(status: int) -> bytes:
    return wire.number_field(1, status)

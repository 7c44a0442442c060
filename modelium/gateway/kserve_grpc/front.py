"""The gRPC server: controller, Triton client and settings enter, a listening port leaves.

Handlers take bytes and give bytes. All but the probes need a key, where there are keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from modelium.api_keys import ApiKeys
from modelium.config import Settings
from modelium.errors import ConfigError
from modelium.gateway.asking import Asking
from modelium.gateway.kserve_grpc import descriptions, health, reflection
from modelium.gateway.kserve_grpc.caller import Callers, Context, Handler, broke_off, is_cancelled
from modelium.gateway.kserve_grpc.models import ModelCalls
from modelium.gateway.kserve_grpc.server_calls import SHARED_MEMORY, ServerCalls
from modelium.gateway.kserve_grpc.streams import Streams
from modelium.gateway.places import Places
from modelium.metrics import Recorder
from modelium.triton.passing import SERVICE, described

if TYPE_CHECKING:
    from modelium.controller import Controller
    from modelium.triton.client import TritonClient

_GRACE_S = 10.0  # for what is under way when the server ends
_PINGS_MS = 5_000  # how often a client may ask whether the connection lives
_PING_TIMEOUT_MS = 20_000


class GrpcFront:
    """One for the whole gateway. Make it inside the event loop; ``start`` and ``stop`` once each.

    Raises ``ConfigError`` where ``gateway.api_keys_file`` cannot be used.
    """

    def __init__(self, controller: Controller, client: TritonClient, settings: Settings, metrics: Recorder) -> None:
        gateway = settings.gateway
        self._host, self._port = gateway.host, gateway.grpc_port or 0
        self._callers = Callers(
            ApiKeys(gateway.api_keys_file) if gateway.api_keys_file is not None else None,
            timeout_s=gateway.request_timeout_seconds,
            max_timeout_s=gateway.max_request_timeout_seconds,
            max_buffered_bytes=gateway.max_buffered_bytes,
            places=Places.of(settings),
        )
        asking = Asking(controller, client, metrics)
        models = ModelCalls(controller, asking, client.passing, self._callers, metrics, ready=gateway.kserve_ready)
        server = ServerCalls(controller, models, self._callers, shared_memory=gateway.shared_memory)
        streams = Streams(controller, asking, client.passing, self._callers, metrics)
        handlers = _Handlers(
            {
                **{f"/{SERVICE}/{method}": self._one(handler) for method, handler in _closed(models, server).items()},
                f"/{SERVICE}/ServerLive": self._one(server.live, is_open=True),
                f"/{SERVICE}/ServerReady": self._one(server.ready, is_open=True),
                f"/{SERVICE}/ModelStreamInfer": self._many(streams.infer),
                **self._of_grpc(controller.ready),
            }
        )
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", gateway.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # a port that somebody has is not shared with him
                ("grpc.keepalive_time_ms", int(gateway.stall_timeout_seconds * 1000)),  # who is gone is noticed
                ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", _PINGS_MS),
            ],
            maximum_concurrent_rpcs=gateway.max_connections,
        )
        self._server.add_generic_rpc_handlers((handlers,))

    async def start(self) -> str:
        """Listen, and return where: ``host:port``. Raises ``ConfigError`` for a port that is taken."""
        host = f"[{self._host}]" if ":" in self._host else self._host or "0.0.0.0"
        try:
            port = self._server.add_insecure_port(f"{host}:{self._port}")
        except RuntimeError:
            port = 0
        if port == 0:
            raise ConfigError(f"gateway: cannot listen on {host}:{self._port}; choose another gateway.grpc_port, or null")
        await self._server.start()
        return f"{host}:{port}"

    async def stop(self) -> None:
        """Take no more calls; those under way have a little time."""
        await self._server.stop(_GRACE_S)

    def _of_grpc(self, ready: Callable[[], bool]) -> Mapping[str, Any]:
        """gRPC's own services."""
        probes = health.Health(ready, frozenset({SERVICE}))
        described_here = (
            *described(),
            descriptions.health(),
            descriptions.reflection("v1"),
            descriptions.reflection("v1alpha"),
        )
        reflects = reflection.Reflection(described_here, (SERVICE, health.SERVICE, *reflection.SERVICES))
        return {
            f"/{health.SERVICE}/Check": self._one(probes.check, is_open=True),
            f"/{health.SERVICE}/Watch": self._one_to_many(probes.watch),
            **{f"/{service}/ServerReflectionInfo": self._many(reflects.answer) for service in reflection.SERVICES},
        }

    def _one(self, handler: Handler, *, is_open: bool = False) -> Any:
        async def answer(request: bytes, context: Context) -> bytes:
            try:
                if not is_open:
                    self._callers.admit(context)
                return await handler(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await self._callers.refuse(error, context)
                raise

        return grpc.unary_unary_rpc_method_handler(answer)

    def _many(self, handler: Callable[[AsyncIterator[bytes], Context], Awaitable[None]]) -> Any:
        async def answer(requests: AsyncIterator[bytes], context: Context) -> None:
            try:
                self._callers.admit(context)
                await handler(requests, context)
            except grpc.aio.AbortError:
                raise
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                await self._callers.refuse(broke_off("a stream"), context)
            except Exception as error:
                await self._callers.refuse(error, context)

        return grpc.stream_stream_rpc_method_handler(answer)

    def _one_to_many(self, handler: Callable[[bytes, Context], Awaitable[None]]) -> Any:
        async def answer(request: bytes, context: Context) -> None:
            try:
                await handler(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await self._callers.refuse(error, context)

        return grpc.unary_stream_rpc_method_handler(answer)


def _closed(models: ModelCalls, server: ServerCalls) -> Mapping[str, Handler]:
    """What needs a key, by the method of Triton's service, each with one answer."""
    return {
        "ModelInfer": models.infer,
        "ModelMetadata": models.metadata,
        "ModelConfig": models.config,
        "ModelReady": models.ready,
        "ModelStatistics": models.statistics,
        "ServerMetadata": server.metadata,
        "RepositoryIndex": server.index,
        "RepositoryModelLoad": server.load,
        "RepositoryModelUnload": server.unload,
        "TraceSetting": server.tracing,
        "LogSettings": server.logging,
        **{method: server.shared_memory(method) for method in SHARED_MEMORY},
    }


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Methods by their paths."""

    def __init__(self, handlers: Mapping[str, Any]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: Any) -> Any:
        """None for a method that is not served: gRPC answers UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)

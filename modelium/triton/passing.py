"""Calls of others, passed on to Triton as they are: a method's name and a message's bytes enter, the answer's bytes leave.

No tensor is read. What Triton refuses is raised as gRPC raises it, with its code, its words and its metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import model_config_pb2, service_pb2

SERVICE = "inference.GRPCInferenceService"

CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A restarted server is used at once: gRPC's own back-off grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Clients of one target share connections by default; then one client's closing or back-off would be another's.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]

Metadata = Sequence[tuple[str, str | bytes]]


class Passing:
    """A channel of its own, so that large tensors of others are not in the way of Modelium's calls.

    ``headers`` go along with every call, and take the place of a client's of the same names.
    """

    def __init__(self, grpc_url: str, headers: Mapping[str, str]) -> None:
        self._headers = tuple(headers.items())
        self._own = frozenset(headers)
        self._channel: grpc.aio.Channel = grpc.aio.insecure_channel(grpc_url, options=CHANNEL_OPTIONS)
        self._unary: dict[str, Any] = {}
        self._stream = self._channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")

    async def close(self) -> None:
        """End the connection; calls in flight are cancelled."""
        await self._channel.close()

    def call(self, method: str, request: bytes, *, timeout_s: float | None, metadata: Metadata = ()) -> Any:
        """The call of a method that has one answer. Await it for the bytes; cancelling whoever waits cancels it at Triton."""
        asks = self._unary.get(method)
        if asks is None:
            asks = self._unary[method] = self._channel.unary_unary(f"/{SERVICE}/{method}")
        return asks(request, timeout=timeout_s, metadata=self._with_headers(metadata))

    def stream(self, *, timeout_s: float | None, metadata: Metadata = ()) -> Any:
        """A call of ``ModelStreamInfer``: write messages to it and read answers from it."""
        return self._stream(timeout=timeout_s, metadata=self._with_headers(metadata))

    def _with_headers(self, metadata: Metadata) -> Metadata:
        if not metadata:
            return self._headers
        return (*((key, value) for key, value in metadata if key not in self._own), *self._headers)


def described() -> tuple[bytes, ...]:
    """Triton's service as protobuf describes it: serialized ``FileDescriptorProto``s, for reflection."""
    return service_pb2.DESCRIPTOR.serialized_pb, model_config_pb2.DESCRIPTOR.serialized_pb

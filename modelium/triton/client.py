"""The one client of Triton, embedded or external: repository API, statistics, inference, all over gRPC.

What enters: model names and numpy arrays. What leaves: numpy arrays, frozen values, and ``TritonError``s. Control goes over
gRPC because an HTTP load stalls one of Triton's HTTP threads, and with it unrelated requests, until the load is over
(triton-inference-server/server #8958, #8117). The generated stubs are used directly: ``tritonclient``'s wrappers copy
each tensor twice more.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf import json_format
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from modelium.errors import ModelGone, TritonError, TritonUnavailable
from modelium.triton.faults import call_error, infer_error, load_error, stream_error
from modelium.triton.passing import CHANNEL_OPTIONS, Passing
from modelium.triton.tensors import Array, infer_request, read_outputs

_CONTROL_TIMEOUT_S = 30.0
_OF_GRPC = "triton-grpc-protocol-"  # Triton's own prefix of a restriction's header; over HTTP the name stands alone


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One entry of the model repository in Triton's own words: READY, LOADING, UNLOADING, UNAVAILABLE, "" (never loaded)."""

    name: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatistics:
    """What Triton counted for one loaded model, all versions together, since it was loaded (0 again after a reload).

    ``completed``: requests that ended, well or not; counted a moment after the answer, and not while they are in flight.
    ``executions``: how often the model ran for them, which is less often where Triton batched.
    """

    name: str
    completed: int
    executions: int


class TritonClient:
    """One connection to one Triton. Make it inside the event loop that uses it; ``close()`` ends it.

    ``log_path`` is the log of an embedded server: where the cause of "failed to poll from model repository" is found.
    ``headers`` go along with every call: what a server asks for whose APIs are restricted. ``passing``: calls of others, as
    they are.
    """

    def __init__(
        self, *, http_url: str, grpc_url: str, log_path: Path | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.http_url = http_url
        self.grpc_url = grpc_url
        self._log_path = log_path
        self._metadata = tuple((headers or {}).items())
        self.http_headers = {name.removeprefix(_OF_GRPC): value for name, value in self._metadata}  # the same over HTTP
        self._channel: grpc.aio.Channel = grpc.aio.insecure_channel(grpc_url, options=CHANNEL_OPTIONS)
        self._rpc = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self.passing = Passing(grpc_url, headers or {})

    async def close(self) -> None:
        """End the connection; calls in flight are cancelled."""
        await self.passing.close()
        await self._channel.close()

    async def live(self) -> bool:
        """Does the server answer? Never raises for a server that is away."""
        try:
            return bool((await self._rpc.ServerLive(pb.ServerLiveRequest(), timeout=5.0, metadata=self._metadata)).live)
        except grpc.RpcError:
            return False

    async def version(self) -> str:
        """Triton's version, like ``2.51.0``."""
        reply = await self._call(
            "server metadata",
            self._rpc.ServerMetadata(pb.ServerMetadataRequest(), timeout=_CONTROL_TIMEOUT_S, metadata=self._metadata),
        )
        return str(reply.version)

    async def index(self) -> dict[str, IndexEntry]:
        """Every entry that Triton sees in the repository or has ever tried to load, by name."""
        call = self._rpc.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=_CONTROL_TIMEOUT_S, metadata=self._metadata)
        reply = await self._call("repository index", call)
        entries: dict[str, IndexEntry] = {}
        for model in reply.models:
            # A failed or replaced version may stand beside a READY one: the model serves when any version does.
            known = entries.get(model.name)
            if known is None or known.state != "READY":
                entries[model.name] = IndexEntry(name=model.name, state=model.state, reason=model.reason)
        return entries

    async def load(self, name: str, *, timeout_s: float) -> None:
        """Load or reload; returns when the model answers. Raises ``LoadFailed`` with the cause, ``TritonUnavailable``.

        A passed deadline does not stop Triton: it goes on loading (``DeadlineExceeded``).
        """
        try:
            await self._rpc.RepositoryModelLoad(
                pb.RepositoryModelLoadRequest(model_name=name), timeout=timeout_s, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise load_error(name, error, self._log_path) from None

    async def unload(self, name: str, *, timeout_s: float = _CONTROL_TIMEOUT_S) -> None:
        """Ask for an unload; Triton answers at once and drains. It is over when ``index()`` says UNAVAILABLE."""
        call = self._rpc.RepositoryModelUnload(
            pb.RepositoryModelUnloadRequest(model_name=name), timeout=timeout_s, metadata=self._metadata
        )
        await self._call(f"unload {name!r}", call)

    async def statistics(self) -> dict[str, ModelStatistics]:
        """The counters of every loaded model, in one call."""
        call = self._rpc.ModelStatistics(pb.ModelStatisticsRequest(), timeout=_CONTROL_TIMEOUT_S, metadata=self._metadata)
        reply = await self._call("statistics", call)
        totals: dict[str, ModelStatistics] = {}
        for entry in reply.model_stats:
            stats, known = entry.inference_stats, totals.get(entry.name)
            totals[entry.name] = ModelStatistics(
                name=entry.name,
                completed=stats.success.count + stats.fail.count + (known.completed if known else 0),
                executions=entry.execution_count + (known.executions if known else 0),
            )
        return totals

    async def model_config(self, name: str) -> dict[str, Any]:
        """The configuration that Triton uses for a loaded model, as its JSON form."""
        call = self._rpc.ModelConfig(pb.ModelConfigRequest(name=name), timeout=_CONTROL_TIMEOUT_S, metadata=self._metadata)
        reply = await self._call(f"configuration of {name!r}", call)
        config: dict[str, Any] = json.loads(json_format.MessageToJson(reply.config, preserving_proto_field_name=True))
        return config

    async def infer(
        self, name: str, inputs: Mapping[str, Array], *, timeout_s: float | None = None, outputs: Sequence[str] = ()
    ) -> dict[str, Array]:
        """One inference. BYTES tensors are object arrays of ``bytes``; returned arrays are read-only.

        Cancelling the calling task cancels the request at Triton. Raises ``ModelGone`` (try again after a load),
        ``InferenceFailed`` (this request's own fault), ``TritonUnavailable``, ``DeadlineExceeded``.
        """
        try:
            response = await self._rpc.ModelInfer(
                infer_request(name, inputs, outputs), timeout=timeout_s, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise infer_error(name, error) from None
        try:
            return read_outputs(response)
        except ValueError as error:
            raise TritonError(f"{name!r} answered with a tensor that cannot be read: {error}") from None

    async def stream(
        self, name: str, inputs: Mapping[str, Array], *, timeout_s: float | None = None, outputs: Sequence[str] = ()
    ) -> AsyncGenerator[dict[str, Array], None]:
        """One inference of a decoupled model: its responses as they come. Errors are those of ``infer``.

        Closing this generator, or cancelling the task that reads it, cancels the request at Triton.
        """
        request = infer_request(name, inputs, outputs)
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        # The RPC is this request's alone, and half-closed behind it: so its end is this answer's, and so is its cancellation.
        call = self._rpc.ModelStreamInfer((request,), timeout=timeout_s, metadata=self._metadata)
        complete = False
        try:
            async for reply in call:
                if reply.error_message:
                    raise stream_error(name, reply.error_message)
                response = reply.infer_response
                complete = complete or response.parameters["triton_final_response"].bool_param
                if response.outputs:
                    yield read_outputs(response)
        except grpc.RpcError as error:
            raise infer_error(name, error) from None
        except ValueError as error:
            raise TritonError(f"{name!r} answered with a tensor that cannot be read: {error}") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not ours: gRPC raises this as well when the server, or the closing of the channel, ended the call.
            raise TritonUnavailable(f"Triton broke off the answer of {name!r}") from None
        finally:
            call.cancel()
        if not complete:
            raise ModelGone(f"the answer of {name!r} broke off")

    async def _call(self, what: str, call: Any) -> Any:
        try:
            return await call
        except grpc.RpcError as error:
            raise call_error(what, error) from None

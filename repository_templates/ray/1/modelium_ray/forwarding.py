"""From a request of Triton's to Ray and back: tensors enter, replies leave. One forwarder a way of serving.

A task's request is one call of a replica. It is tried again when the replica dies under it: the answer would be the same.
vLLM's is a stream, tried again as long as nothing of it was seen. An application of the user's is asked over HTTP, through
Serve's own proxy, as everybody would ask it; never twice.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

import numpy as np

from .connection import Connection
from .deployment import Deployment
from .http import Client, HttpAsk, Piece, Relayed
from .settings import Settings

_TRIES = 3
_PROXY_WITHIN_S = 180.0
# What Serve's proxy says when an application raises, and when its replica dies.
_BROKEN = (500, b"Internal Server Error")
_REPLICA_DIED = Piece(
    status=502,
    content_type="application/json",
    body=b'{"error":"a replica of the application died while it answered","type":"replica_died"}',
    whole=True,
)


class NotForwarded(Exception):
    """The request cannot be answered as it stands; the message is for its sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Output arrays by name; none: nothing more comes. ``last``: the answer is complete."""

    arrays: Mapping[str, np.ndarray]
    last: bool


class Incoming(Protocol):
    """A request of Triton's: its input arrays by name, None for one that it has not, and its own parameters as JSON."""

    def array(self, name: str) -> np.ndarray | None: ...
    def parameters(self) -> str: ...


class Forwarder(Protocol):
    """``read`` runs in Triton's thread, the rest on the event loop."""

    async def open(self) -> None: ...
    def read(self, request: Incoming) -> Any: ...
    def answer(self, ask: Any) -> AsyncGenerator[Reply, None]: ...
    async def close(self) -> None: ...


def forwarder_of(settings: Settings, deployment: Deployment) -> Forwarder:
    """The one for this way of serving."""
    match settings.way:
        case "app":
            return HttpForwarder(deployment)
        case "engine":
            return EngineForwarder(deployment)
        case _:
            return TaskForwarder(settings, deployment)


class TaskForwarder:
    """Rows in, rows out."""

    def __init__(self, settings: Settings, deployment: Deployment) -> None:
        self._inputs, self._batches = settings.inputs, settings.batches
        self._handle = deployment.handle

    async def open(self) -> None:
        """Nothing."""

    def read(self, request: Incoming) -> dict[str, np.ndarray]:
        found = {name: value for name in self._inputs if (value := request.array(name)) is not None}
        if not found:
            raise NotForwarded(f"the request has none of the inputs {', '.join(self._inputs)}")
        return found if self._batches else {name: value[None] for name, value in found.items()}

    async def answer(self, ask: dict[str, np.ndarray]) -> AsyncGenerator[Reply, None]:
        said = await _try_again(lambda: self._handle.infer.remote(ask))
        if isinstance(said, str):
            raise NotForwarded(said)
        yield Reply(arrays=said if self._batches else {name: value[0] for name, value in said.items()}, last=True)

    async def close(self) -> None:
        """Nothing."""


class EngineForwarder:
    """vLLM's stream, with the tensors of Triton's vLLM backend."""

    def __init__(self, deployment: Deployment) -> None:
        self._handle = deployment.handle.options(stream=True)

    async def open(self) -> None:
        """Nothing."""

    def read(self, request: Incoming) -> Any:
        from vllm_backend import tensors
        from vllm_backend.errors import BadRequest

        try:
            return tensors.read(request, lambda _, name: _Tensor(value) if (value := request.array(name)) is not None else None)
        except BadRequest as error:
            raise NotForwarded(str(error)) from None

    async def answer(self, ask: Any) -> AsyncGenerator[Reply, None]:
        for attempt in range(1, _TRIES + 1):
            begun = False
            stream = self._handle.generate.remote(ask)
            try:
                async for said in stream:
                    begun = True
                    if isinstance(said, str):
                        raise NotForwarded(said)
                    arrays, last = said
                    yield Reply(arrays=arrays, last=last)
                return
            except (asyncio.CancelledError, GeneratorExit):
                stream.cancel()
                raise
            except Exception as error:
                if not _replica_died(error) or begun or attempt == _TRIES:
                    raise _explained(error) from None

    async def close(self) -> None:
        """Nothing."""


class _Tensor:
    """An input as ``vllm_backend.tensors`` takes it."""

    def __init__(self, value: np.ndarray) -> None:
        self._value = value

    def as_numpy(self) -> np.ndarray:
        return self._value


class HttpForwarder:
    """An application of the user's."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._client: Client | Relayed | None = None

    async def open(self) -> None:
        """Find Serve's proxy and wait until it knows the route."""
        deadline = asyncio.get_running_loop().time() + _PROXY_WITHIN_S
        while True:
            if self._client is None:
                self._client = await self._find_proxy()
            if self._client is not None and await self._client.knows(self._deployment.route):
                return
            if asyncio.get_running_loop().time() > deadline:
                raise RuntimeError("Ray Serve has no HTTP proxy that knows the application (proxy_location Disabled?)")
            await asyncio.sleep(0.1)

    def read(self, request: Incoming) -> HttpAsk:
        def text(name: str, otherwise: str) -> str:
            value = request.array(name)
            return otherwise if value is None or not value.size else value.reshape(-1)[0].decode("utf-8", "replace")

        body = request.array("REQUEST")
        method, path = text("METHOD", "POST").upper(), text("PATH", "/")
        if not (method.isascii() and method.isalpha()) or not path.isascii() or any(c <= " " or c in "#\x7f" for c in path):
            raise NotForwarded(f"METHOD {method!r} and PATH {path!r} make no request (a path is percent-encoded)")
        if any(unquote(segment) in (".", "..") for segment in path.partition("?")[0].split("/")):
            raise NotForwarded(f"PATH {path!r} has a segment of dots, which could lead out of the application")
        content_type = text("CONTENT_TYPE", "application/json")
        if not content_type.isprintable():
            raise NotForwarded(f"CONTENT_TYPE {content_type!r} is no header")
        return HttpAsk(
            method=method,
            path="/" + path.lstrip("/"),
            content_type=content_type,
            body=b"" if body is None or not body.size else bytes(body.reshape(-1)[0]),
        )

    async def answer(self, ask: HttpAsk) -> AsyncGenerator[Reply, None]:
        """As the application speaks."""
        begun = time.time()
        async with aclosing(self._ask(ask)) as pieces:
            async for piece in pieces:
                if (piece.status, piece.body) == _BROKEN and await asyncio.to_thread(
                    self._deployment.lost_replica_since, begun
                ):
                    piece = _REPLICA_DIED
                head = {
                    "STATUS": np.array([piece.status], dtype=np.int32),
                    "CONTENT_TYPE": _bytes(piece.content_type.encode()),
                    "LOCATION": _bytes(piece.location.encode()),
                }
                yield Reply(arrays={"RESPONSE": _bytes(piece.body), **head}, last=piece.whole)
                if piece.whole:
                    return
        yield Reply(arrays={}, last=True)

    async def _ask(self, ask: HttpAsk) -> AsyncGenerator[Piece, None]:
        """What breaks before its first piece is an answer too: whether the application has acted on it, nobody knows."""
        assert self._client is not None
        begun = False
        try:
            async with aclosing(self._client.ask(self._deployment.route, ask)) as pieces:
                async for piece in pieces:
                    begun = True
                    yield piece
        except RuntimeError as error:
            if begun:
                raise
            said = {"error": f"{error}; it may have acted on the request, which is why it was not sent again"}
            body = json.dumps({**said, "type": "application_gone"}).encode()
            yield Piece(status=502, content_type="application/json", body=body, whole=True)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _find_proxy(self) -> Client | Relayed | None:
        """A healthy proxy; that of a Ray of Modelium's own is at a known address. None for none yet."""
        connection = self._deployment.connection
        if connection.here:
            return Client(f"http://{connection.http_host}:{connection.http_port}")
        try:
            proxy = await asyncio.to_thread(_ask_for_proxy, connection)
        except OSError as error:
            if is_busy(error):
                return None
            raise
        return Relayed(*proxy) if proxy is not None else None


async def _try_again(call: Callable[[], Any]) -> Any:
    for attempt in range(1, _TRIES + 1):
        response = call()
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except Exception as error:
            if not _replica_died(error) or attempt == _TRIES:
                raise _explained(error) from None
    raise AssertionError("the last try returns or raises")


def _replica_died(error: Exception) -> bool:
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import DeploymentUnavailableError

    return isinstance(error, (RayActorError, DeploymentUnavailableError))


def _explained(error: Exception) -> Exception:
    """Ray's pages about a dead actor, or a replica's traceback, in one sentence."""
    from ray.exceptions import RayTaskError

    if _replica_died(error):
        return RuntimeError(f"the replica that computed this died ({_TRIES} times, or in the middle of its answer)")
    if isinstance(error, RayTaskError):
        return RuntimeError(f"{type(error.cause).__name__}: {error.cause}")
    return error


def _bytes(value: bytes) -> np.ndarray:
    array = np.empty(1, dtype=np.object_)
    array[0] = value
    return array


def is_busy(error: OSError) -> bool:
    """The dashboard did not answer in time, as while Serve starts on a slow machine; another error is one."""
    return isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)


def _ask_for_proxy(connection: Connection) -> tuple[str, str] | None:
    """Its URL on its own node, and that node's id: by the dashboard's account of Serve."""
    if not connection.dashboard:
        raise RuntimeError("the entry does not say where Ray's dashboard is, and with it Serve's HTTP proxy")
    request = urllib.request.Request(f"{connection.dashboard.rstrip('/')}/api/serve/applications/")
    if connection.token:
        request.add_header("Authorization", f"Bearer {connection.token}")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        said = json.load(answer)
    options = {"host": "127.0.0.1", "port": 8000} | (said.get("http_options") or {})  # what is as Serve has it is not said
    host = "127.0.0.1" if options["host"] in ("0.0.0.0", "::", "localhost") else options["host"]
    for proxy in (said.get("proxies") or {}).values():
        if proxy.get("status") == "HEALTHY":
            return f"http://{host}:{options['port']}", proxy["node_id"]
    return None

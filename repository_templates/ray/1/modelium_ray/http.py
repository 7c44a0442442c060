"""Asking an application over HTTP, from wherever Serve's proxy can be reached: a request enters, pieces of the answer leave.

Serve's proxy listens on its own machine alone, unless somebody has said otherwise. So on a cluster a ``Relay`` asks it, an
actor beside the proxy. Ray moves this module there by value: nothing here imports the others.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAsk:
    """One request; ``path`` is the application's own, with its query."""

    method: str
    path: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of the answer. ``whole``: there is no other."""

    status: int
    content_type: str
    body: bytes
    whole: bool


class Client:
    """Of one proxy."""

    def __init__(self, base: str) -> None:
        import aiohttp

        self._base = base
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False)

    async def knows(self, route: str) -> bool:
        """Has the proxy heard of the application yet?"""
        import aiohttp

        try:
            async with self._session.get(f"{self._base}/-/routes") as answer:
                return route in json.loads(await answer.read())
        except (aiohttp.ClientError, ValueError):
            return False

    async def ask(self, route: str, ask: HttpAsk) -> AsyncIterator[Piece]:
        """A body of a stated length in one piece; one that comes in pieces, piece by piece. A failure (500) comes whole. Raises
        ``RuntimeError`` when the answer breaks off."""
        import aiohttp

        # How a body is compressed has no tensor: an application would compress it for us, and nobody would know.
        headers = {"Content-Type": ask.content_type, "Accept-Encoding": "identity"}
        url = f"{self._base}{route}{ask.path}"
        try:
            async with self._session.request(ask.method, url, data=ask.body or None, headers=headers) as answer:
                kind = answer.headers.get("Content-Type", "application/octet-stream")
                if answer.headers.get("Content-Length") is not None or answer.status >= 500:
                    yield Piece(status=answer.status, content_type=kind, body=await answer.read(), whole=True)
                    return
                async for piece in answer.content.iter_chunked(_CHUNK):
                    yield Piece(status=answer.status, content_type=kind, body=piece, whole=False)
        except aiohttp.ClientError as error:
            raise RuntimeError(f"the application's answer broke off: {error or type(error).__name__}") from None

    async def close(self) -> None:
        await self._session.close()


class Relay:
    """A ``Client`` as an actor of Ray's."""

    async def __init__(self, base: str) -> None:
        self._client = Client(base)

    async def knows(self, route: str) -> bool:
        return await self._client.knows(route)

    async def ask(self, route: str, ask: HttpAsk) -> AsyncIterator[Piece]:
        async for piece in self._client.ask(route, ask):
            yield piece


class Relayed:
    """A ``Client`` that asks through a ``Relay`` on the node of the proxy."""

    def __init__(self, base: str, node: str) -> None:
        import sys

        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        beside = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        # It goes with the process that made it. An application's working directory is not its business.
        self._relay: Any = (
            ray.remote(Relay).options(num_cpus=0, max_concurrency=1000, scheduling_strategy=beside, runtime_env={}).remote(base)
        )

    async def knows(self, route: str) -> bool:
        return bool(await self._relay.knows.remote(route))

    async def ask(self, route: str, ask: HttpAsk) -> AsyncIterator[Piece]:
        import ray

        stream = self._relay.ask.options(num_returns="streaming").remote(route, ask)
        try:
            async for piece in stream:
                yield await piece
        except BaseException:
            ray.cancel(stream)
            raise

    async def close(self) -> None:
        import ray

        ray.kill(self._relay)

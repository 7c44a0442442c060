"""Asking an application over HTTP, from wherever Serve's proxy can be reached: a request enters, pieces of the answer leave.

Serve's proxy listens on its own machine alone, unless somebody has said otherwise. So on a cluster a ``Relay`` asks it, an
actor beside the proxy. Ray moves this module there by value: nothing here imports the others.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAsk:
    """One request; ``path`` is the application's own, with its query."""

    method: str
    path: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of the answer. ``whole``: there is no other. ``location``: where a redirect leads, a path of the application's own
    or a whole URL."""

    status: int
    content_type: str
    body: bytes
    whole: bool
    location: str = ""


class Client:
    """Of one proxy."""

    def __init__(self, base: str) -> None:
        import aiohttp

        self._base = base
        # A connection for each request: one that was used may have been closed meanwhile.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Accept-Encoding": "identity"},  # how a body is compressed has no tensor
            cookie_jar=aiohttp.DummyCookieJar(),  # many clients' requests go this way
        )

    async def knows(self, route: str) -> bool:
        """Has the proxy heard of the application yet?"""
        import aiohttp

        try:
            async with self._session.get(f"{self._base}/-/routes") as answer:
                return route in json.loads(await answer.read())
        except (aiohttp.ClientError, ValueError):
            return False

    async def ask(self, route: str, ask: HttpAsk) -> AsyncGenerator[Piece, None]:
        """A body of a stated length in one piece; one that comes in pieces, piece by piece, and an empty one when it is over. A
        failure (500) comes whole. Raises ``RuntimeError`` when the answer breaks off."""
        import aiohttp
        import yarl

        headers = {"Content-Type": ask.content_type}
        url = yarl.URL(f"{self._base}{route}{ask.path}", encoded=True)
        try:
            asking = self._session.request(
                ask.method,
                url,
                data=ask.body or None,
                headers=headers,
                allow_redirects=False,
                middlewares=(_only_once(),),
            )
            async with asking as answer:
                head = Piece(
                    status=answer.status,
                    content_type=answer.headers.get("Content-Type", "application/octet-stream"),
                    body=b"",
                    whole=True,
                    location=self._inside(route, url, answer.headers.get("Location", "")),
                )
                if answer.headers.get("Content-Length") is not None or answer.status >= 500:
                    yield replace(head, body=await answer.read())
                    return
                empty = True
                async for piece in answer.content.iter_any():
                    empty = False
                    yield replace(head, body=piece, whole=False)
                if empty:
                    yield head
        except aiohttp.ClientError as error:
            raise RuntimeError(f"the application's answer broke off: {error or type(error).__name__}") from None

    def _inside(self, route: str, asked: Any, location: str) -> str:
        """Of the application's own route, and of the proxy's address, its clients know nothing."""
        import yarl

        if not location:
            return ""
        there = str(asked.join(yarl.URL(location, encoded=True)))
        own = self._base + route
        if there == own or there.startswith((f"{own}/", f"{own}?")):
            there = there.removeprefix(own)
            return there if there.startswith("/") else f"/{there}"
        return there.removeprefix(self._base) if there.startswith(f"{self._base}/") else there

    async def close(self) -> None:
        await self._session.close()


def _only_once() -> Any:
    """aiohttp sends GET, PUT and DELETE again by itself when their connection breaks; the application may have acted on it."""
    sent = False

    async def once(request: Any, handler: Any) -> Any:
        import aiohttp

        nonlocal sent
        if sent:
            raise aiohttp.ServerDisconnectedError
        sent = True
        return await handler(request)

    return once


class Relay:
    """A ``Client`` as an actor of Ray's."""

    async def __init__(self, base: str) -> None:  # type: ignore[misc]  # on the actor's loop, as Ray takes it
        self._client = Client(base)

    async def knows(self, route: str) -> bool:
        return await self._client.knows(route)

    async def ask(self, route: str, ask: HttpAsk) -> AsyncGenerator[Piece, None]:
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
            ray.remote(Relay)
            .options(num_cpus=0, max_concurrency=1000, max_restarts=-1, scheduling_strategy=beside, runtime_env={})
            .remote(base)
        )

    async def knows(self, route: str) -> bool:
        return bool(await self._relay.knows.remote(route))

    async def ask(self, route: str, ask: HttpAsk) -> AsyncGenerator[Piece, None]:
        import ray

        stream = self._relay.ask.options(num_returns="streaming").remote(route, ask)
        try:
            async for piece in stream:
                yield await piece
        except ray.exceptions.RayActorError:
            raise RuntimeError("what asks the application from its proxy's machine ended; Ray starts it again") from None
        except ray.exceptions.RayTaskError as error:
            raise RuntimeError(str(error.cause)) from None
        except BaseException:
            ray.cancel(stream)
            raise

    async def close(self) -> None:
        import ray

        ray.kill(self._relay)

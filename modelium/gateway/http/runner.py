"""How the gateway's application is run: an application enters, a server of aiohttp's leaves, with three things changed.

Its connections are bounded (``connections``), some requests are answered without it (``fast_path``), and all others are read as
they are meant (``paths``) before anybody looks for a route.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import hdrs, web
from multidict import CIMultiDictProxy
from yarl import URL

from modelium.gateway.http.bodies import BODIES
from modelium.gateway.http.connections import LIMITS, Connections
from modelium.gateway.http.fast_path import FAST_PATH, FastConnection
from modelium.gateway.http.paths import meant_path


class _Meant:
    """Requests as they are meant (``paths``), before anybody looks for a route; what they expect of nobody is left out."""

    def __init__(self, make: Callable[..., web.BaseRequest]) -> None:
        self._make = make

    def __call__(self, message: Any, *rest: Any) -> web.BaseRequest:
        expected = message.headers.get(hdrs.EXPECT)
        # HTTP lets a server not know an expectation; aiohttp fails over some.
        if expected is not None and expected.lower() != "100-continue":
            headers = message.headers.copy()
            del headers[hdrs.EXPECT]
            message = message._replace(headers=CIMultiDictProxy(headers))
        meant = meant_path(message.path)
        if meant != message.path:
            path, _, query = meant.partition("?")
            message = message._replace(path=meant, url=URL.build(path=path, query_string=query, encoded=True))
        return self._make(message, *rest)


class _Server(web.Server):
    """aiohttp's, with connections of ours."""

    def __init__(self, server: web.Server, connections: Connections, app: web.Application) -> None:
        super().__init__(
            server.request_handler,
            request_factory=_Meant(server.request_factory),
            handler_cancellation=server.handler_cancellation,
            loop=server._loop,
            **server._kwargs,
        )
        self._bounded = connections
        self._fast_path, self._bodies = app.get(FAST_PATH), app.get(BODIES)

    def __call__(self) -> web.RequestHandler:
        return FastConnection(
            self,
            connections=self._bounded,
            fast_path=self._fast_path,
            bodies=self._bodies,
            loop=self._loop,
            **self._kwargs,
        )


class BoundedRunner(web.AppRunner):
    """Runs an application that has ``LIMITS``."""

    async def _make_server(self) -> web.Server:
        return _Server(await super()._make_server(), Connections(self.app[LIMITS]), self.app)

"""Metrics, at their own port and at the gateway's: scrapes enter, Prometheus text or OpenMetrics leaves, whichever the scraper
accepts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from modelium.config import Settings
from modelium.gateway.http.browsers import GUARD, Guard, add_headers, guard_from_pages
from modelium.gateway.http.connections import LIMITS, Limits
from modelium.gateway.http.describing import TEXT, Reply, describes
from modelium.metrics import Recorder, collect
from modelium.values import Snapshot

if TYPE_CHECKING:
    from modelium.controller import Controller


class _Scrape(Collector):
    """One scrape in the form that prometheus_client's encoders take."""

    def __init__(self, snapshot: Snapshot, recorder: Recorder) -> None:
        self._snapshot = snapshot
        self._recorder = recorder

    def collect(self) -> Iterable[Metric]:
        return collect(self._snapshot, self._recorder)


class Metrics:
    """The handler."""

    def __init__(self, controller: Controller, recorder: Recorder) -> None:
        self._controller = controller
        self._recorder = recorder

    @describes("Metrics for Prometheus.", gives=Reply(content_type=TEXT, says="or OpenMetrics, whichever is accepted"))
    async def scrape(self, request: web.Request) -> web.Response:
        """``GET /metrics``."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        snapshot = await self._controller.snapshot()
        # In one turn of the loop, so that a model which appears next keeps its first counts.
        self._recorder.keep(self._controller.names())
        # In a thread: the text of 2,000 models takes a tenth of a second and more, in which requests must not stand still.
        body = await asyncio.to_thread(encode, _Scrape(snapshot, self._recorder))
        return web.Response(body=body, headers={"Content-Type": content_type})


def build_metrics_app(controller: Controller, settings: Settings, recorder: Recorder) -> web.Application:
    """The application of ``metrics.port``."""
    app = web.Application(middlewares=(guard_from_pages,))
    app[LIMITS] = Limits.of(settings.gateway)
    app[GUARD] = Guard.of_metrics(settings.gateway, settings.metrics.host)
    app.on_response_prepare.append(add_headers)
    app.router.add_get("/metrics", Metrics(controller, recorder).scrape)
    return app

"""The gateway's application: controller, Triton client and settings enter, an aiohttp application leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from modelium.api_keys import ApiKeys
from modelium.config import Settings
from modelium.gateway.asking import Asking
from modelium.gateway.http.bodies import BODIES, Bodies, give_back_bodies
from modelium.gateway.http.browsers import GUARD, Guard, add_headers, guard_from_pages
from modelium.gateway.http.connections import LIMITS, Limits
from modelium.gateway.http.counting import RECORDER, count_predictions
from modelium.gateway.http.deadline import MAX_TIMEOUT_S
from modelium.gateway.http.errors import ANSWER_REFUSAL, MAX_BODY_BYTES, answer_errors
from modelium.gateway.http.fast_path import FAST_PATH
from modelium.gateway.http.keys import API_KEYS, require_key
from modelium.gateway.http.runner import BoundedRunner
from modelium.gateway.http.telling import TELLING, Telling
from modelium.gateway.kserve import KServe
from modelium.gateway.media import Media
from modelium.gateway.neighbours import Neighbours, answer_refusal, answer_shaped_errors
from modelium.gateway.openai import STRICT, OpenAI, name_ignored
from modelium.gateway.openapi import OpenAPI as Document
from modelium.gateway.places import Places
from modelium.gateway.predict.apps import Apps
from modelium.gateway.predict.endpoint import Predict
from modelium.gateway.status.events import Events
from modelium.gateway.status.health import Health
from modelium.gateway.status.metrics_app import Metrics
from modelium.gateway.status.models import Models
from modelium.gateway.status.page import show_page
from modelium.gateway.status.trace import Trace
from modelium.metrics import Recorder

if TYPE_CHECKING:
    from modelium.controller import Controller
    from modelium.triton.client import TritonClient

# From the outside in.
_MIDDLEWARES = (
    guard_from_pages,
    count_predictions,
    give_back_bodies,
    answer_errors,
    answer_shaped_errors,
    require_key,
)


def build_app(controller: Controller, client: TritonClient, settings: Settings, metrics: Recorder) -> web.Application:
    """Routes and middlewares. Run it with ``build_runner``: cancelling depends on how it is run.

    Raises ``ConfigError`` where ``gateway.api_keys_file`` cannot be used.
    """
    gateway = settings.gateway
    app = web.Application(client_max_size=gateway.max_body_bytes, middlewares=_MIDDLEWARES)
    app[MAX_BODY_BYTES] = gateway.max_body_bytes
    app[ANSWER_REFUSAL] = answer_refusal
    app[STRICT] = gateway.strict
    app[MAX_TIMEOUT_S] = gateway.max_request_timeout_seconds
    app[RECORDER] = metrics
    places = Places.of(settings)
    app[TELLING] = Telling(controller, places)
    app[BODIES] = bodies = Bodies(gateway.max_buffered_bytes, stall_s=gateway.stall_timeout_seconds)
    app.on_cleanup.append(bodies.close)
    app[LIMITS] = Limits.of(gateway)
    app[GUARD] = Guard.of(gateway)
    app.on_response_prepare.append(add_headers)
    if gateway.api_keys_file is not None:
        app[API_KEYS] = ApiKeys(gateway.api_keys_file)
    app.router.add_get("/", show_page)
    asking = Asking(controller, client, metrics)
    openai = OpenAI(
        controller,
        asking,
        tool_parsers={name: chosen.tool_parser for name, chosen in settings.models.items() if chosen.tool_parser is not None},
        timeout_s=gateway.request_timeout_seconds,
        own_vllm=settings.triton.mode == "embedded",
    )
    app.add_routes(openai.routes_of_models())  # /predict/NAME/… is before /predict/NAME
    apps = Apps(controller, asking, timeout_s=gateway.request_timeout_seconds)
    predict = Predict(controller, asking, apps, timeout_s=gateway.request_timeout_seconds)
    neighbours = Neighbours(openai, asking, predict, timeout_s=gateway.request_timeout_seconds)
    app.add_routes(neighbours.routes_of_models())
    media = Media(openai.directory, asking, timeout_s=gateway.request_timeout_seconds)
    app.add_routes(media.routes_of_models())
    app.router.add_post("/predict/{model:.+}", predict.answer)
    for path in ("/apps/{model}", "/apps/{model}/{path:.*}"):
        app.router.add_route("*", path, apps.answer)
    kserve = KServe(controller, client, asking, gateway)
    app.add_routes(kserve.routes())
    app.on_cleanup.append(kserve.close)
    app[FAST_PATH] = kserve.fast_path(metrics, app[GUARD], app.get(API_KEYS), gateway.max_request_timeout_seconds)
    app.add_routes(openai.routes())
    app.add_routes(neighbours.routes())
    app.add_routes(media.routes())
    app.on_response_prepare.append(name_ignored)
    app.on_cleanup.append(openai.close)
    app.add_routes(Models(controller, timeout_s=gateway.request_timeout_seconds).routes())
    app.add_routes(Health(controller).routes())
    app.router.add_get("/trace", Trace(controller).show)
    app.router.add_get("/metrics", Metrics(controller, metrics).scrape)
    events = Events(controller, places, stall_s=gateway.stall_timeout_seconds)
    app.router.add_get("/events", events.show, allow_head=False)
    app.on_shutdown.append(events.close)
    app.add_routes(Document().routes())
    return app


def build_runner(app: web.Application) -> web.AppRunner:
    """How the application must run: a client that goes away cancels its handler, and with it the inference and the lease.

    Bodies are unpacked by ``read_body``, which counts what comes out.
    """
    return BoundedRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=10, auto_decompress=False)

"""The composition root: settings enter, the whole running system leaves.

``running()`` is the system as a context (tests and the demo use it), ``serve()`` the system until a signal.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from modelium.analysis import Analysts, Notebook
from modelium.collecting import keep_collections_short
from modelium.config import Settings, TritonSettings
from modelium.controller import Controller
from modelium.controller.scanner import Scanner
from modelium.decision_log import DecisionLog
from modelium.devices import Devices
from modelium.errors import ConfigError, TritonError
from modelium.gateway.app import build_app, build_runner
from modelium.gateway.http.connections import raise_descriptor_limit
from modelium.gateway.kserve_grpc import GrpcFront
from modelium.gateway.status.metrics_app import build_metrics_app
from modelium.guarded.addresses import claim_addresses
from modelium.guarded.supervisor import Supervisor
from modelium.ledger import Ledger
from modelium.metrics import Recorder
from modelium.preflight import listeners, prepare_directories
from modelium.ray import ELSEWHERE, RayService
from modelium.repository import ModelRepository, RayPlace, writable_runtimes
from modelium.repository.claim import claim_repository
from modelium.runtime_env import inspect, read_ray
from modelium.trail import Trail
from modelium.triton.client import TritonClient
from modelium.triton.embedded import EmbeddedServer
from modelium.triton.external import ExternalServer
from modelium.values import RayFacts
from modelium.watcher import Watcher

log = logging.getLogger(__name__)

_SWITCH_S = 0.0005  # of threads: beside one that parses a body, each turn of the loop waits for so long (Python's own: 5 ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The running system: where it answers, and its parts. ``failed`` is done when it cannot go on.

    ``grpc_url``: ``host:port``, "" without gRPC.
    """

    controller: Controller
    client: TritonClient
    recorder: Recorder
    server: EmbeddedServer | ExternalServer
    analysts: Analysts
    gateway_url: str
    grpc_url: str
    metrics_url: str
    failed: asyncio.Future[None]


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Start everything and yield; on the way out end everything, Triton and its shared memory included.

    The gateway answers at once, before Triton is up: requests that come early wait like all others.
    """
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.to_thread(prepare_directories, settings)
        stack.enter_context(claim_repository(settings.triton.model_repository))
        yield await stack.enter_async_context(_started(settings))


@contextlib.asynccontextmanager
async def _started(settings: Settings) -> AsyncIterator[Running]:
    server, triton = await _claim(settings)
    client = TritonClient(
        http_url=triton.http_url,
        grpc_url=triton.grpc_url,
        log_path=server.log_path if isinstance(server, EmbeddedServer) else None,
        headers=server.headers,
    )
    recorder = Recorder()
    runtimes = writable_runtimes()
    ledger = Ledger.load(triton.state_directory / "ledger.json")
    await asyncio.to_thread(ledger.keep_owner)
    ray = RayService.of(settings, await asyncio.to_thread(_look_for_ray, settings), owner=ledger.owner)
    place = RayPlace.of(settings.ray, ledger.owner)
    repository = ModelRepository(triton.model_repository, path_mapping=triton.path_mapping, ray=place)
    analysts = Analysts(await asyncio.to_thread(Notebook, triton.state_directory))
    trail = Trail(triton.state_directory, most_bytes=settings.gateway.trace_bytes) if settings.gateway.trace_bytes else None
    decisions = await asyncio.to_thread(DecisionLog, triton.state_directory / "decisions.jsonl")
    controller = Controller(
        settings,
        client=client,
        repository=repository,
        devices=Devices(
            host_memory=settings.devices.host_memory,
            gpu_memory_fraction=settings.devices.gpu_memory_fraction,
            nursery=triton.state_directory.absolute() / "nursery" if isinstance(server, EmbeddedServer) else None,
        ),
        ledger=ledger,
        recorder=recorder,
        backends=lambda: server.backends & runtimes,
        vllm=lambda: server.vllm,
        server_pid=lambda: server.pid,
        ray=ray,
        analysts=analysts,
        trail=trail,
        decisions=decisions,
        expects=server.nurseries.expect if isinstance(server, EmbeddedServer) else lambda runtime, modules: None,
        importing=server.nurseries.importing if isinstance(server, EmbeddedServer) else dict,
    )
    discovery = settings.orchestration.model_discovery
    scanner = Scanner(
        Watcher(discovery.watch_directories, settle_seconds=discovery.settle_seconds),
        controller.post,
        interval_s=discovery.scan_interval_seconds,
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(decisions.close)
        if isinstance(server, EmbeddedServer):
            stack.push_async_callback(server.stop)
        stack.push_async_callback(client.close)
        gateway = build_runner(build_app(controller, client, settings, recorder))  # first: it may find the keys unusable
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        supervisor = Supervisor(server, on_up=controller.server_up, on_down=_FirstFailureEnds(controller, failed).on_down)
        await stack.enter_async_context(
            _running_tasks(
                {
                    "controller": controller.run,
                    "scanner": scanner.run,
                    "triton": supervisor.run,
                    "ray": partial(ray.run, on_up=controller.ray_up, on_down=controller.ray_down),
                    **({"trail": trail.run} if trail is not None else {}),
                },
                failed,
            )
        )
        gateway_url = await _listen(stack, gateway, "gateway", settings.gateway.host, settings.gateway.port)
        grpc_url = ""
        if settings.gateway.grpc_port is not None:
            front = GrpcFront(controller, client, settings, recorder)
            stack.push_async_callback(front.stop)
            grpc_url = await front.start()
        metrics_url = ""
        if settings.metrics.enabled:
            metrics = build_runner(build_metrics_app(controller, settings, recorder))
            metrics_url = await _listen(stack, metrics, "metrics", settings.metrics.host, settings.metrics.port)
        stack.callback(controller.turn_away)
        yield Running(
            controller=controller,
            client=client,
            recorder=recorder,
            server=server,
            analysts=analysts,
            gateway_url=gateway_url,
            grpc_url=grpc_url,
            metrics_url=metrics_url,
            failed=failed,
        )


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises what made it impossible to go on (no runtime, a port that is taken …)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    raise_descriptor_limit()
    sys.setswitchinterval(_SWITCH_S)
    async with running(settings) as modelium:
        collecting = asyncio.create_task(keep_collections_short(lambda: modelium.analysts.answered))
        log.info("the gateway answers at %s%s", modelium.gateway_url, modelium.grpc_url and f", gRPC at {modelium.grpc_url}")
        if settings.gateway.open_to_all:
            log.warning("whoever reaches %s may use it: gateway.api_keys_file is not set", modelium.gateway_url)
        modelium.failed.add_done_callback(lambda _: stop.set())
        await stop.wait()
        collecting.cancel()
        if modelium.failed.done():
            modelium.failed.result()
        log.info("stopping")


def _look_for_ray(settings: Settings) -> RayFacts:
    """What Ray the model runtime has; blocking. A Triton elsewhere cannot be asked, and cannot have a Ray of ours."""
    if settings.triton.mode == "embedded":
        return read_ray(inspect(settings.triton.runtime_directory.absolute()))
    return RayFacts(missing=ELSEWHERE if settings.ray.own else None)


class _FirstFailureEnds:
    """A server that cannot even be started once is the user's to mend, now; later failures are the supervisor's."""

    def __init__(self, controller: Controller, failed: asyncio.Future[None]) -> None:
        self._controller = controller
        self._failed = failed

    def on_down(self, detail: str) -> None:
        if not self._controller.was_up() and not self._failed.done():
            self._failed.set_exception(TritonError(detail))
        self._controller.server_down(detail)


@contextlib.asynccontextmanager
async def _running_tasks(
    work: dict[str, Callable[[], Coroutine[object, object, None]]], failed: asyncio.Future[None]
) -> AsyncIterator[None]:
    """Run each until the end of the context; one that ends by itself is a failure of the whole."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not failed.done():
            failed.set_exception(task.exception() or RuntimeError(f"the {task.get_name()} task ended"))

    tasks = [asyncio.create_task(run(), name=name) for name, run in work.items()]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:  # the controller first: what ends from here on is no accident to heal
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if failed.done() and not failed.cancelled():
            failed.exception()  # seen: asyncio need not complain


async def _listen(stack: contextlib.AsyncExitStack, runner: web.AppRunner, section: str, host: str, port: int) -> str:
    """Serve ``runner`` and return its URL; port 0 takes a free one."""
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise ConfigError(
            f"{section}: cannot listen on {host}:{port} ({error.strerror}); choose another {section}.port"
        ) from error
    bound_host, bound_port = runner.addresses[0][:2]
    return f"http://{bound_host}:{bound_port}"


async def _claim(settings: Settings) -> tuple[EmbeddedServer | ExternalServer, TritonSettings]:
    """The server, and its settings with the addresses that it will have; whatever port is taken is said now."""
    triton = settings.triton
    if triton.mode == "external":
        claim_addresses(listeners(settings), who="Modelium")
        return ExternalServer(triton), triton
    server = EmbeddedServer(triton)
    try:
        await asyncio.to_thread(server.claim, listeners(settings))
    except BaseException:
        await server.stop()
        raise
    urls = {"http_url": server.http_url, "grpc_url": server.grpc_url, "metrics_url": server.metrics_url}
    return server, triton.model_copy(update=urls)

"""The controller's parts, put together. What enters: the settings and the rooms that it uses. What leaves: the parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from modelium.analysis import Analysts
from modelium.config import Settings
from modelium.controller.background import Background
from modelium.controller.events import Event
from modelium.controller.life.record import Record
from modelium.controller.loop import Loop
from modelium.controller.models import Models
from modelium.controller.news import Newsroom
from modelium.controller.passes import Passes
from modelium.controller.progress import Progress
from modelium.controller.queue import Bounds
from modelium.controller.read_aheads import ReadAheads
from modelium.controller.readings import Readings
from modelium.controller.residues import Residues
from modelium.controller.routing import Routing
from modelium.controller.server import Server
from modelium.controller.state import ControllerState
from modelium.controller.work import Work
from modelium.controller.world import World
from modelium.decision_log import DecisionLog
from modelium.ledger import Ledger
from modelium.metrics import Recorder
from modelium.ray import RayService
from modelium.values import LoadStage, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """``post`` puts an event into the queue; from the event loop's thread."""

    models: Models
    world: World
    state: ControllerState
    readings: Readings
    passes: Passes
    loop: Loop
    news: Newsroom
    progress: Progress
    post: Callable[[Event], None]


def _bounds(settings: Settings) -> Bounds:
    gateway = settings.gateway
    return Bounds(
        waiting=gateway.max_waiting,
        per_model=gateway.max_waiting_per_model,
        per_key=gateway.max_waiting_per_key,
        in_flight={name: chosen.max_in_flight for name, chosen in settings.models.items() if chosen.max_in_flight is not None},
    )


def assemble(
    settings: Settings,
    server: Server,
    *,
    ray: RayService,
    analysts: Analysts,
    ledger: Ledger,
    recorder: Recorder,
    decisions: DecisionLog,
) -> Parts:
    """Everything that turns for one Triton."""
    queue: asyncio.Queue[Event] = asyncio.Queue()
    post, background, state = queue.put_nowait, Background(), ControllerState()
    residues = Residues(post, server.devices, server.pid)
    readings = Readings(post, background, server, residues)
    world = World(settings, server, ray, readings, post, leaks=state.leaks)
    news = Newsroom()

    def enter(key: str, stage: LoadStage) -> None:
        model = models.get(key)
        if model is not None and model.record.state is State.LOADING:
            news.tell(key, State.LOADING, model.record.phase.reason, stage)

    progress = Progress(enter)

    def tell(record: Record, gone: bool) -> None:
        if gone or record.state is not State.LOADING:
            progress.ends(record.key)
        reason = "its folder was removed" if gone else record.phase.reason
        news.tell(record.key, None if gone else record.state, reason)

    work = Work(
        post,
        background,
        server,
        overrides=world.overrides,
        ray=ray,
        analysts=analysts,
        load_timeout_s=settings.triton.load_timeout_seconds,
        unload_timeout_s=settings.triton.unload_timeout_seconds,
        residues=residues,
        stage=progress.enters,
    )
    models = Models(
        work,
        world,
        ledger=ledger,
        recorder=recorder,
        context=world.context,
        post=post,
        state=state,
        decided=decisions.note,
        bounds=_bounds(settings),
        told=tell,
    )
    routing = Routing(models, world, state, ledger=ledger, recorder=recorder)
    passes = Passes(
        models,
        world,
        state,
        recorder,
        settle_adapters=routing.settle_adapters,
        read_aheads=ReadAheads(models, background, recorder, world.policies) if world.policies.read_ahead else None,
    )

    def remember(*, all_of_it: bool = False) -> None:
        for record in models.records():
            ledger.remember_arrivals(record.key, record.use.window.arrivals)
        ledger.save(all_of_it=all_of_it)

    async def end() -> None:
        await background.close()
        await work.close()
        remember(all_of_it=True)

    loop = Loop(
        queue,
        models,
        routing,
        passes,
        measure_every_s=settings.orchestration.policies.check_interval_seconds,
        is_up=lambda: state.server.up,
        begin=work.warm,
        remember=remember,
        end=end,
    )
    return Parts(
        models=models,
        world=world,
        state=state,
        readings=readings,
        passes=passes,
        loop=loop,
        news=news,
        progress=progress,
        post=post,
    )

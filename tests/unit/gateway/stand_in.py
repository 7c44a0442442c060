"""Stand-ins with the methods that the gateway uses: a controller whose models are set by the test, and a Triton that answers
from a function. Both are plain objects, so faults come exactly when a test wants them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import aiohttp
import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from modelium.config import GatewaySettings, Settings
from modelium.controller import Controller, Lease, Newsroom
from modelium.controller.askers import ASKER
from modelium.errors import Conflict, NoModelCalled, UnknownModel
from modelium.gateway import build_app, build_metrics_app, build_runner
from modelium.gateway.codecs import parse_body
from modelium.gateway.generation.huggingface import TextCall, text_call
from modelium.metrics import Recorder
from modelium.trail import Trail
from modelium.triton.client import TritonClient
from modelium.values import (
    Adapter,
    Asker,
    Decision,
    Device,
    DeviceKind,
    EnginePlan,
    Fleet,
    Footprint,
    LoadingStatus,
    ModelProfile,
    ModelStatus,
    Placement,
    Plan,
    Ray,
    Runtime,
    ServerStatus,
    Snapshot,
    State,
    Target,
    Task,
    Verb,
)
from tests.openapi import Checked

Tensors = Mapping[str, NDArray[Any]]
Answerer = Callable[[Tensors], Tensors]
Step = Tensors | Exception | asyncio.Event  # of a stream: a response, an error that ends it, or something to wait for


def profile_of(task: Task, name: str = "m", **changes: Any) -> ModelProfile:
    width = 3 if task in (Task.FEATURE_EXTRACTION, Task.SENTENCE_SIMILARITY, Task.IMAGE_FEATURE_EXTRACTION) else None
    profile = ModelProfile(
        name=name, path=Path("incoming") / name, task=task, library="transformers", architecture="X", embedding_width=width
    )
    return replace(profile, **changes)


def engine_of(*, max_model_len: int = 512, adapters: Sequence[Adapter] = ()) -> EnginePlan:
    return EnginePlan(
        engine_args={"max_model_len": max_model_len},
        devices=("host",),
        max_model_len=max_model_len,
        max_num_seqs=8,
        weight_bytes=1,
        kv_bytes=1,
        kv_bytes_per_token=1,
        kv_tokens=4 * max_model_len,
        activation_bytes=0,
        graph_bytes=0,
        overhead_bytes=0,
        adapters=tuple(adapters),
    )


def status_of(
    profile: ModelProfile,
    *,
    state: State = State.LOADED,
    max_batch_size: int = 32,
    runtime: Runtime = Runtime.PYTHON,
    engine: EnginePlan | None = None,
) -> ModelStatus:
    footprint = Footprint(estimated_bytes=1000, measured_bytes=900)
    placement = Placement(
        runtime=runtime,
        engine=engine,
        device_id="host",
        device_kind=DeviceKind.HOST,
        device_index=-1,
        footprint=footprint,
        max_batch_size=max_batch_size,
    )
    decision = Decision(
        at=time.monotonic() - 10, model=profile.name, verb=Verb.LOAD, rule="plan.3", reason="fits", placement=placement
    )
    return ModelStatus(
        name=profile.name,
        label=profile.name,
        path=profile.path,
        state=state,
        reason="serving",
        profile=profile,
        placement=placement,
        footprint=footprint,
        promised_bytes=950,
        held_bytes=800,
        idle_s=1.0,
        decisions=(decision,),
    )


@dataclass
class StandInController:
    """Knows the models it is given; a lease is granted at once unless ``refuse`` says otherwise."""

    models: dict[str, ModelStatus] = field(default_factory=dict)
    refuse: Exception | None = None
    never: bool = False  # leases wait for ever
    cold_s: float = 0.0
    ray: Ray = field(default_factory=Ray)
    ray_restarts: int = 0
    held: int = 0
    gone: list[str] = field(default_factory=list)
    calls: list[tuple[str, str, float]] = field(default_factory=list)
    trail: Trail | None = None
    is_alive: bool = True
    is_ready: bool = True
    released: asyncio.Event = field(default_factory=asyncio.Event)
    news: Newsroom = field(default_factory=Newsroom)
    askers: list[Asker] = field(default_factory=list)  # who asked for leases

    async def snapshot(self) -> Snapshot:
        device = Device(
            id="host", kind=DeviceKind.HOST, index=-1, name="memory", total_bytes=100, used_bytes=50, budget_bytes=75
        )
        return Snapshot(
            now=100.0,
            models=tuple(self.models.values()),
            fleet=Fleet(devices=(device,), ray=self.ray),
            server=self.server(),
            scanned=self.scanned(),
            ray_restarts=self.ray_restarts,
        )

    def server(self) -> ServerStatus:
        return ServerStatus(up=True, version="2.51.0")

    def scanned(self) -> bool:
        return True

    def names(self) -> frozenset[str]:
        return frozenset(self.models)

    def status(self, name: str) -> ModelStatus:
        if name not in self.models:
            raise NoModelCalled(name, f"the nearest names are {', '.join(self.models)}")
        return self.models[name]

    async def known_target(self, name: str, *, timeout_s: float) -> Target:
        return self.target(name)

    def target(self, name: str) -> Target:
        """``BASE:ADAPTER`` for the adapters that the model's profile has."""
        base, _, adapter = name.partition(":")
        if adapter and base not in self.models:
            raise UnknownModel(f"{base!r} is not here")
        status = self.status(base)
        language = status.profile.language if status.profile is not None else None
        if adapter and adapter not in [one.name for one in (language.adapters if language is not None else ())]:
            raise UnknownModel(f"{base!r} has no adapter {adapter!r}")
        return Target(model=base, adapter=adapter)

    def loading(self, name: str) -> LoadingStatus | None:
        return self.models[name].loading if name in self.models else None

    def under_load(self) -> tuple[str, ...]:
        return tuple(name for name, status in self.models.items() if status.loading is not None)

    async def explained(self, name: str) -> ModelStatus:
        return self.status(name)

    async def lease(self, name: str, *, timeout_s: float, on_wait: Callable[[], None] = lambda: None) -> Lease:
        status = self.status(name)
        self.askers.append(ASKER.get())
        if self.refuse is not None:
            raise self.refuse
        if self.never:
            on_wait()
            await asyncio.Event().wait()
        assert status.profile is not None and status.placement is not None
        self.held += 1
        lease = Lease(profile=status.profile, placement=status.placement, release=self._release)
        lease.cold, lease.waited_s = self.cold_s > 0, self.cold_s
        return lease

    def lease_now(self, name: str) -> Lease | None:
        status = self.models.get(name)
        if status is None or status.profile is None or status.placement is None or not status.state.serves:
            return None
        if self.refuse is not None or self.never or self.cold_s:
            return None
        self.askers.append(ASKER.get())
        self.held += 1
        return Lease(profile=status.profile, placement=status.placement, release=self._release)

    def _release(self) -> None:
        self.held -= 1
        self.released.set()

    def report_gone(self, name: str, detail: str) -> None:
        assert self.held, "reported without a lease"
        self.gone.append(detail)

    async def load(self, name: str, *, timeout_s: float) -> ModelStatus:
        self.calls.append(("load", name, timeout_s))
        return self.status(name)

    async def unload(self, name: str, *, timeout_s: float) -> ModelStatus:
        self.calls.append(("unload", name, timeout_s))
        return self.status(name)

    def pin(self, name: str, pinned: bool) -> ModelStatus:
        self.models[name] = replace(self.status(name), pinned=pinned)
        return self.models[name]

    def alive(self) -> bool:
        return self.is_alive

    def ready(self) -> bool:
        return self.is_ready

    def plan_with(self, dropped: ModelProfile) -> Plan:
        if dropped.name in self.models:
            raise Conflict(f"{dropped.name!r} is here already")
        return Plan(pressure={"host": f"{dropped.name} needs room"})

    def plan(self) -> Plan:
        status = next(iter(self.models.values()))
        return Plan(actions=status.decisions, decisions=status.decisions, pressure={"host": "91 % taken"})


@dataclass
class StandInTriton:
    """Answers inferences with ``answerer``, streams with the steps of ``streamer``; ``faults`` are raised first, one each."""

    answerer: Answerer = dict
    streamer: Callable[[Tensors], Iterable[Step]] = lambda inputs: ()
    faults: list[Exception] = field(default_factory=list)
    seen: list[Tensors] = field(default_factory=list)
    hang: bool = False
    started: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    http_url: str = ""  # of one that can be reached over HTTP
    http_headers: dict[str, str] = field(default_factory=dict)

    async def infer(self, name: str, inputs: Tensors, *, timeout_s: float | None = None) -> Tensors:
        self.seen.append(inputs)
        self.started.set()
        if self.faults:
            raise self.faults.pop(0)
        if self.hang:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return self.answerer(inputs)

    async def stream(self, name: str, inputs: Tensors, *, timeout_s: float | None = None) -> AsyncGenerator[Tensors, None]:
        self.seen.append(inputs)
        self.started.set()
        if self.faults:
            raise self.faults.pop(0)
        ended = False
        try:
            for step in self.streamer(inputs):
                match step:
                    case Exception():
                        ended = True
                        raise step
                    case asyncio.Event():
                        await step.wait()
                    case _:
                        yield step
            ended = True
        finally:
            if not ended:
                self.cancelled.set()


@dataclass
class Served:
    """A running gateway and what stands behind it."""

    url: str
    metrics_url: str
    controller: StandInController
    triton: StandInTriton
    recorder: Recorder
    http: aiohttp.ClientSession
    runner: web.AppRunner

    @property
    def by_aiohttp(self) -> int:
        """How many requests aiohttp's server has answered."""
        assert self.runner.server is not None
        return self.runner.server.requests_count

    def serve(self, profile: ModelProfile, answerer: Answerer | None = None, *, max_batch_size: int = 32) -> str:
        """Serve ``profile`` and give its URL."""
        self.controller.models[profile.name] = status_of(profile, max_batch_size=max_batch_size)
        if answerer is not None:
            self.triton.answerer = answerer
        return f"{self.url}/predict/{profile.name}"

    def serve_vllm(
        self,
        profile: ModelProfile,
        streamer: Callable[[Tensors], Iterable[Step]] = lambda inputs: (),
        *,
        adapters: Sequence[Adapter] = (),
    ) -> str:
        """Serve ``profile`` with vLLM, whose answers are the steps of ``streamer``; gives its URL."""
        engine = engine_of(adapters=adapters)
        self.controller.models[profile.name] = status_of(profile, runtime=Runtime.VLLM, engine=engine)
        self.triton.streamer = streamer
        return f"{self.url}/predict/{profile.name}"


@asynccontextmanager
async def served(**gateway: Any) -> AsyncIterator[Served]:
    controller, triton, recorder = StandInController(), StandInTriton(), Recorder()
    settings = Settings(gateway=GatewaySettings(**gateway))
    app = build_app(cast("Controller", controller), cast("TritonClient", triton), settings, recorder)
    checked = Checked()
    app.on_response_prepare.append(checked.check)
    runners = [build_runner(app), build_runner(build_metrics_app(cast("Controller", controller), settings, recorder))]
    try:
        urls = [await _listen(runner) for runner in runners]
        async with aiohttp.ClientSession() as http:
            yield Served(
                url=urls[0],
                metrics_url=urls[1],
                controller=controller,
                triton=triton,
                recorder=recorder,
                http=http,
                runner=runners[0],
            )
    finally:
        for runner in runners:
            await runner.cleanup()
    assert not checked.faults, "\n".join(checked.faults)  # what was answered is what the OpenAPI document says


async def _listen(runner: web.AppRunner) -> str:
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"


def text_asked(body: object) -> TextCall:
    """What ``body`` asks of a generator of text."""
    return text_call(parse_body(Task.TEXT_GENERATION, "application/json", json.dumps(body).encode()))


def texts(*rows: list[str]) -> NDArray[np.object_]:
    """A BYTES output."""
    array = np.empty((len(rows), len(rows[0])), dtype=np.object_)
    for index, row in enumerate(rows):
        array[index, :] = [item.encode() for item in row]
    return array


def response(
    text: str,
    finish_reason: str | None = None,
    *,
    tokens: int = 1,
    prompt_tokens: int = 3,
    logprobs: Sequence[Mapping[str, Mapping[str, Any]]] | None = None,
) -> Tensors:
    """One response of vLLM's backend. ``logprobs``: a token each, by id, as the stock backend's JSON has them."""
    outputs: dict[str, NDArray[Any]] = {
        "text_output": texts([text])[0],
        "finish_reason": texts([str(finish_reason)])[0],
        "num_input_tokens": np.array([prompt_tokens], dtype=np.uint32),
        "num_output_tokens": np.array([tokens], dtype=np.uint32),
    }
    if logprobs is not None:
        outputs["logprobs"] = texts([json.dumps(list(logprobs))])[0]
    return outputs


def numbers(*rows: Sequence[float], dtype: Any = np.float32) -> NDArray[Any]:
    return np.array(rows, dtype=dtype)


def repeated(row: Tensors) -> Answerer:
    """Answers every row of a request with ``row`` (whose arrays have one row)."""

    def answer(inputs: Tensors) -> Tensors:
        count = len(next(iter(inputs.values())))
        return {name: np.repeat(array, count, axis=0) for name, array in row.items()}

    return answer

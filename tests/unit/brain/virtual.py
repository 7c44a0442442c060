"""A device in virtual time: requests enter, ``plan()`` decides, and what each request waited leaves.

The rules of admission are the controller's, in few words: a loaded model gives leases, one that drains gives none for another's
turn, a load answers all who wait, an unload begins when the last lease is back or the time for that is over.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from modelium.brain import usage as use
from modelium.brain.plan import plan
from modelium.brain.turns import TURN_RULE
from modelium.brain.usage import UsageWindow
from modelium.values import Demand, Device, Fleet, Footprint, ModelView, Observed, Placement, Plan, Policies, State, Verb
from tests.unit.brain.worlds import placed, profile

DRAIN_S, TICK_S, DEADLINE_S = 30.0, 10.0, 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    at: float
    model: str
    seconds: float = 0.2


@dataclass(slots=True, kw_only=True)
class Resident:
    """A model of the virtual device."""

    name: str
    size: int
    load_s: float = 2.0
    unload_s: float = 0.5
    pinned: bool = False
    want: Demand = Demand.NONE
    state: State = State.UNLOADED
    window: UsageWindow = field(default_factory=UsageWindow)
    waiters: list[Request] = field(default_factory=list)
    leases: int = 0
    loaded_at: float = 0.0
    placement: Placement | None = None
    rule: str = ""
    yields_to: str = ""
    drain_until: float = 0.0

    @property
    def held(self) -> int:
        return self.size if self.state in (State.LOADING, State.LOADED, State.DRAINING, State.UNLOADING) else 0

    @property
    def demand(self) -> Demand:
        if self.waiters:
            return Demand.REQUEST
        return Demand.POLICY if self.pinned else self.want

    def view(self, now: float) -> ModelView:
        return ModelView(
            name=self.name,
            state=self.state,
            profile=profile(self.name),
            footprint=Footprint(estimated_bytes=self.size, measured_bytes=self.size),
            placement=self.placement,
            usage=use.usage(self.window, in_flight=self.leases, now=now),
            pinned=self.pinned,
            demand=self.demand,
            demand_since=self.waiters[0].at if self.waiters else 0.0,
            waiting=len(self.waiters),
            loaded_at=self.loaded_at,
            load_seconds=self.load_s,
            bytes_held=self.held,
        )


@dataclass(slots=True)
class VirtualDevice:
    """``run()`` returns what each request waited, None for one that was not answered within ``DEADLINE_S``."""

    device: Device
    models: dict[str, Resident]
    policies: Policies = field(default_factory=Policies)
    decide: Callable[[Observed], Plan] = plan  # another one is for comparison (``bench/sharing.py``)
    now: float = 0.0
    waits: list[tuple[Request, float | None]] = field(default_factory=list)
    loads: int = 0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0
    _again_at: float = float("inf")  # the one pending look: a new one a pass would multiply them

    def run(self, requests: Sequence[Request]) -> list[tuple[Request, float | None]]:
        for request in requests:
            self._at(request.at, lambda request=request: self._arrive(request))  # type: ignore[misc]
        self._at(0.0, self._tick)
        while len(self.waits) < len(requests):
            self.now, _, happens = heapq.heappop(self._events)
            happens()
            self._pass()
        return self.waits

    def observed(self) -> Observed:
        views = tuple(m.view(self.now) for m in self.models.values() if m.held or m.demand)
        return Observed(now=self.now, models=views, fleet=Fleet(devices=(self.device,)), policies=self.policies)

    def _at(self, instant: float, happens: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (instant, self._count, happens))

    def _tick(self) -> None:
        self._at(self.now + TICK_S, self._tick)

    def _arrive(self, request: Request) -> None:
        model = self.models[request.model]
        model.window = use.ask(model.window, self.now)
        if model.state is State.DRAINING and not (model.rule == TURN_RULE and self.models[model.yields_to].waiters):
            model.state = State.LOADED
        if model.state is State.LOADED:
            self._grant(model, request)
        else:
            model.waiters.append(request)
            self._at(request.at + DEADLINE_S, lambda: self._give_up(model, request))

    def _give_up(self, model: Resident, request: Request) -> None:
        if request in model.waiters:
            model.waiters.remove(request)
            self.waits.append((request, None))

    def _grant(self, model: Resident, request: Request) -> None:
        self.waits.append((request, self.now - request.at))
        model.leases += 1
        self._at(self.now + request.seconds, lambda: self._end(model))

    def _end(self, model: Resident) -> None:
        model.leases = max(0, model.leases - 1)
        model.window = use.touch(model.window, self.now)

    def _pass(self) -> None:
        made = self.decide(self.observed())
        for action in made.actions:
            model = self.models[action.model]
            if action.verb is Verb.LOAD and action.placement is not None:
                model.state, model.placement = State.LOADING, action.placement
                self.loads += 1
                self._at(self.now + model.load_s, lambda model=model: self._loaded(model))  # type: ignore[misc]
            elif action.verb is Verb.UNLOAD:
                model.state, model.rule, model.yields_to = State.DRAINING, action.rule, action.beneficiary
                model.drain_until = self.now + DRAIN_S
                self._at(model.drain_until, lambda: None)
        if self._again_at <= self.now:
            self._again_at = float("inf")
        if made.again_at is not None and made.again_at < self._again_at:
            self._again_at = max(made.again_at, self.now + 1e-6)
            self._at(self._again_at, lambda: None)
        for model in self.models.values():
            if model.state is State.DRAINING and (not model.leases or self.now >= model.drain_until):
                model.state, model.leases = State.UNLOADING, 0
                self._at(self.now + model.unload_s, lambda model=model: self._unloaded(model))  # type: ignore[misc]

    def _loaded(self, model: Resident) -> None:
        model.state, model.loaded_at, model.want = State.LOADED, self.now, Demand.NONE
        model.window = use.start(self.now, model.window)
        waiters, model.waiters = model.waiters, []
        for request in waiters:
            self._grant(model, request)

    def _unloaded(self, model: Resident) -> None:
        model.state, model.placement = State.UNLOADED, None


def resident(name: str, size: int, device: Device, **changes: object) -> Resident:
    """Loaded and never asked."""
    model = Resident(name=name, size=size, state=State.LOADED, placement=placed(size, device), loaded_at=-1000.0)
    return replace(model, **changes)  # type: ignore[arg-type]

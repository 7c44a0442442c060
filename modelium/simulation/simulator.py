"""Modelium in virtual time: a trace, models and a fleet enter; the controller's own code decides; what requests waited leaves.

Whatever is decided is decided by the controller: its lives (``life.step`` by its table), ``Models``, ``Admission``, ``Passes``
and ``brain.plan``. Here are only the clock and the ends of work: a heap of plain tuples.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelium.controller.admission import Admission
from modelium.controller.events import About, Event
from modelium.controller.leases import Lease
from modelium.controller.life import events as happens
from modelium.controller.life.phases import Loaded
from modelium.controller.model import Model
from modelium.controller.models import Models
from modelium.controller.passes import Passes
from modelium.controller.queue import Bounds
from modelium.controller.server import KnownServer
from modelium.controller.state import ControllerState
from modelium.errors import ModeliumError
from modelium.ledger import Ledger
from modelium.metrics import Recorder
from modelium.simulation.inputs import SimulatedModel
from modelium.simulation.tally import Outcome, Tally
from modelium.simulation.traces import Trace
from modelium.simulation.world import VirtualWorld, record_of
from modelium.values import Fleet, Policies

_TURN_S = 0.001  # a turn of the controller's loop takes about so long; what comes meanwhile shares the next pass
_ARRIVALS_A_REPORT = 1_000
_READS_A_REPORT = 10_000
_QUIET_S = 600.0  # at least, before readings that could say nothing new are skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What holds for all policies. ``request_timeout_s``: the deadline of every request; ``max_waiting``: how many may wait,
    ``max_waiting_per_model``: for one model (None: as many)."""

    request_timeout_s: float = 300.0
    max_waiting: int = 512
    max_waiting_per_model: int | None = None
    drain_timeout_s: float = 30.0
    measure_every_s: float = 10.0
    usage_window_s: float = 60.0


class Request:
    """One that waits, as the controller sees it (a ``Waiter``)."""

    __slots__ = ("_simulator", "answered", "at", "duration_s", "index")

    def __init__(self, simulator: Simulator, at: float, index: int, duration_s: float) -> None:
        self._simulator = simulator
        self.at = at
        self.index = index
        self.duration_s = duration_s
        self.answered = False

    def done(self) -> bool:
        return self.answered

    def set_result(self, lease: Lease, /) -> None:
        self.answered = True
        self._simulator.begin(self, lease)

    def set_exception(self, error: BaseException, /) -> None:
        self.answered = True
        self._simulator.refuse(self)


class Simulator:
    """One policy, one trace. ``models``: in the order of the trace's names, then those that nobody asks."""

    def __init__(
        self,
        models: Sequence[SimulatedModel],
        fleet: Fleet,
        policies: Policies,
        conditions: Conditions,
        *,
        policy: str = "",
    ) -> None:
        self._sizes = [model.bytes for model in models]
        self._conditions = conditions
        self._policy = policy
        self._heap: list[tuple[float, int, int, happens.LifeEvent | Lease | Request]] = []
        self._order = itertools.count()
        self._pass_at = math.inf
        self._passed_at = -math.inf
        self._open = 0  # requests that wait or are being answered
        self._using = [0] * len(models)
        self._completed = [0] * len(models)
        self._read_next: set[int] = set()
        self.tally = Tally(len(models), sum(device.budget_bytes for device in fleet.devices))
        self.world = VirtualWorld(
            models,
            fleet,
            policies,
            self.tally,
            after=self._after,
            drain_timeout_s=conditions.drain_timeout_s,
            usage_window_s=conditions.usage_window_s,
        )
        state, recorder = ControllerState(server=KnownServer(up=True, starts=1)), Recorder()
        self.models = Models(
            self.world,
            self.world,
            ledger=Ledger(Path("/nowhere"), clock=lambda: self.world.now),
            recorder=recorder,
            context=self.world.context,
            post=self._post,
            state=state,
            bounds=Bounds(waiting=conditions.max_waiting, per_model=conditions.max_waiting_per_model),
        )
        self._admission = Admission(self.models)
        self._passes = Passes(self.models, self.world, state, recorder, settle_adapters=lambda: None)
        self._each = [self.models.add(record_of(model)) for model in models]

    def run(self, trace: Trace, *, progress: Callable[[float], None] = lambda _: None, starts_at: float = 1e6) -> Outcome:
        """From the first arrival until the last request is answered. ``progress`` gets the part that is done.

        ``starts_at``: of the virtual clock, so that no instant of before is taken for one of the trace.
        """
        began, world, heap = time.monotonic(), self.world, self._heap
        world.now = starts_at
        self._pass_at = starts_at
        every_s, quiet_s, quiet_since = self._conditions.measure_every_s, self._quiet_s(), starts_at
        read_at = starts_at + every_s
        count, reads, arrivals = 0, 0, trace.arrivals()
        arrival = next(arrivals, None)
        arrives_at = starts_at + arrival[0] if arrival is not None else math.inf
        while arrival is not None or self._open:
            work_at = heap[0][0] if heap else math.inf
            at = min(arrives_at, work_at, self._pass_at, read_at)
            world.now = at
            if arrival is not None and arrives_at == at:
                quiet_since = at
                self._arrive(arrival[1], arrival[2])
                count += 1
                if count % _ARRIVALS_A_REPORT == 0:
                    progress(count / len(trace))
                arrival = next(arrivals, None)
                arrives_at = starts_at + arrival[0] if arrival is not None else math.inf
            elif work_at == at:
                quiet_since = at
                self._happen()
            elif read_at == at:
                self._read()
                reads += 1
                if reads % _READS_A_REPORT == 0:
                    progress(count / len(trace))
                read_at = at + every_s
            else:
                self.turn(at)
                is_quiet = at - quiet_since > quiet_s and not heap and not self._read_next
                if is_quiet and read_at < arrives_at < self._pass_at:  # until then each reading would say what the last one did
                    read_at += math.ceil((arrives_at - read_at) / every_s) * every_s
        progress(1.0)
        outcome = self.tally.outcome(self._policy, started=starts_at, now=world.now)
        return replace(outcome, seconds=time.monotonic() - began)

    def _quiet_s(self) -> float:
        """After so long without an event, time alone changes nothing: every threshold is past. Never, where models are
        expected by the hour of the day."""
        policies = self.world.policies
        if policies.preload:
            return math.inf
        thresholds = (policies.evict_after_idle_seconds, policies.turn_seconds, policies.min_residence_seconds or 0.0)
        return max(_QUIET_S, 4 * max(thresholds))

    # -- requests ----------------------------------------------------------------------------------------------------

    def _arrive(self, index: int, duration_s: float) -> None:
        model, now = self._each[index], self.world.now
        self.tally.requests += 1
        try:
            lease = self._admission.ask(model, now)
        except ModeliumError:
            self.tally.refused += 1
            return
        if lease is not None:
            self._open += 1
            self._use(index, now, min(duration_s, self._conditions.request_timeout_s), lease)
            if duration_s > self._conditions.request_timeout_s:
                self.tally.missed += 1
            return
        self.tally.cold_starts += 1
        self._open += 1
        request = Request(self, now, index, duration_s)
        self._push(now + self._conditions.request_timeout_s, index, request)
        self.models.requests.join(model, request)

    def begin(self, request: Request, lease: Lease) -> None:
        """Its model serves."""
        now = self.world.now
        waited_s = now - request.at
        self.tally.wait(waited_s)
        left_s = max(0.0, self._conditions.request_timeout_s - waited_s)
        if request.duration_s > left_s:
            self.tally.missed += 1
        self._use(request.index, now, min(request.duration_s, left_s), lease)

    def refuse(self, request: Request) -> None:
        """It waited in vain."""
        self.tally.refuse(self.world.now - request.at)
        self._open -= 1

    def _give_up(self, request: Request) -> None:
        if not request.answered:
            request.answered = True
            self._open -= 1
            self.tally.wait(self.world.now - request.at)
            self.tally.missed += 1
            self.models.requests.leave(self._each[request.index], request)

    def _use(self, index: int, now: float, seconds: float, lease: Lease) -> None:
        self._push(now + seconds, index, lease)
        self._using[index] += 1
        if self._using[index] == 1:
            self.tally.use(self._sizes[index], now)

    def _end(self, index: int, lease: Lease) -> None:
        lease.release()
        self._open -= 1
        self._completed[index] += 1
        self._read_next.add(index)
        self._using[index] -= 1
        if not self._using[index]:
            self.tally.use(-self._sizes[index], self.world.now)

    # -- what happens, and passes ------------------------------------------------------------------------------------

    def _push(self, at: float, index: int, what: happens.LifeEvent | Lease | Request) -> None:
        heapq.heappush(self._heap, (at, next(self._order), index, what))

    def _after(self, seconds: float, index: int, event: happens.LifeEvent) -> None:
        self._push(self.world.now + seconds, index, event)

    def _happen(self) -> None:
        _, _, index, what = heapq.heappop(self._heap)
        if isinstance(what, Lease):
            self._end(index, what)
            return
        if isinstance(what, Request):
            self._give_up(what)
            return
        if isinstance(what, happens.HasLoaded):
            self._completed[index] = 0  # Triton's counter begins anew
        elif isinstance(what, happens.HasUnloaded):
            self.tally.unloaded(index, self._sizes[index], self.world.now)
        self.models.apply(self._each[index], what)
        self._wake()

    def _post(self, event: Event) -> None:
        assert not isinstance(event, About), f"work could not begin: {event}"
        self._wake()

    def _wake(self) -> None:
        self._pass_at = min(self._pass_at, max(self.world.now, self._passed_at + _TURN_S))

    def turn(self, now: float) -> None:
        """One of the controller's loop: a pass, and the instant of the next."""
        self._passed_at, self._pass_at = now, math.inf
        self.tally.passes += 1
        self._passes.run(now)
        next_at = self._passes.next_at(now)
        if next_at is not None:
            self._pass_at = min(self._pass_at, max(next_at, now + _TURN_S))

    def _read(self) -> None:
        """Triton's counters, of those that moved: the others' readings would say what the last one said."""
        moved, self._read_next = self._read_next, set()
        for index in sorted(moved):
            model: Model = self._each[index]
            if isinstance(model.record.phase, Loaded):
                self.models.apply(model, happens.Read(started_at=self.world.now, completed=self._completed[index]))
        self._wake()

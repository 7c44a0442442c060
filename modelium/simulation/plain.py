"""A server that knows no rules but an order: a trace, models and a fleet enter, what requests waited leaves.

It loads as Modelium may: so many loads side by side on a device, one load for all who wait, nothing promised twice. Who waited
longest chooses first: a device with room, else the one where the least is lost. What is in use stays until somebody has waited
for ``turn_seconds``, and then takes no new requests. There is no residence.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from enum import IntEnum

from modelium.simulation.inputs import SimulatedModel
from modelium.simulation.orders import PLAIN
from modelium.simulation.places import Place, PlainModel, Stage, Waiter, groups, least_loss
from modelium.simulation.simulator import Conditions
from modelium.simulation.tally import Outcome, Tally
from modelium.simulation.traces import Trace
from modelium.values import Fleet, Policies

_ARRIVALS_A_REPORT = 20_000
_LOOKED_AT = 64  # of those who wait, when something changes on a device


class _What(IntEnum):
    ENDS = 0
    HAS_LOADED = 1
    HAS_UNLOADED = 2
    GIVES_UP = 3
    HAS_ITS_TURN = 4
    IDLE_TOO_LONG = 5
    DRAINED_TOO_LONG = 6


class PlainServer:
    """One order, one trace."""

    def __init__(
        self,
        models: Sequence[SimulatedModel],
        fleet: Fleet,
        policies: Policies,
        conditions: Conditions,
        *,
        policy: str,
        trace: Trace,
        starts_at: float = 1e6,
    ) -> None:
        self._order = PLAIN[policy](trace, models, starts_at, policies.evict_after_idle_seconds)
        self._trace = trace
        self._policy = policy
        self._policies = policies
        self._conditions = conditions
        self._starts_at = self._now = starts_at
        self._places = [Place(device, device.budget_bytes) for device in fleet.devices]
        self._models = [
            PlainModel(model, model.pinned or model.always_loaded, bool(groups(model, self._places))) for model in models
        ]
        self._pending: dict[int, None] = {}  # who waits and has no place, the longest waiting first
        self._waiting = 0
        self._open = 0  # requests that wait or are being answered
        self._events: list[tuple[float, int, _What, int, object]] = []
        self._numbers = itertools.count()
        self.tally = Tally(len(models), sum(device.budget_bytes for device in fleet.devices))

    def run(self, *, progress: Callable[[float], None] = lambda _: None) -> Outcome:
        """From the first arrival until the last request is answered. ``progress`` gets the part that is done."""
        began, events, start, total = time.monotonic(), self._events, self._starts_at, len(self._trace)
        for index, model in enumerate(self._models):
            if model.protected and model.possible:
                self._want(index, model)
        for count, (at, index, duration_s) in enumerate(self._trace.arrivals()):
            at += start
            while events and events[0][0] <= at:
                self._happen()
            self._now = at
            self._arrive(index, duration_s)
            if count % _ARRIVALS_A_REPORT == 0:
                progress(count / total)
        while self._open:
            self._happen()
        progress(1.0)
        outcome = self.tally.outcome(self._policy, started=start, now=self._now)
        return replace(outcome, seconds=time.monotonic() - began)

    # -- requests ----------------------------------------------------------------------------------------------------

    def _arrive(self, index: int, duration_s: float) -> None:
        model, now, tally = self._models[index], self._now, self.tally
        tally.requests += 1
        self._order.ask(index)
        if model.state is Stage.LOADED:
            self._open += 1
            self._begin(index, model, duration_s, self._conditions.request_timeout_s)
            return
        if self._is_full(model) or not model.possible:
            tally.refused += 1
            return
        tally.cold_starts += 1
        self._open += 1
        waiter = Waiter(now, duration_s)
        model.waiters.append(waiter)
        self._waiting += 1
        self._push(now + self._conditions.request_timeout_s, _What.GIVES_UP, index, waiter)
        if len(model.waiters) == 1 and model.state is Stage.ABSENT and not model.places:
            self._want(index, model)

    def _is_full(self, model: PlainModel) -> bool:
        most, per_model = self._conditions.max_waiting, self._conditions.max_waiting_per_model
        return self._waiting >= most or (per_model is not None and len(model.waiters) >= per_model)

    def _begin(self, index: int, model: PlainModel, duration_s: float, left_s: float) -> None:
        if not model.leases:
            self.tally.use(model.spec.bytes, self._now)
            if not model.protected and model.state is Stage.LOADED:
                for place in model.places:
                    self._forget_idle(index, model, place)
                    place.busy[index] = None
        model.leases += 1
        if duration_s > left_s:
            self.tally.missed += 1
        self._push(self._now + min(duration_s, left_s), _What.ENDS, index, model.epoch)

    def _end(self, index: int, model: PlainModel, epoch: int) -> None:
        self._open -= 1
        if epoch != model.epoch:
            return
        model.leases -= 1
        if model.leases:
            return
        self.tally.use(-model.spec.bytes, self._now)
        if model.state is Stage.DRAINING:
            self._unload(index, model)
        else:
            self._idle(index, model)

    def _give_up(self, index: int, model: PlainModel, waiter: Waiter) -> None:
        if waiter.answered:
            return
        waiter.answered = True
        model.waiters.remove(waiter)
        self._waiting -= 1
        self._open -= 1
        self.tally.wait(self._now - waiter.at)
        self.tally.missed += 1
        if not model.waiters and not model.protected:
            self._pending.pop(index, None)

    # -- who comes ---------------------------------------------------------------------------------------------------

    def _want(self, index: int, model: PlainModel) -> None:
        model.since = self._now
        self._pending[index] = None
        self._push(self._now + self._policies.turn_seconds, _What.HAS_ITS_TURN, index, None)
        self._choose(index, model, self._places)

    def _choose(self, index: int, model: PlainModel, places: Sequence[Place]) -> bool:
        """Places for it, with those who have to go; False where there are none yet."""
        size, ranks = model.spec.bytes_each, model.spec.tensor_parallel
        allowed = groups(model.spec, self._places if ranks > 1 else places)
        limit = self._policies.loads_per_device
        for group in allowed:
            fits = [place for place in group if place.free - place.promised >= size]
            if len(fits) >= ranks:
                fits.sort(key=lambda place: (place.loads < limit, place.free - place.promised), reverse=True)
                self._promise(index, model, fits[:ranks], [])
                return True
        due = self._now >= model.since + self._policies.turn_seconds
        made = [
            best
            for group in allowed
            if (best := least_loss(group, model.spec, self._order, self._models, self._now, due=due)) is not None
        ]
        if not made:
            return False
        _, chosen, gone = min(made, key=lambda each: each[0])
        self._promise(index, model, chosen, gone)
        return True

    def _promise(self, index: int, model: PlainModel, places: Sequence[Place], victims: list[int]) -> None:
        self._pending.pop(index, None)
        model.places = tuple(places)
        for place in places:
            place.promised += model.spec.bytes_each
            place.queue.append(index)
        for victim in victims:
            self._let_go(victim, self._models[victim])
        self._start(places[0])

    def _start(self, place: Place) -> None:
        """Loads of those who were promised room, in their order, as far as it is there."""
        while place.queue:
            index = place.queue[0]
            model = self._models[index]
            size, there = model.spec.bytes_each, model.places
            gave_up = not model.waiters and not model.protected
            limit = self._policies.loads_per_device
            if not gave_up and any(each.queue[0] != index or each.loads >= limit or each.free < size for each in there):
                return
            for each in there:
                each.queue.remove(index)
                each.promised -= size
            if gave_up:
                model.places = ()
                self._start_all(each for each in there if each is not place)
                continue
            for each in there:
                each.free -= size
                each.loads += 1
            model.state = Stage.LOADING
            self.tally.load(index, model.spec.bytes, model.spec.load_seconds, self._now)
            self._push(self._now + model.spec.load_seconds, _What.HAS_LOADED, index, None)
            self._start_all(each for each in there if each is not place)

    def _start_all(self, places: Iterable[Place]) -> None:
        for place in places:
            self._start(place)

    def _loaded(self, index: int, model: PlainModel) -> None:
        for place in model.places:
            place.loads -= 1
        model.state, model.leases = Stage.LOADED, 0
        model.epoch += 1
        waiters, model.waiters = model.waiters, deque()
        self._waiting -= len(waiters)
        for waiter in waiters:
            waiter.answered = True
            waited_s = self._now - waiter.at
            self.tally.wait(waited_s)
            self._begin(index, model, waiter.duration_s, max(0.0, self._conditions.request_timeout_s - waited_s))
        if not waiters:
            self._idle(index, model)
        self._start_all(model.places)
        self._look_again(model.places)

    # -- who goes ----------------------------------------------------------------------------------------------------

    def _idle(self, index: int, model: PlainModel) -> None:
        if model.protected:
            return
        model.idle_since = self._now
        model.idle_worth = self._order.worth(index, self._now) if self._order.steady else 0.0
        for place in model.places:
            place.busy.pop(index, None)
            insort(place.idle, (model.idle_worth, index))
            place.idle_bytes += model.spec.bytes_each
        if self._order.idle_limit_s < math.inf:
            self._push(self._now + self._order.idle_limit_s, _What.IDLE_TOO_LONG, index, self._now)
        self._look_again(model.places)

    def _look_again(self, places: Sequence[Place]) -> None:
        """There may be room now for somebody who waits."""
        for place in places:
            for waiting in tuple(itertools.islice(self._pending, _LOOKED_AT)):
                model = self._models[waiting]
                due = self._now >= model.since + self._policies.turn_seconds
                if due or model.spec.bytes_each <= place.spare + place.idle_bytes:
                    self._choose(waiting, model, (place,))

    def _forget_idle(self, index: int, model: PlainModel, place: Place) -> None:
        if (model.idle_worth, index) in place.idle:
            place.idle.remove((model.idle_worth, index))
            place.idle_bytes -= model.spec.bytes_each

    def _let_go(self, index: int, model: PlainModel) -> None:
        worth = self._order.worth(index, self._now) if not self._order.steady else model.idle_worth
        self._order.lose(worth)
        for place in model.places:
            self._forget_idle(index, model, place)
            place.busy.pop(index, None)
            place.returning += model.spec.bytes_each
        if model.leases:
            model.state = Stage.DRAINING
            self._push(self._now + self._conditions.drain_timeout_s, _What.DRAINED_TOO_LONG, index, model.epoch)
        else:
            self._unload(index, model)

    def _unload(self, index: int, model: PlainModel) -> None:
        model.state = Stage.UNLOADING
        model.epoch += 1
        self.tally.unload()
        self._push(self._now + model.spec.unload_seconds, _What.HAS_UNLOADED, index, None)

    def _unloaded(self, index: int, model: PlainModel) -> None:
        places, size = model.places, model.spec.bytes_each
        for place in places:
            place.free += size
            place.returning -= size
        model.state, model.places, model.leases = Stage.ABSENT, (), 0
        self.tally.unloaded(index, model.spec.bytes, self._now)
        self._start_all(places)
        if model.waiters:
            self._want(index, model)
        self._look_again(places)

    # -- what happens ------------------------------------------------------------------------------------------------

    def _push(self, at: float, what: _What, index: int, about: object) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), what, index, about))

    def _happen(self) -> None:
        self._now, _, what, index, about = heapq.heappop(self._events)
        model = self._models[index]
        match what:
            case _What.ENDS:
                assert isinstance(about, int)
                self._end(index, model, about)
            case _What.HAS_LOADED:
                self._loaded(index, model)
            case _What.HAS_UNLOADED:
                self._unloaded(index, model)
            case _What.GIVES_UP:
                assert isinstance(about, Waiter)
                self._give_up(index, model, about)
            case _What.HAS_ITS_TURN:
                if index in self._pending:
                    self._choose(index, model, self._places)
            case _What.IDLE_TOO_LONG:
                places = model.places
                if places and model.idle_since == about and (model.idle_worth, index) in places[0].idle:
                    self._let_go(index, model)
            case _What.DRAINED_TOO_LONG:
                if model.state is Stage.DRAINING and model.epoch == about:
                    self.tally.use(-model.spec.bytes, self._now)
                    self._unload(index, model)

"""The loop: events enter, a pass follows — observe, plan, apply — and an instant is set for the next one.

A defect that one model provokes is logged and costs that event or that pass, never the loop.
"""

from __future__ import annotations

import asyncio
import logging
import time

from modelium.brain import plan as planner
from modelium.controller.desk import Desk
from modelium.controller.events import Event, Wake
from modelium.controller.pauses import Pauses
from modelium.controller.reactions import Reactions
from modelium.values import Observed, Plan, State, Verb

log = logging.getLogger(__name__)

_HEARTBEAT_S = 1.0


class Loop:
    """``run()`` is the one task that changes models. ``turned_at``: when it last began a turn; it does so every second."""

    def __init__(self, desk: Desk, reactions: Reactions, queue: asyncio.Queue[Event]) -> None:
        self._desk = desk
        self._reactions = reactions
        self._queue = queue
        self._policies = desk.settings.policies()
        self._timer: asyncio.TimerHandle | None = None
        self._again_at: float | None = None
        self.turned_at = time.monotonic()
        self.pauses = Pauses()

    async def run(self) -> None:
        """Turn until cancelled."""
        self._desk.work.warm()
        measuring = asyncio.create_task(self._measure_regularly(), name="measure regularly")
        watching = asyncio.create_task(self.pauses.watch(), name="watch for pauses")
        try:
            while True:
                self.turned_at = time.monotonic()
                try:
                    async with asyncio.timeout(_HEARTBEAT_S):
                        event = await self._queue.get()
                except TimeoutError:
                    continue
                self._handle(event)
                while not self._queue.empty():
                    self._handle(self._queue.get_nowait())
                self._pass()
        finally:
            measuring.cancel()
            watching.cancel()
            await self._desk.background.close()
            await self._desk.work.close()
            self._desk.ledger.save()

    def _handle(self, event: Event) -> None:
        try:
            self._reactions.react(event)
        except Exception:  # one model's trouble must not stop the others
            log.exception("an event could not be handled, a defect of Modelium: %r", event)

    def _pass(self) -> None:
        """Observe, plan, apply."""
        now = time.monotonic()
        try:
            self._reactions.prepare()
            if self._desk.books.server_up:
                self._apply(planner.plan(self.observe(now)))
            self._reactions.settle(now)
        except Exception:
            log.exception("a pass broke off, a defect of Modelium")
        self._set_timer(now)

    def observe(self, now: float) -> Observed:
        """Models that nobody wants and that occupy nothing are not the brain's business: thousands may lie there."""
        return Observed(
            now=now,
            models=tuple(
                m.view(now, self._desk.usage_window_s)
                for m in self._desk.books.models.values()
                if m.bytes_held or (m.demand and not m.removing)
            ),
            fleet=self._desk.fleet(),
            policies=self._policies,
            overrides=self._desk.overrides,
            capabilities=self._desk.capabilities(),
        )

    def _apply(self, plan: Plan) -> None:
        self._desk.books.room_is_wanted = plan.room_is_wanted
        self._again_at = plan.again_at
        for decision in plan.decisions:
            model = self._desk.books.models[decision.model]
            if model.remember(decision):
                self._desk.recorder.decision(decision.verb.value, decision.rule)
                log.info("%s: %s (%s) %s", decision.model, decision.verb, decision.rule, decision.reason)
            match decision.verb:
                case Verb.LOAD if decision.placement is not None:
                    self._desk.recorder.placed(decision.placement.device_id)
                    self._reactions.loads.begin_load(model, decision.placement, decision.reason)
                case Verb.UNLOAD:
                    self._desk.recorder.eviction(decision.rule, decision.at - model.loaded_at)
                    if decision.beneficiary and model.placement is not None:
                        self._desk.recorder.swap(model.placement.device_id)
                    self._reactions.loads.begin_unload(model, decision.rule, decision.reason, decision.beneficiary)
                case Verb.REFUSE:
                    self._reactions.loads.refuse(model, decision.reason)
                case Verb.WAIT if model.state is State.UNLOADED:
                    model.reason = decision.reason

    def _set_timer(self, now: float) -> None:
        """Wake for the next retry, the next end of a drain, or the instant from which who waits for room may have some."""
        instants = [
            m.retry_at
            for m in self._desk.books.models.values()
            if m.retry_at and m.retry_at > now and (m.demand or m.state is State.LOADED)
        ]
        instants += [m.drain_until for m in self._desk.books.models.values() if m.state is State.DRAINING and not m.reloading]
        instants += [self._again_at] if self._again_at is not None else []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if instants:
            delay = max(0.0, min(instants) - now)
            self._timer = asyncio.get_running_loop().call_later(delay, self._desk.post, Wake())

    async def _measure_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._desk.settings.orchestration.policies.check_interval_seconds)
            try:
                if self._desk.books.server_up:
                    self._reactions.outages.measure()
                self._desk.ledger.save()
            except Exception:
                log.exception("measuring broke off, a defect of Modelium")
            self._desk.post(Wake())

"""Admission: who gets a lease now, who waits, who is told why waiting would be in vain.

What enters: a model and a request for it. What leaves: leases, and the answers to those who wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

from modelium.brain import usage as use
from modelium.brain.turns import TURN_RULE
from modelium.controller.desk import Desk
from modelium.controller.events import Wake
from modelium.controller.leases import Lease
from modelium.controller.record import Model
from modelium.errors import DeadlineExceeded, ModeliumError, NotServable, QueueFull
from modelium.values import Demand, State

log = logging.getLogger(__name__)

_RETRY_AFTER_S = 5.0


class Admission:
    """Leases and those who wait: for a load, or (``when_unloaded``) for an unload."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._unload_waiters: dict[str, list[asyncio.Future[None]]] = {}

    def note(self, model: Model) -> None:
        """A request for it came, whether it is answered at once or waits."""
        model.window = use.ask(model.window, time.monotonic())

    def grant(self, model: Model) -> Lease:
        """One more lease on a model that serves."""
        assert model.serving is not None and model.placement is not None
        model.leases += 1
        deaths = model.deaths
        return Lease(
            profile=model.serving,
            placement=model.placement,
            release=partial(self._release, model),
            lost=lambda: model.deaths != deaths,
        )

    def _release(self, model: Model) -> None:
        model.leases -= 1
        model.window = use.touch(model.window, time.monotonic())
        if not model.leases and (model.state is State.DRAINING or self._desk.books.room_is_wanted):
            self._desk.post(Wake())

    def call_back(self, model: Model) -> bool:
        """A request came while a model drained. If only policy lets it go, it stays; True when it did.

        Not when it is another one's turn: a model that is asked all the time would be called back for ever.
        """
        if model.state is not State.DRAINING or not model.unload_rule.startswith("evict") or model.suspect:
            return False
        if model.unload_rule == TURN_RULE and self._waits(model.yields_to):
            return False
        model.become(State.LOADED, "a request came while it was drained: it stays")
        return True

    def resume(self, model: Model) -> bool:
        """A model drains for another one's turn, and nobody waits for that one any more: it stays, and answers. True if so."""
        if model.unload_rule != TURN_RULE or not self.call_back(model):
            return False
        self.answer_waiters(model)
        return True

    def _waits(self, key: str) -> bool:
        """Does somebody wait for the room that another model gives up for this one?"""
        model = self._desk.books.models.get(key)
        return model is not None and model.demand >= Demand.USER and model.state in (State.UNLOADED, State.FAILED)

    def obstacle(self, model: Model) -> NotServable | None:
        """Why waiting for this model would be in vain; None when it is worth waiting."""
        name, now = model.key, time.monotonic()
        if model.adapter is not None:
            return NotServable(f"{name!r} is a LoRA adapter, which answers through its base: ask for BASE:ADAPTER")
        if model.removing:
            return NotServable(f"{name!r}: its folder was removed")
        if model.state is State.FAILED:
            if model.retry_at is None:
                return NotServable(
                    f"{name!r} failed to load and is in quarantine until its folder changes (or POST /models/{name}/load): "
                    f"{model.reason}"
                )
            if model.retry_at > now:
                return NotServable(f"{name!r} failed to load, next try in {model.retry_at - now:.1f} s: {model.reason}")
        looked_at = bool(model.analyzed_signature) or model.candidate.conflict is not None
        if model.state in (State.INCOMPLETE, State.UNSUPPORTED) and looked_at:
            return NotServable(f"{name!r} is {model.state}: {model.reason}")
        return None

    async def wait(self, model: Model, timeout_s: float) -> Lease:
        """A lease as soon as it serves. Raises ``QueueFull``, ``DeadlineExceeded``, and what ends its waiting."""
        waiting = sum(len(each.waiters) for each in self._desk.books.models.values())
        limit = self._desk.settings.gateway.max_waiting
        if waiting >= limit:
            raise QueueFull(
                f"{waiting} requests wait for models already (gateway.max_waiting = {limit}); try again later", _RETRY_AFTER_S
            )
        started = time.monotonic()
        waiter: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        if not model.waiters:
            model.want_since = started
        model.waiters.append(waiter)
        self._desk.post(Wake())
        try:
            async with asyncio.timeout(timeout_s):
                lease = await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().release()  # granted in the very turn in which the caller gave up
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(
                    f"{model.key!r} was not ready within {timeout_s:.1f} s; it is {model.state}: {model.reason}"
                ) from None
            raise
        finally:
            if waiter in model.waiters:
                model.waiters.remove(waiter)
        lease.cold = True
        lease.waited_s = time.monotonic() - started
        return lease

    def suspect(self, model: Model, detail: str) -> None:
        """A request found the model gone. Until that was looked at, nobody gets a lease."""
        if model.state is State.LOADED and not model.suspect:
            log.warning("%s: %s; looking", model.key, detail)
            model.suspect = True
            self._desk.readings.check(model.key, model.generation, model.processes)

    def answer_waiters(self, model: Model) -> None:
        while model.waiters:
            waiter = model.waiters.popleft()
            if not waiter.done():
                waiter.set_result(self.grant(model))

    def reject_waiters(self, model: Model, error: ModeliumError) -> None:
        while model.waiters:
            waiter = model.waiters.popleft()
            if not waiter.done():
                waiter.set_exception(error)

    def when_unloaded(self, model: Model) -> asyncio.Future[None]:
        """Done when the model's unload is over; a model that is loading is unloaded as soon as it is loaded."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unload_waiters.setdefault(model.key, []).append(waiter)
        return waiter

    def resolve_unload(self, model: Model) -> None:
        for waiter in self._unload_waiters.pop(model.key, ()):
            if not waiter.done():
                waiter.set_result(None)

    def unload_is_wanted(self, model: Model) -> bool:
        """Does a user wait for this model's unload?"""
        return bool(self._unload_waiters.get(model.key))

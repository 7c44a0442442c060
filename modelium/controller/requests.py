"""Those who ask models: a lease at once, or when the model serves; an answer in any case.

What enters: a model and how long its client waits. What leaves: leases, or what ended the wait. The record learns of both by
events.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from modelium.controller.events import Event, Wake
from modelium.controller.leases import Lease
from modelium.controller.life import events as happens
from modelium.controller.life.events import LifeEvent
from modelium.controller.life.phases import Draining, Loaded
from modelium.controller.model import Model, Waiter
from modelium.controller.state import ControllerState
from modelium.errors import DeadlineExceeded, ModeliumError


class Requests:
    """``apply`` tells a record what happened; ``post`` puts an event into the queue. ``waiting``: how many wait, for whichever
    model.
    """

    def __init__(
        self, apply: Callable[[Model, LifeEvent], None], state: ControllerState, post: Callable[[Event], None]
    ) -> None:
        self._apply = apply
        self._state = state
        self._post = post
        self.waiting = 0

    def grant(self, model: Model, *, comes: bool = False) -> Lease:
        """One more lease on a model that answers, ``comes``: for a request that came just now. Raises ``IllegalTransition`` for
        one that does not answer."""
        self._apply(model, happens.LeaseTaken(comes))
        phase, deaths = model.record.phase, model.record.past.deaths
        if not isinstance(phase, Loaded | Draining):
            raise TypeError(f"a lease was taken on a model that is {model.record.state}")
        return Lease(
            profile=phase.serving.profile,
            placement=phase.serving.placement,
            release=partial(self._give_back, model),
            lost=lambda: model.record.past.deaths != deaths,
        )

    async def wait(self, model: Model, timeout_s: float) -> Lease:
        """A lease as soon as it serves. Raises ``DeadlineExceeded``, and what ends its waiting."""
        started = time.monotonic()
        waiter: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self.join(model, waiter)
        try:
            async with asyncio.timeout(timeout_s):
                lease = await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().release()  # granted in the very turn in which the caller gave up
            if isinstance(error, TimeoutError):
                record = model.record
                raise DeadlineExceeded(
                    f"{record.key!r} was not ready within {timeout_s:.1f} s; it is {record.state}: {record.phase.reason}"
                ) from None
            raise
        finally:
            self.leave(model, waiter)
        lease.cold = True
        lease.waited_s = time.monotonic() - started
        return lease

    def join(self, model: Model, waiter: Waiter) -> None:
        """One more waits for it, which is a reason for a pass."""
        model.waiters.append(waiter)
        self._count_waiters(model)
        self._post(Wake())

    def leave(self, model: Model, waiter: Waiter) -> None:
        """It waits no more, if it still did."""
        if waiter in model.waiters:
            model.waiters.remove(waiter)
            self._count_waiters(model)

    def reject(self, model: Model, error: ModeliumError) -> None:
        """Who waits for it waits in vain."""
        waiters = list(model.waiters)
        model.waiters.clear()
        self._count_waiters(model)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)

    def when_unloaded(self, model: Model) -> asyncio.Future[None]:
        """Done when the unload that is under way, or is to come after the load, is over."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        model.unload_waiters.append(waiter)
        return waiter

    def tell_unloaded(self, model: Model) -> None:
        """Its unload is over, or will not come."""
        waiters, model.unload_waiters = model.unload_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def grant_all(self, model: Model) -> None:
        """It serves: whoever waits for it gets a lease."""
        waiters = [waiter for waiter in model.waiters if not waiter.done()]
        model.waiters.clear()
        self._count_waiters(model)
        for waiter in waiters:
            try:
                waiter.set_result(self.grant(model))
            except Exception as defect:  # a waiter without an answer would wait for its whole deadline
                waiter.set_exception(defect)

    def _count_waiters(self, model: Model) -> None:
        if more := len(model.waiters) - model.record.use.waiting:
            self.waiting += more
            self._apply(model, happens.WaitingChanged(len(model.waiters)))

    def _give_back(self, model: Model) -> None:
        self._apply(model, happens.LeaseReturned(room_is_wanted=self._state.room_is_wanted))

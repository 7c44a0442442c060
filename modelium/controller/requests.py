"""Those who ask models: a lease at once, or when the model serves and it is their turn; an answer in any case.

What enters: a model, who asks, and how long its client waits. What leaves: leases, or what ended the wait. The record learns of
both by events.
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
from modelium.controller.model import Model
from modelium.controller.queue import Bounds, Queue, Waiter
from modelium.controller.state import ControllerState
from modelium.errors import DeadlineExceeded, ModeliumError
from modelium.metrics import Recorder
from modelium.values import Asker

_ANYBODY = Asker()


class Requests:
    """``apply`` tells a record what happened; ``post`` puts an event into the loop's queue. ``queue``: who waits, for whichever
    model.
    """

    def __init__(
        self,
        apply: Callable[[Model, LifeEvent], None],
        state: ControllerState,
        post: Callable[[Event], None],
        recorder: Recorder,
        bounds: Bounds,
    ) -> None:
        self._apply = apply
        self._state = state
        self._post = post
        self._recorder = recorder
        self.queue = Queue(bounds)

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

    async def wait(self, model: Model, timeout_s: float, asker: Asker = _ANYBODY) -> Lease:
        """A lease as soon as it serves and it is its turn. Raises ``DeadlineExceeded``, and what ends its waiting."""
        started, cold = time.monotonic(), not model.record.takes_requests
        waiter: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self.join(model, waiter, asker)
        try:
            async with asyncio.timeout(timeout_s):
                lease = await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().release()  # granted in the very turn in which the caller gave up
            if isinstance(error, TimeoutError):
                raise _late(model, timeout_s) from None
            raise
        finally:
            self.leave(model, waiter)
            waited_s = time.monotonic() - started
            self._recorder.waited(model.record.key, asker.key, waited_s)
        lease.cold = cold
        lease.waited_s = waited_s
        return lease

    def join(self, model: Model, waiter: Waiter, asker: Asker = _ANYBODY) -> None:
        """One more waits for it, which is a reason for a pass."""
        self.queue.join(model.line, waiter, asker)
        self._count_waiters(model)
        self._post(Wake())

    def leave(self, model: Model, waiter: Waiter) -> None:
        """It waits no more, if it still did. A load that nobody waits for any more, and that has not begun, does not begin, so
        who waits for the same room may have it now."""
        if self.queue.leave(model.line, waiter):
            self._count_waiters(model)
            if not model.line and not model.record.takes_requests:
                self._post(Wake())

    def reject(self, model: Model, error: ModeliumError) -> None:
        """Who waits for it waits in vain."""
        waiters = self.queue.take(model.line)
        self._count_waiters(model)
        for waiter in waiters:
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

    def serve(self, model: Model) -> None:
        """It answers: who waits gets a lease, in order, as many as it takes at once."""
        waiters = self.queue.take(model.line, model.room)
        self._count_waiters(model)
        for waiter in waiters:
            if waiter.done():  # what an earlier one did with its lease may have ended this one
                continue
            try:
                waiter.set_result(self.grant(model))
            except Exception as defect:  # a waiter without an answer would wait for its whole deadline
                waiter.set_exception(defect)

    def _count_waiters(self, model: Model) -> None:
        if (waiting := len(model.line)) != model.record.use.waiting:
            self._apply(model, happens.WaitingChanged(waiting))

    def _give_back(self, model: Model) -> None:
        self._apply(model, happens.LeaseReturned(room_is_wanted=self._state.room_is_wanted))
        if model.line and model.record.takes_requests:
            self.serve(model)


def _late(model: Model, timeout_s: float) -> DeadlineExceeded:
    record = model.record
    if record.takes_requests:
        ahead = f"it answers {model.max_in_flight} requests at a time (max_in_flight), and others came before"
        return DeadlineExceeded(f"{record.key!r} was not free within {timeout_s:.1f} s: {ahead}")
    words = f"{record.key!r} was not ready within {timeout_s:.1f} s; it is {record.state}: {record.phase.reason}"
    return DeadlineExceeded(words)

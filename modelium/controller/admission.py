"""A request comes: a lease at once, the word that it has to wait, or the error that waiting would end in.

What enters: a model, and the instant. What leaves: the lease. Nothing here waits; who does, and by which clock,
is the caller's.
"""

from __future__ import annotations

from modelium.controller.leases import Lease
from modelium.controller.life import events as happens
from modelium.controller.life.obstacles import obstacle
from modelium.controller.life.phases import Draining
from modelium.controller.model import Model
from modelium.controller.models import Models
from modelium.errors import QueueFull

_RETRY_AFTER_S = 5.0


class Admission:
    """``max_waiting``: how many requests may wait for loads, of whichever model."""

    def __init__(self, models: Models, max_waiting: int) -> None:
        self._models = models
        self._max_waiting = max_waiting

    def ask(self, model: Model, now: float) -> Lease | None:
        """A lease where it serves; None where the request may wait for it (``Requests.join``).

        Raises ``NotServable`` (with the reason) and ``QueueFull``.
        """
        record = model.record
        if record.takes_requests:  # one event and not two: most requests are of this kind
            return self._models.requests.grant(model, comes=True)
        self._models.apply(model, happens.Asked())
        if isinstance(model.record.phase, Draining):
            waited_for = self._models.is_waited_for(model.record)
            self._models.apply(model, happens.CalledBack(waited_for))
        if model.record.takes_requests:
            return self._models.requests.grant(model)
        if (in_vain := obstacle(model.record, now)) is not None:
            raise in_vain
        if (waiting := self._models.waiting()) >= self._max_waiting:
            words = f"{waiting} requests wait for models already (gateway.max_waiting = {self._max_waiting}); try again later"
            raise QueueFull(words, _RETRY_AFTER_S)
        return None

"""A request comes: a lease at once, the word that it has to wait, or the error that waiting would end in.

What enters: a model, the instant, and who asks. What leaves: the lease. Nothing here waits; who does, and by which clock, is
the caller's. This is the one place that decides who waits; ``queue`` keeps the order and the bounds.
"""

from __future__ import annotations

from collections.abc import Callable

from modelium.controller.leases import Lease
from modelium.controller.life import events as happens
from modelium.controller.life.obstacles import obstacle
from modelium.controller.life.phases import Draining
from modelium.controller.model import Model
from modelium.controller.models import Models
from modelium.values import Asker

_ANYBODY = Asker()


def _not_known(_key: str) -> float | None:
    return None


class Admission:
    """Asks ``models`` for leases. ``remaining_s``: of the load of that model, or of the one that is over first (""), where
    somebody knows."""

    def __init__(self, models: Models, remaining_s: Callable[[str], float | None] = _not_known) -> None:
        self._models = models
        self._remaining_s = remaining_s

    def ask(self, model: Model, now: float, asker: Asker = _ANYBODY, *, sends: bool = True) -> Lease | None:
        """A lease where it serves; None where the request may wait for it (``Requests.join``). ``sends``: it sends something,
        so it waits where ``max_in_flight`` requests are under way.

        Raises ``NotServable`` (with the reason) and ``QueueFull``.
        """
        if model.takes_one_more:  # one event and not two: most requests are of this kind
            return self._models.requests.grant(model, comes=True)
        self._models.apply(model, happens.Asked())
        if isinstance(model.record.phase, Draining):
            waited_for = self._models.is_waited_for(model.record)
            self._models.apply(model, happens.CalledBack(waited_for))
        if model.takes_one_more or (model.record.takes_requests and not sends):
            return self._models.requests.grant(model)
        if (in_vain := obstacle(model.record, now)) is not None:
            raise in_vain
        key = model.record.key
        self._models.requests.queue.check(model.line, asker, lambda of_model: self._remaining_s(key if of_model else ""))
        return None

"""Loads before anybody asks. What enters: the records, ``now``. What leaves: who is expected, told to its record.

One model at a time, so that one load at most is for nobody: the next that somebody asks for finds a place beside it.
"""

from __future__ import annotations

from itertools import islice

from modelium.brain.preload import is_expected
from modelium.controller.life import events as happens
from modelium.controller.life.phases import Absent
from modelium.controller.life.record import Record
from modelium.controller.model import Model
from modelium.controller.models import Models
from modelium.values import Demand, State

_EVERY_S = 5.0
_MOVED_WITHIN_S = 10.0
_AT_ONCE = 500  # records: a look at thousands is spread over some


class Preloads:
    """Looks every few seconds for a model that is expected and not loaded."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._in_turn = InTurn(models)
        self._look_at = 0.0
        self._expected: str | None = None

    def look(self, now: float) -> None:
        """Withdraw the last one where it found no room; expect another."""
        if now < self._look_at:
            return
        self._look_at = now + _EVERY_S
        last = self._models.get(self._expected) if self._expected is not None else None
        if last is not None and last.record.demand is Demand.EXPECTED:
            if not isinstance(last.record.phase, Absent):
                return  # it loads
            self._models.try_to_apply(last, happens.Expected(soon=False))
        some = (model for model in self._in_turn.some() if model is not last)
        found = next((model for model in some if is_due(model.record, now)), None)
        self._expected = None if found is None else found.record.key
        if found is not None:
            self._models.try_to_apply(found, happens.Expected(soon=True))


class InTurn:
    """All models, a few at each look."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._next = 0

    def some(self) -> list[Model]:
        """The next few."""
        each = list(self._models)
        if self._next >= len(each):
            self._next = 0
        some = list(islice(each, self._next, self._next + _AT_ONCE))
        self._next += _AT_ONCE
        return some


class Moves:
    """Models that went for somebody who waits, and are to be loaded again on another device: at once, or not at all."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._under_way: set[str] = set()

    def begin(self, key: str) -> None:
        """It was decided."""
        self._under_way.add(key)

    def end(self, now: float) -> None:
        """Withdraw those that found no room."""
        for key in tuple(self._under_way):
            model = self._models.get(key)
            record = model.record if model is not None else None
            if model is None or record is None or not (record.state.leaves or record.demand is Demand.EXPECTED):
                self._under_way.discard(key)
            elif isinstance(record.phase, Absent) and now - record.wish.since > _MOVED_WITHIN_S:
                self._under_way.discard(key)
                self._models.try_to_apply(model, happens.Expected(soon=False))


def is_due(record: Record, now: float) -> bool:
    """Not loaded, wanted by nobody, not sent away, expected, and not loaded since its last use: in vain once is enough."""
    window, past = record.use.window, record.past
    if record.state is not State.UNLOADED or record.demand or record.folder.gone or record.folder.profile is None:
        return False
    if window.asked_at is None or record.wish.sent_away:
        return False
    since = silent_since(record)
    if past.loaded_at > since:
        return False
    return is_expected(window.arrivals, silent_s=now - since, load_s=past.load_seconds, now=now)


def silent_since(record: Record) -> float:
    """The end of its last use; 0 before the first."""
    window = record.use.window
    return max(window.asked_at or 0.0, window.ended_at)

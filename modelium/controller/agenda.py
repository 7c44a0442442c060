"""What the next pass has to look at, so that it looks at nothing else.

What enters: each record as it changes. What leaves: which records changed, who leaves, and when something is due.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from modelium.controller.life.phases import Draining
from modelium.controller.life.record import Record
from modelium.controller.life.views import was_only_used
from modelium.controller.model import Model

_T = TypeVar("_T")


class Agenda:
    """``leaving``: by key, models that drain or whose folder is gone."""

    def __init__(self) -> None:
        self.leaving: dict[str, Model] = {}
        self._changed: dict[str, bool] = {}  # was it only used? A set that was large once is slow to pop from
        self._reloads: dict[str, float] = {}
        self._retries: dict[str, float] = {}
        self._drains: dict[str, float] = {}

    def note(self, model: Model, before: Record | None = None) -> None:
        """Its record changed, from ``before`` if it was there."""
        record = model.record
        key, phase = record.key, record.phase
        self._changed[key] = before is not None and was_only_used(before, record) and self._changed.get(key, True)
        if before is not None and _nothing_is_due(before, record):
            return
        drains = isinstance(phase, Draining)
        _keep(self.leaving, key, model if drains or record.folder.gone else None)
        _keep(self._drains, key, phase.leaving.until if isinstance(phase, Draining) and phase.reload is None else None)
        _keep(self._reloads, key, record.reload_is_due_at)
        waits = record.demand and not record.occupies
        _keep(self._retries, key, (record.tries.retry_at or None) if waits else None)

    def forget(self, key: str) -> None:
        """It is no model any more."""
        self._changed[key] = False
        for noted in (self.leaving, self._reloads, self._retries, self._drains):
            noted.pop(key, None)

    def take_changed(self) -> Iterator[tuple[str, bool]]:
        """The keys of what changed, came or went since they were last taken, each with: was it only used? One by one, so that a
        defect which one brings out loses none of the others."""
        while self._changed:
            yield self._changed.popitem()

    def reloads_due(self, now: float) -> list[str]:
        """The keys of those whose newest revision is to be loaded now."""
        return [key for key, due_at in self._reloads.items() if due_at <= now]

    def next_at(self, now: float) -> float | None:
        """The next retry, the next end of a drain, or the next reload; None where there is none."""
        retries = (instant for instant in self._retries.values() if instant > now)
        return min((*self._drains.values(), *self._reloads.values(), *retries), default=None)


def _nothing_is_due(before: Record, after: Record) -> bool:
    """Because of that change, nor has anything become undue. Most are of this kind."""
    return (
        after.phase is before.phase
        and after.folder is before.folder
        and after.tries is before.tries
        and after.wish is before.wish
        and bool(after.waits_for_load) == bool(before.waits_for_load)
    )


def _keep(noted: dict[str, _T], key: str, value: _T | None) -> None:
    if value is not None:
        noted[key] = value
    else:
        noted.pop(key, None)

"""What became of the requests: waits, loads and unloads enter as they happen, figures leave. A million waits take 8 KB."""

from __future__ import annotations

import math
from dataclasses import dataclass

_SHORTEST_S = 0.001
_STEP = math.log(1.01)  # a bin is one percent wide
_BINS = 2_000

THRASH_S = 60.0
"""A model that is loaded again so soon after its unload had better stayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A trace under one policy. ``waited_s``: of all requests, those that missed their deadline having waited until then;
    quantiles of the waits are over all requests (``p``) and over those that waited (``cold``).

    ``missed``: not answered by their deadline; ``refused``: too many waited already, or nothing could hold the model.
    ``thrash``: loads within a minute of the model's unload. ``utilization``: of the memory that models may use, the part that
    was taken over the trace; ``in_use``: the part taken by models that were answering.
    """

    policy: str
    requests: int
    cold_starts: int
    waited_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    cold_p50_s: float
    cold_p95_s: float
    cold_p99_s: float
    longest_s: float
    missed: int
    refused: int
    loads: int
    load_seconds: float
    evictions: int
    thrash: int
    utilization: float
    in_use: float
    passes: int
    seconds: float = 0.0  # that the simulation took


class Tally:
    """Counts while a simulation runs. ``models``: how many; ``budget``: bytes that models may use, of all devices together."""

    def __init__(self, models: int, budget: int) -> None:
        self._budget = budget
        self._bins = [0] * (_BINS + 1)
        self._waited_s = 0.0
        self._longest_s = 0.0
        self._unloaded_at = [-math.inf] * models
        self._held = self._used = 0
        self._held_at = self._used_at = 0.0
        self._held_byte_s = self._used_byte_s = 0.0
        self.requests = self.cold_starts = self.missed = self.refused = 0
        self.loads = self.evictions = self.thrash = 0
        self.load_seconds = 0.0
        self.passes = 0

    def wait(self, seconds: float) -> None:
        """A request waited so long, answered or not; those that are answered at once need not be told."""
        self._waited_s += seconds
        self._longest_s = max(self._longest_s, seconds)
        at = int(math.log(seconds / _SHORTEST_S) / _STEP) + 1 if seconds > _SHORTEST_S else 0
        self._bins[min(at, _BINS)] += 1

    def refuse(self, seconds: float) -> None:
        """One that was counted as a cold start waited so long for nothing: it waited for no load after all."""
        self.cold_starts -= 1
        self.refused += 1
        self._waited_s += seconds
        self._longest_s = max(self._longest_s, seconds)

    def load(self, index: int, size: int, seconds: float, now: float) -> None:
        """A load begins, and takes so many seconds."""
        self.loads += 1
        self.load_seconds += seconds
        if now - self._unloaded_at[index] <= THRASH_S:
            self.thrash += 1
        self.hold(size, now)

    def unload(self) -> None:
        """A model begins to go."""
        self.evictions += 1

    def unloaded(self, index: int, size: int, now: float) -> None:
        """Its memory is back."""
        self._unloaded_at[index] = now
        self.hold(-size, now)

    def hold(self, size: int, now: float) -> None:
        """So many bytes more are taken from now on."""
        self._held_byte_s += self._held * (now - self._held_at)
        self._held_at = now
        self._held += size

    def use(self, size: int, now: float) -> None:
        """So many bytes more are answering from now on."""
        self._used_byte_s += self._used * (now - self._used_at)
        self._used_at = now
        self._used += size

    def outcome(self, policy: str, *, started: float, now: float) -> Outcome:
        """All of it, at the end."""
        self.hold(0, now)
        self.use(0, now)
        room = max(self._budget * (now - started), 1.0)
        waits = sum(self._bins)
        at_once = self.requests - waits
        return Outcome(
            policy=policy,
            requests=self.requests,
            cold_starts=self.cold_starts,
            waited_s=self._waited_s,
            p50_s=self._quantile(0.50, at_once),
            p95_s=self._quantile(0.95, at_once),
            p99_s=self._quantile(0.99, at_once),
            cold_p50_s=self._quantile(0.50, 0),
            cold_p95_s=self._quantile(0.95, 0),
            cold_p99_s=self._quantile(0.99, 0),
            longest_s=self._longest_s,
            missed=self.missed,
            refused=self.refused,
            loads=self.loads,
            load_seconds=self.load_seconds,
            evictions=self.evictions,
            thrash=self.thrash,
            utilization=self._held_byte_s / room,
            in_use=self._used_byte_s / room,
            passes=self.passes,
        )

    def _quantile(self, part: float, at_once: int) -> float:
        """The upper end of the bin that holds it; 0 where it is of those that did not wait."""
        wanted = part * (at_once + sum(self._bins))
        seen = float(at_once)
        if seen >= wanted:
            return 0.0
        for at, count in enumerate(self._bins):
            seen += count
            if seen >= wanted:
                return min(self._longest_s, _SHORTEST_S * math.exp(at * _STEP))
        return self._longest_s

"""Plain ways to choose who goes, and two that know the future: how a model was used enters, what its stay is worth leaves.

What is worth the least goes first. None of them knows devices, turns or waits: ``plain.py`` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from modelium.simulation.inputs import SimulatedModel
from modelium.simulation.traces import Trace


class Order(Protocol):
    """``steady``: a worth stays as it is while the model is idle. ``adds_up``: the loss of two is the sum of theirs, by bytes;
    else it is that of the one that is worth more. ``idle_limit_s``: nobody stays longer without use.
    """

    steady: bool
    adds_up: bool
    idle_limit_s: float

    def ask(self, index: int) -> None:
        """A request for it came."""

    def worth(self, index: int, now: float) -> float:
        """Of an idle model's stay."""

    def lose(self, worth: float) -> None:
        """A model of that worth goes."""


class _Order:
    steady = True
    adds_up = False
    idle_limit_s = math.inf

    def ask(self, index: int) -> None:
        pass

    def lose(self, worth: float) -> None:
        pass


class LongestUnused(_Order):
    """LRU, and with a limit TTL: who was idle for longer than that goes whoever waits."""

    def __init__(self, idle_limit_s: float = math.inf) -> None:
        self.idle_limit_s = idle_limit_s

    def worth(self, index: int, now: float) -> float:
        return now  # asked once, as it becomes idle


class LeastAsked(_Order):
    """LFU."""

    adds_up = True

    def __init__(self, models: int) -> None:
        self._asked = [0] * models

    def ask(self, index: int) -> None:
        self._asked[index] += 1

    def worth(self, index: int, now: float) -> float:
        return float(self._asked[index])


class GreedyDual(_Order):
    """GDSF: age + requests × load seconds / bytes, where the age is the worth of the last that went."""

    adds_up = True

    def __init__(self, models: Sequence[SimulatedModel]) -> None:
        self._asked = [0] * len(models)
        self._cost = [model.load_seconds / model.bytes for model in models]
        self._age = 0.0

    def ask(self, index: int) -> None:
        self._asked[index] += 1

    def worth(self, index: int, now: float) -> float:
        return self._age + self._asked[index] * self._cost[index]

    def lose(self, worth: float) -> None:
        self._age = max(self._age, worth)


class _Prophet(_Order):
    """Knows when each model is asked next."""

    def __init__(self, trace: Trace, starts_at: float) -> None:
        by_model = np.argsort(trace.models, kind="stable")
        self._times: list[float] = (trace.times[by_model] + starts_at).tolist()
        self._next: list[int] = np.searchsorted(trace.models[by_model], np.arange(len(trace.names) + 1)).tolist()
        self._ends = self._next[1:]

    def ask(self, index: int) -> None:
        self._next[index] += 1

    def next_at(self, index: int) -> float:
        if index >= len(self._ends) or self._next[index] >= self._ends[index]:
            return math.inf
        return self._times[self._next[index]]


class FarthestNext(_Prophet):
    """Belady: who is asked last goes first."""

    def worth(self, index: int, now: float) -> float:
        return -self.next_at(index)


class CheapestNext(_Prophet):
    """The same, weighed: the seconds of its load over its bytes and the time until its next request."""

    steady = False
    adds_up = True

    def __init__(self, trace: Trace, models: Sequence[SimulatedModel], starts_at: float) -> None:
        super().__init__(trace, starts_at)
        self._cost = [model.load_seconds / model.bytes for model in models]

    def worth(self, index: int, now: float) -> float:
        return self._cost[index] / max(self.next_at(index) - now, 0.001)


_Maker = Callable[[Trace, Sequence[SimulatedModel], float, float], Order]

# Name → maker of (trace, models, start of the clock, idle limit).
PLAIN: Mapping[str, _Maker] = {
    "plain-lru": lambda trace, models, start, limit: LongestUnused(),
    "plain-lfu": lambda trace, models, start, limit: LeastAsked(len(models)),
    "plain-ttl": lambda trace, models, start, limit: LongestUnused(limit),
    "plain-gdsf": lambda trace, models, start, limit: GreedyDual(models),
    "bound-farthest": lambda trace, models, start, limit: FarthestNext(trace, start),
    "bound-cost": lambda trace, models, start, limit: CheapestNext(trace, models, start),
}

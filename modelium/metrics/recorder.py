"""The recorder: events enter as they happen (gateway, controller), counters and histograms are read at the scrape."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from modelium.metrics.families import (
    COLD_START_SECONDS,
    COLD_STARTS,
    DECISIONS,
    EVICTION_AGE,
    EVICTIONS,
    FAMILIES,
    FIRST_TOKEN_SECONDS,
    KEY_WAIT_SECONDS,
    KEY_WAITS,
    LOAD_SECONDS,
    LOADS,
    OUTPUT_TOKENS,
    PRELOAD_WASTED,
    PRELOADS,
    PROMPT_TOKENS,
    QUEUE_SECONDS,
    RAY_RESTARTS,
    READ_AHEAD_BYTES,
    READ_AHEADS,
    REQUEST_SECONDS,
    REQUESTS,
    RETRIES,
    SCAN_SECONDS,
    SWAPS,
    TRITON_RESTARTS,
    UNLOAD_KILLS,
    UNLOAD_SECONDS,
    UNLOADS,
    WATCHER_LAG,
    Family,
)

_MOST_KEYS = 100  # whose names make series
_OTHER_KEYS = "other"


class Histogram:
    """Counts by bucket and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Buckets as Prometheus wants them (each holds all below it), and the sum."""
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        return buckets, self._sum


Labels = tuple[str, ...]


class Recorder:
    """Counts events as they happen. Fed by the gateway and the controller on one event loop, read by ``collect``.

    Methods never raise and cost a dictionary look-up: they sit on the path of every request.
    """

    def __init__(self) -> None:
        self._counters: dict[Family, dict[Labels, float]] = {f: defaultdict(int) for f in FAMILIES if f.kind == "counter"}
        self._histograms: dict[Family, dict[Labels, Histogram]] = {f: {} for f in FAMILIES if f.kind == "histogram"}
        for family, series in self._histograms.items():
            if not family.labels:
                series[()] = Histogram(family.buckets)

    def request(self, model: str, code: int, seconds: float) -> None:
        """A request to /predict ended. ``model`` is "" when the name is not known: wrong names make no series."""
        self._count(REQUESTS, model, str(code))
        self._observe(REQUEST_SECONDS, seconds, model)

    def infer_retry(self, model: str) -> None:
        """A request is asked again, for its model went away under it."""
        self._count(RETRIES, model)

    def first_token(self, model: str, seconds: float, prompt_tokens: int) -> None:
        """A generation began to answer, ``seconds`` after its request came."""
        self._observe(FIRST_TOKEN_SECONDS, seconds, model)
        self._count(PROMPT_TOKENS, model, by=prompt_tokens)

    def output_tokens(self, model: str, count: int) -> None:
        """So many more tokens were generated."""
        self._count(OUTPUT_TOKENS, model, by=count)

    def cold_start(self, model: str, waited_s: float) -> None:
        """A request waited ``waited_s`` seconds for its model."""
        self._count(COLD_STARTS, model)
        self._observe(COLD_START_SECONDS, waited_s)

    def waited(self, model: str, key: str, seconds: float) -> None:
        """A request waited so long for its model, and has it now or gave up. ``key``: the name of its API key, "" for none."""
        self._observe(QUEUE_SECONDS, seconds, model)
        if key:
            known = self._counters[KEY_WAITS]
            shown = key if (key,) in known or len(known) < _MOST_KEYS else _OTHER_KEYS
            self._count(KEY_WAITS, shown)
            self._count(KEY_WAIT_SECONDS, shown, by=seconds)

    def load(self, model: str, outcome: str, seconds: float) -> None:
        """A load ended; ``outcome`` is ok or failed.

        From now on the model's series are there, at 0: a rate does not see the event that a series begins with.
        """
        self._count(LOADS, model, "ok", by=0)
        self._count(LOADS, model, "failed", by=0)
        self._count(REQUESTS, model, "200", by=0)
        self._count(COLD_STARTS, model, by=0)
        self._histograms[REQUEST_SECONDS].setdefault((model,), Histogram(REQUEST_SECONDS.buckets))
        self._count(LOADS, model, outcome)
        self._observe(LOAD_SECONDS, seconds)

    def unload(self, model: str, reason_rule: str, seconds: float, *, killed: bool = False) -> None:
        """An unload by that rule took so many seconds. ``killed``: the model's processes had to be."""
        self._count(UNLOADS, model, reason_rule)
        self._count(UNLOAD_KILLS, model, by=int(killed))
        self._observe(UNLOAD_SECONDS, seconds)

    def eviction(self, rule: str, age_s: float) -> None:
        """A model that was idle for ``age_s`` seconds was evicted."""
        self._count(EVICTIONS, rule)
        self._observe(EVICTION_AGE, age_s)

    def preload(self, outcome: str, wasted_s: float) -> None:
        """A load before anybody asked began, was used, or was wasted, and so were the seconds that it took."""
        self._count(PRELOADS, outcome)
        self._count(PRELOAD_WASTED, by=wasted_s)

    def read_ahead(self, outcome: str, size: int) -> None:
        """Weights of so many bytes are read before anybody asked; or what was read was used, or wasted."""
        self._count(READ_AHEADS, outcome)
        self._count(READ_AHEAD_BYTES, by=size)

    def placed(self, device: str) -> None:
        """A model goes to that device, whose swaps are counted from now on: from 0, as a rate does not see a first event."""
        self._count(SWAPS, device, by=0)

    def swap(self, device: str) -> None:
        """A model of that device goes for one that somebody waits for."""
        self._count(SWAPS, device)

    def decision(self, verb: str, rule: str) -> None:
        """The brain decided something else about a model than before."""
        self._count(DECISIONS, verb, rule)

    def watcher_lag(self, seconds: float) -> None:
        """So many seconds passed from a file event to the end of the scan that it caused."""
        self._observe(WATCHER_LAG, seconds)

    def scan(self, seconds: float) -> None:
        """A scan of the watched directories took so many seconds."""
        self._observe(SCAN_SECONDS, seconds)

    def triton_restart(self) -> None:
        """Triton was started again."""
        self._count(TRITON_RESTARTS)

    def ray_restart(self) -> None:
        """Ray was started again."""
        self._count(RAY_RESTARTS)

    def _count(self, family: Family, *labels: str, by: float = 1) -> None:
        self._counters[family][labels] += by

    def _observe(self, family: Family, value: float, *labels: str) -> None:
        series = self._histograms[family]
        histogram = series.get(labels)
        if histogram is None:
            histogram = series[labels] = Histogram(family.buckets)
        histogram.observe(value)

    def counted(self, family: Family) -> list[tuple[Labels, float]]:
        """The counters of a family, by their labels."""
        return list(self._counters[family].items()) or ([] if family.labels else [((), 0)])

    def observed(self, family: Family) -> list[tuple[Labels, Histogram]]:
        """The histograms of a family, by their labels."""
        return list(self._histograms[family].items())

    def keep(self, models: frozenset[str]) -> None:
        """Drop the series of models that exist no more; a model that comes back starts from 0, as after a restart."""
        for counters in self._counters.items():
            _drop_others(*counters, models)
        for histograms in self._histograms.items():
            _drop_others(*histograms, models)


def _drop_others(family: Family, series: dict[Labels, Any], models: frozenset[str]) -> None:
    if family.labels[:1] == ("model",):
        for labels in [key for key in tuple(series) if key[0] and key[0] not in models]:
            series.pop(labels, None)

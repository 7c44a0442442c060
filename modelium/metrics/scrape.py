"""The scrape: what enters is a ``Snapshot`` and what the ``Recorder`` counted, what leaves are Prometheus families.

Everything that a snapshot knows is computed here and now, so a removed model's series vanish with it.
"""

from __future__ import annotations

import logging
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric

from modelium import __version__
from modelium.metrics.families import (
    DEVICE_BYTES,
    DEVICE_LEAKED,
    FAMILIES,
    IDLE,
    IN_FLIGHT,
    KEY_WAITING,
    LOOP_AGE,
    LOOP_PAUSE,
    MODEL_BYTES,
    MODEL_ESTIMATE_ERROR,
    MODELS,
    NURSERY_BYTES,
    PINNED,
    QPS,
    RAY_UP,
    REVISION_FAILED,
    SCANNED,
    STATE,
    TRITON_UP,
    WAITING,
    WATCH_DIRECTORY_UP,
    Family,
)
from modelium.metrics.recorder import Histogram, Labels, Recorder
from modelium.values import ModelStatus, RayState, Snapshot, State

log = logging.getLogger(__name__)

_MOST_KEYS = 100  # that make series: those with the most requests that wait


def collect(snapshot: Snapshot, recorder: Recorder) -> Iterator[Metric]:
    """Every family of ``FAMILIES`` and the process's own. May run in a thread beside the loop that feeds ``recorder``."""
    for family in FAMILIES:
        match family.kind:
            case "counter":
                yield _counter(family, recorder.counted(family))
            case "histogram":
                yield _histogram(family, recorder.observed(family))
            case "gauge":
                metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
                for labels, value in _gauges(family, snapshot):
                    metric.add_metric(labels, value)
                yield metric
            case "info":
                info = InfoMetricFamily(family.name.removesuffix("_info"), family.help)
                versions = {"version": __version__, "python": platform.python_version(), "triton": snapshot.server.version}
                info.add_metric([], versions)
                yield info
    yield from ProcessCollector(registry=None).collect()


def _counter(family: Family, series: Iterable[tuple[Labels, float]]) -> Metric:
    metric = CounterMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in series:
        metric.add_metric(labels, value)
    return metric


def _histogram(family: Family, series: Iterable[tuple[Labels, Histogram]]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for labels, histogram in series:
        buckets, total = histogram.cumulative()
        metric.add_metric(labels, buckets, total)
    return metric


def _gauges(family: Family, snapshot: Snapshot) -> Iterator[tuple[Labels, float]]:
    """The series of one gauge, from the snapshot alone."""
    models = snapshot.models
    if family in _OF_A_MODEL:
        for m in models:
            yield from _of_model(family, m)
    elif family in _OF_ALL:
        yield from _one((), _OF_ALL[family](snapshot))
    elif family is MODELS:
        by_state = Counter(m.state for m in models)
        yield from (((state.value,), by_state[state]) for state in State)
    elif family is DEVICE_BYTES:
        for d in snapshot.fleet.devices:
            yield from (((d.id, "total"), d.total_bytes), ((d.id, "used"), d.used_bytes), ((d.id, "budget"), d.budget_bytes))
    elif family is KEY_WAITING:
        most = sorted(snapshot.waiting_by_key.items(), key=lambda item: (-item[1], item[0]))[:_MOST_KEYS]
        yield from (((key,), waiting) for key, waiting in most)
    elif family is DEVICE_LEAKED:
        yield from (((d.id,), d.leaked_bytes) for d in snapshot.fleet.devices)
    elif family is WATCH_DIRECTORY_UP:
        yield from (((_text(d.path),), not d.suspended) for d in snapshot.directories)


def _of_model(family: Family, model: ModelStatus) -> list[tuple[Labels, float]]:
    """Its series of one gauge; none where one cannot be written down: the others' are scraped all the same."""
    try:
        return [(labels, float(value)) for labels, value in _OF_A_MODEL[family](model)]
    except Exception:
        log.exception("%s has no %s, a defect of Modelium", model.name, family.name)
        return []


def _memory(m: ModelStatus) -> Iterator[tuple[Labels, float]]:
    if m.footprint is None:
        return
    sizes = (
        ("estimated", m.footprint.estimated_bytes),
        ("measured", m.footprint.measured_bytes),
        ("promised", m.promised_bytes or None),
        ("held", m.held_bytes),
    )
    for device in m.placement.devices if m.placement is not None else ("",):
        yield from (((m.name, device, kind), size) for kind, size in sizes if size is not None)


def _one(labels: Labels, value: float | None, *, told: bool = True) -> list[tuple[Labels, float]]:
    return [(labels, value)] if told and value is not None else []


def _text(path: Path) -> str:
    """A name on a disk need not be text."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _at_rest(model: ModelStatus) -> bool:
    return not model.state.occupies and not model.leases and not model.waiting


_OF_A_MODEL: dict[Family, Callable[[ModelStatus], Iterable[tuple[Labels, float]]]] = {
    STATE: lambda m: _one((m.name, m.state.value), 1),
    REVISION_FAILED: lambda m: _one((m.name,), 1, told=bool(m.revision_error) and m.idle_s is not None),
    IN_FLIGHT: lambda m: _one((m.name,), m.leases, told=not _at_rest(m)),
    WAITING: lambda m: _one((m.name,), m.waiting, told=not _at_rest(m)),
    QPS: lambda m: _one((m.name,), m.qps, told=m.idle_s is not None),
    IDLE: lambda m: _one((m.name,), m.idle_s),
    MODEL_BYTES: _memory,
    MODEL_ESTIMATE_ERROR: lambda m: _one((m.name,), m.footprint.error if m.footprint is not None else None),
}

_OF_ALL: dict[Family, Callable[[Snapshot], float | None]] = {
    PINNED: lambda s: sum(m.pinned for m in s.models),
    NURSERY_BYTES: lambda s: s.nursery.held_bytes if s.nursery is not None else None,
    SCANNED: lambda s: s.scanned,
    LOOP_AGE: lambda s: s.turn_age_s,
    LOOP_PAUSE: lambda s: s.longest_pause_s,
    TRITON_UP: lambda s: s.server.up,
    RAY_UP: lambda s: s.fleet.ray.state is RayState.UP if s.fleet.ray.state in (RayState.UP, RayState.DOWN) else None,
}

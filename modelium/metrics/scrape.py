"""The scrape: what enters is a ``Snapshot`` and what the ``Recorder`` counted, what leaves are Prometheus families.

Everything that a snapshot knows is computed here and now, so a removed model's series vanish with it.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric

from modelium import __version__
from modelium.metrics.families import (
    DEVICE_BYTES,
    FAMILIES,
    IDLE,
    IN_FLIGHT,
    LOOP_AGE,
    LOOP_PAUSE,
    MODEL_BYTES,
    MODELS,
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
    if family is STATE:
        yield from (((m.name, m.state.value), 1) for m in models)
    elif family is REVISION_FAILED:
        yield from (((m.name,), 1) for m in models if m.revision_error and m.idle_s is not None)
    elif family is MODELS:
        by_state = Counter(m.state for m in models)
        yield from (((state.value,), by_state[state]) for state in State)
    elif family is PINNED:
        yield (), sum(m.pinned for m in models)
    elif family is IN_FLIGHT:
        yield from (((m.name,), m.leases) for m in models if not _at_rest(m))
    elif family is WAITING:
        yield from (((m.name,), m.waiting) for m in models if not _at_rest(m))
    elif family is QPS:
        yield from (((m.name,), m.qps) for m in models if m.idle_s is not None)
    elif family is IDLE:
        yield from (((m.name,), m.idle_s) for m in models if m.idle_s is not None)
    elif family is MODEL_BYTES:
        for m in models:
            if m.footprint is not None:
                sizes = (
                    ("estimated", m.footprint.estimated_bytes),
                    ("measured", m.footprint.measured_bytes),
                    ("promised", m.promised_bytes or None),
                    ("held", m.held_bytes),
                )
                for device in m.placement.devices if m.placement is not None else ("",):
                    yield from (((m.name, device, kind), size) for kind, size in sizes if size is not None)
    elif family is DEVICE_BYTES:
        for d in snapshot.fleet.devices:
            yield from (((d.id, "total"), d.total_bytes), ((d.id, "used"), d.used_bytes), ((d.id, "budget"), d.budget_bytes))
    elif family is SCANNED:
        yield (), snapshot.scanned
    elif family is WATCH_DIRECTORY_UP:
        yield from (((_text(d.path),), not d.suspended) for d in snapshot.directories)
    elif family is LOOP_AGE:
        yield (), snapshot.turn_age_s
    elif family is LOOP_PAUSE:
        yield (), snapshot.longest_pause_s
    elif family is TRITON_UP:
        yield (), snapshot.server.up
    elif family is RAY_UP and snapshot.fleet.ray.state in (RayState.UP, RayState.DOWN):
        yield (), snapshot.fleet.ray.state is RayState.UP


def _text(path: Path) -> str:
    """A name on a disk need not be text."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _at_rest(model: ModelStatus) -> bool:
    return model.state in _RESTING and not model.leases and not model.waiting


_RESTING = frozenset({State.INCOMPLETE, State.UNSUPPORTED, State.UNLOADED, State.FAILED})

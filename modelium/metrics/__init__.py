"""Metrics: snapshots and recorded events enter, Prometheus families leave. ``python -m modelium.metrics`` prints the docs."""

from modelium.metrics.families import FAMILIES, reference
from modelium.metrics.recorder import Recorder
from modelium.metrics.scrape import collect

__all__ = ["FAMILIES", "Recorder", "collect", "reference"]

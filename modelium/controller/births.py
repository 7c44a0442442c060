"""Loads that wait for a nursery. What enters: a model's status, and since when which nursery imports. What leaves: the status,
saying so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from modelium.values import ModelStatus, State, Verb

_WAITED_S = 60.0  # then the stub loads its model itself (modelium_nursery.client)


def awaiting(status: ModelStatus, importing: Mapping[str, float], now: float) -> ModelStatus:
    """``importing``: the runtimes whose nursery imports, and since when."""
    if status.state is not State.LOADING or status.placement is None:
        return status
    runtime = status.placement.runtime.value
    if runtime not in importing:
        return status
    began = next((decision.at for decision in status.decisions if decision.verb is Verb.LOAD), now)
    if now - began > _WAITED_S:
        return status
    since_s = max(0.0, now - importing[runtime])
    return replace(status, waits_for=f"the nursery of {runtime}, which imports (since {since_s:.0f} s)")

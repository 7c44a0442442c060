"""Small worlds for the simulator's tests: traces, models and fleets of a few words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelium.simulation.inputs import SimulatedModel
from modelium.simulation.runs import CONFIGURED, Setting, run_each
from modelium.simulation.simulator import Conditions
from modelium.simulation.specs import parse_fleet
from modelium.simulation.tally import Outcome
from modelium.simulation.traces import Trace
from modelium.sizes import GIB
from modelium.values import Fleet, Policies

Arrival = tuple[float, int, float]  # time, model, duration


def trace_of(arrivals: list[Arrival], models: int) -> Trace:
    arrivals = sorted(arrivals)
    return Trace(
        names=tuple(f"m{number}" for number in range(models)),
        times=np.array([at for at, _, _ in arrivals], dtype=np.float64),
        models=np.array([index for _, index, _ in arrivals], dtype=np.int32),
        durations=np.array([took for _, _, took in arrivals], dtype=np.float32),
    )


def models_of(
    *sizes: float,
    load_s: float = 4.0,
    unload_s: float = 1.0,
    pinned: frozenset[int] = frozenset(),
    spread: Mapping[int, int] | None = None,
) -> list[SimulatedModel]:
    """``spread``: over how many GPUs which of them is."""
    return [
        SimulatedModel(
            name=f"m{number}",
            bytes=int(size * GIB),
            load_seconds=load_s,
            unload_seconds=unload_s,
            pinned=number in pinned,
            tensor_parallel=(spread or {}).get(number, 1),
        )
        for number, size in enumerate(sizes)
    ]


def fleet_of(*sizes: int) -> Fleet:
    return parse_fleet(",".join(f"{size}GiB" for size in sizes), gpu_fraction=1.0)


def simulate(
    arrivals: list[Arrival],
    models: list[SimulatedModel],
    fleet: Fleet,
    *,
    policy: str = CONFIGURED,
    policies: Policies | None = None,
    **conditions: float,
) -> Outcome:
    setting = Setting(
        trace=trace_of(arrivals, len(models)),
        models=models,
        fleet=fleet,
        policies=policies or Policies(),
        conditions=Conditions(**conditions),  # type: ignore[arg-type]
    )
    (outcome,) = run_each(setting, (policy,))
    return outcome

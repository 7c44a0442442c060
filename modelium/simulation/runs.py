"""A trace under several policies: names enter, an outcome each leaves."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from modelium.nearest import nearest
from modelium.simulation.inputs import BadInput, SimulatedModel
from modelium.simulation.orders import PLAIN
from modelium.simulation.plain import PlainServer
from modelium.simulation.simulator import Conditions, Simulator
from modelium.simulation.tally import Outcome
from modelium.simulation.traces import Trace
from modelium.values import Eviction, Fleet, Policies

CONFIGURED, PRELOAD = "modelium", "preload"
_OLD_NAMES = {"longest_unused": Eviction.LRU.value, "cheapest": Eviction.LEARNED.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is the same for all policies. ``models``: in the order of the trace's names, then those that nobody asks.
    ``made_up``: how to have the same models again (of ``--models``), where they were made up.
    """

    trace: Trace
    models: Sequence[SimulatedModel]
    fleet: Fleet
    policies: Policies
    conditions: Conditions
    made_up: str | None = None


def policies_by_name(configured: Policies) -> Mapping[str, Policies]:
    """Modelium's own: as configured, with each way to choose who goes, and with preloading."""
    ways = {each.value: replace(configured, eviction=each) for each in Eviction}
    return {CONFIGURED: configured} | ways | {PRELOAD: replace(configured, preload=True)}


def check_names(names: Sequence[str], configured: Policies) -> tuple[str, ...]:
    """Of policies; none means Modelium as configured, and all that is plain. Raises ``BadInput``."""
    known = (*policies_by_name(configured), *PLAIN)
    for name in names:
        if name not in known:
            near = [_OLD_NAMES[name.lower()]] if name.lower() in _OLD_NAMES else nearest(name.lower(), known)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise BadInput(f"--policy {name!r} is not known; {advice}")
    return tuple(dict.fromkeys(names)) or (CONFIGURED, *PLAIN)


def run_each(
    setting: Setting, names: Sequence[str], progress: Callable[[str, float], None] = lambda name, part: None
) -> Iterator[Outcome]:
    """The outcome of each, in their order, as it is there. ``progress`` gets a name and the part that is done."""
    own = policies_by_name(setting.policies)
    for name in names:

        def tell(part: float, name: str = name) -> None:
            progress(name, part)

        if name in own:
            simulator = Simulator(setting.models, setting.fleet, own[name], setting.conditions, policy=name)
            with _without_collections():
                outcome = simulator.run(setting.trace, progress=tell)
            yield outcome
        else:
            server = PlainServer(
                setting.models, setting.fleet, setting.policies, setting.conditions, policy=name, trace=setting.trace
            )
            yield server.run(progress=tell)


@contextmanager
def _without_collections() -> Iterator[None]:
    """A run makes millions of values and no cycles: to look for some takes a twentieth of its time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

"""Four kinds of traces, three seeds each, in virtual time: what requests wait under each policy, beside LRU and the bounds.

*few*: two dozen models on one 80-GiB device. *many*: 120 models on eight. *wide*: 120 of all sizes on eight, a fifth of them
so large that they take most of a device, or several. *bursts*: two dozen, each asked as often as the others, 20 requests at a
time. Modelium's policies are run by the controller's own code (``modelium.simulation``).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from modelium.simulation.generated import generate, parse_habits
from modelium.simulation.inputs import SimulatedModel
from modelium.simulation.orders import PLAIN
from modelium.simulation.runs import CONFIGURED, Setting, policies_by_name, run_each
from modelium.simulation.simulator import Conditions
from modelium.simulation.specs import largest_made, parse_fleet, plausible_load_s, plausible_models
from modelium.simulation.tally import Outcome
from modelium.sizes import GIB
from modelium.values import Policies

TRACES = {
    "few": ("zipf:requests=5000,models=24,hours=8", "1x80GiB"),
    "many": ("zipf:requests=20000,models=120,hours=12", "8x80GiB"),
    "wide": ("zipf:requests=8000,models=120,hours=12", "8x80GiB"),
    "bursts": ("zipf:requests=5000,models=24,hours=12,exponent=0,burst=20,gap_s=3", "1x80GiB"),
}
SMALL, LARGE, SPREAD = (1, 2, 4, 8, 14, 16), (40, 60, 70), ((80, 2), (130, 2), (200, 4))  # GiB, and on how many
LRU, BOUNDS = "plain-lru", ("bound-farthest", "bound-cost")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[8, 1, 2])
    seeds: list[int] = parser.parse_args().seeds
    table = Table("trace", "policy", "waited, s", "of LRU's", "of the bound's", "missed", "loads", title=f"for seeds {seeds}")
    for kind, (habits, fleet) in TRACES.items():
        runs = [play(habits, fleet, seed, of_all_sizes=kind == "wide") for seed in seeds]
        for policy in runs[0]:
            each = [run[policy] for run in runs]
            table.add_row(
                kind,
                policy,
                " ".join(f"{one.waited_s:,.0f}" for one in each),
                " ".join(f"{run[policy].waited_s / run[LRU].waited_s:.2f}" for run in runs),
                " ".join(f"{run[policy].waited_s / min(run[name].waited_s for name in BOUNDS):.2f}" for run in runs),
                " ".join(str(one.missed + one.refused) for one in each),
                " ".join(f"{one.loads:,}" for one in each),
            )
        table.add_section()
    Console(width=max(Console().width, 130)).print(table)


def made_of_all_sizes(names: Sequence[str], seed: int) -> list[SimulatedModel]:
    """Four of five are small, three of five others take most of a device, and two of five are on several."""
    chance, made = random.Random(seed), list[SimulatedModel]()
    for name in names:
        kind = chance.random()
        if kind < 0.8:
            size, ranks = chance.choice(SMALL) * GIB, 1
        elif kind < 0.92:
            size, ranks = chance.choice(LARGE) * GIB, 1
        else:
            gib, ranks = chance.choice(SPREAD)
            size = gib * GIB
        load_s = plausible_load_s(size // ranks)
        made.append(SimulatedModel(name=name, bytes=size, load_seconds=load_s, tensor_parallel=ranks))
    return made


def play(habits: str, devices: str, seed: int, *, of_all_sizes: bool = False) -> Mapping[str, Outcome]:
    """One trace under all policies."""
    trace, fleet = generate(parse_habits(habits, seed=seed)), parse_fleet(devices, gpu_fraction=0.9)
    models = (
        made_of_all_sizes(trace.names, seed) if of_all_sizes else plausible_models(trace.names, largest_made(fleet), seed=seed)
    )
    policies = Policies()
    setting = Setting(trace=trace, models=models, fleet=fleet, policies=policies, conditions=Conditions())
    names = [name for name in policies_by_name(policies) if name != CONFIGURED]
    return {outcome.policy: outcome for outcome in run_each(setting, [*names, *PLAIN])}


if __name__ == "__main__":
    main()

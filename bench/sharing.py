"""Two dozen models on one 80-GiB device, in virtual time: what requests wait under each way to choose who goes.

The real ``brain.plan()`` decides, before (``evict_for_requests: idle``) and now (``swap``); beside it two that know no rules:
the longest unused goes (LRU), and the one whose next request is farthest away goes (which only a prophet knows). A request may
wait for 300 s, and no way may load more than two models side by side. Traces are made from seeds: Zipf (few models have most
requests), bursts (a model is asked for a while, then not), alike (all are asked as often).
"""

from __future__ import annotations

import argparse
import bisect
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from rich.console import Console
from rich.table import Table

from modelium.brain.plan import plan
from modelium.values import Decision, EvictForRequests, ModelView, Observed, Plan, Policies, State, Verb
from tests.unit.brain.virtual import DEADLINE_S, Request, Resident, VirtualDevice
from tests.unit.brain.worlds import GIB, gpu, placed

DEVICE = gpu(0, total=80 * GIB, budget=72 * GIB)
MODELS, SECONDS = 24, 3600.0
LRU = "longest unused (LRU)"
Order = Callable[[ModelView, float], float]  # the largest goes first
Trace = Callable[[random.Random], Iterator[Request]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[8, 1, 2])
    seeds: list[int] = parser.parse_args().seeds
    table = Table("trace", "who goes", "requests", "loads", "waited, s", "of LRU's", "timed out", title=f"for seeds {seeds}")
    for kind, make in (("Zipf", zipf), ("bursts", bursts), ("alike", alike)):
        hours = [hour(seed, make) for seed in seeds]
        for words in hours[0]:
            each = [tried[words] for tried in hours]
            of_lru = [tried[words].waited_s / tried[LRU].waited_s for tried in hours]
            table.add_row(
                kind,
                words,
                " ".join(str(one.requests) for one in each),
                " ".join(str(one.loads) for one in each),
                " ".join(f"{one.waited_s:,.0f}" for one in each),
                " ".join(f"{ratio:.2f}" for ratio in of_lru),
                " ".join(str(one.timed_out) for one in each),
            )
    Console(width=max(Console().width, 130)).print(table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """What became of a trace. ``waited_s``: of all its requests, one that timed out having waited for as long as it may."""

    requests: int
    loads: int
    waited_s: float
    timed_out: int


def hour(seed: int, make: Trace) -> dict[str, Hour]:
    """The same requests for the same models, each way to choose who goes."""
    requests = sorted(make(random.Random(seed)), key=lambda request: request.at)
    found: dict[str, Hour] = {}
    for words, run in ways(requests):
        made = run(seed)
        waits = [wait for _, wait in made.run(requests)]
        found[words] = Hour(
            requests=len(waits),
            loads=made.loads,
            waited_s=sum(DEADLINE_S if wait is None else wait for wait in waits),
            timed_out=waits.count(None),
        )
    return found


def ways(requests: list[Request]) -> Iterator[tuple[str, Callable[[int], VirtualDevice]]]:
    """Name and maker of each way to choose."""
    arrivals: dict[str, list[float]] = {}
    for request in requests:
        arrivals.setdefault(request.model, []).append(request.at)

    def next_use(view: ModelView, now: float) -> float:
        times = arrivals.get(view.name, [])
        at = bisect.bisect_right(times, now)
        return times[at] if at < len(times) else float("inf")

    idle = Policies(evict_for_requests=EvictForRequests.IDLE)
    yield "Modelium before (idle)", lambda seed: device(seed, policies=idle)
    yield "Modelium (swap)", device
    yield LRU, lambda seed: device(seed, decide=simply(lambda view, now: now - view.usage.last_used_at))
    yield "farthest next use", lambda seed: device(seed, decide=simply(next_use))


def device(seed: int, *, policies: Policies | None = None, decide: Callable[[Observed], Plan] = plan) -> VirtualDevice:
    """Two dozen models of 2 to 40 GiB, none of them loaded; a load takes 3 s and 1 s for each 2 GiB."""
    chance = random.Random(seed)
    sizes = [chance.choice((2, 4, 8, 14, 16, 28, 40)) * GIB for _ in range(MODELS)]
    models = {
        name: Resident(name=name, size=size, load_s=3 + size / (2 * GIB), unload_s=1.0)
        for name, size in ((f"m{number}", size) for number, size in enumerate(sizes))
    }
    return VirtualDevice(DEVICE, models, policies=policies or Policies(), decide=decide)


def simply(order: Order) -> Callable[[Observed], Plan]:
    """Who waited longest is next; of those without a lease the first in ``order`` go until there is room."""

    def decide(observed: Observed) -> Plan:
        waiting = [v for v in observed.models if v.waiting and v.state is State.UNLOADED]
        actions: list[Decision] = []
        free = DEVICE.budget_bytes - sum(v.bytes_held for v in observed.models)
        returning = sum(v.bytes_held for v in observed.models if v.state.leaves)
        idle = [v for v in observed.models if v.state is State.LOADED and not v.usage.in_flight]
        idle.sort(key=lambda v: -order(v, observed.now))
        starting = sum(v.state is State.LOADING for v in observed.models)
        for view in sorted(waiting, key=lambda v: v.demand_since):
            need = view.footprint.bytes
            if need <= free:
                if starting == observed.policies.loads_per_device:
                    break
                starting += 1
                free -= need
                actions.append(act(observed, view, Verb.LOAD))
                continue
            while free + returning < need and idle:
                gone = idle.pop(0)
                returning += gone.bytes_held
                actions.append(act(observed, gone, Verb.UNLOAD))
            break  # nobody passes it
        return Plan(actions=tuple(actions), decisions=tuple(actions))

    return decide


def act(observed: Observed, view: ModelView, verb: Verb) -> Decision:
    """An action without a rule."""
    place = placed(view.footprint.bytes, DEVICE) if verb is Verb.LOAD else None
    return Decision(at=observed.now, model=view.name, verb=verb, rule="", reason="", placement=place)


def zipf(chance: random.Random) -> Iterator[Request]:
    """One request each 4 s; the model on rank r has a share of 1/r."""
    names = [f"m{number}" for number in range(MODELS)]
    chance.shuffle(names)
    shares = [1 / rank for rank in range(1, MODELS + 1)]
    now = 0.0
    while (now := now + chance.expovariate(1 / 4)) < SECONDS:
        yield Request(at=now, model=chance.choices(names, shares)[0], seconds=chance.uniform(0.1, 3))


def bursts(chance: random.Random) -> Iterator[Request]:
    """Each 40 s somebody begins to ask one model: 20 requests, some 3 s apart."""
    start = 0.0
    while (start := start + chance.expovariate(1 / 40)) < SECONDS:
        name, now = f"m{chance.randrange(MODELS)}", start
        for _ in range(20):
            yield Request(at=now, model=name, seconds=chance.uniform(0.1, 2))
            now += chance.expovariate(1 / 3)


def alike(chance: random.Random) -> Iterator[Request]:
    """One request each 8 s, for any model."""
    now = 0.0
    while (now := now + chance.expovariate(1 / 8)) < SECONDS:
        yield Request(at=now, model=f"m{chance.randrange(MODELS)}", seconds=chance.uniform(0.1, 3))


if __name__ == "__main__":
    main()

"""One fault at a time under load, ``--rounds`` times each: requests sent, answered, refused and lost, and seconds until normal.

Clients ask two models that are loaded; a third one is away. The faults: SIGKILL for the nursery's process that bears children,
for the one that keeps it, for a model's child, for its stub, and for Triton; and a child that hangs (SIGSTOP), whose model is
unloaded. *Answer again*: from the fault until both models have answered a request that was sent after it. *Normal*: until the
third one, asked then, has answered too, as a child of the nursery; where it was loaded without one, it is unloaded and asked
again.

*Refused* and *lost* are those of ``endurance.py``. The last has to be 0.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from endurance import GENERATION, KEEPER, Tally, ask, victims
from held import CHILDREN, STUBS, TRITON, nursery_listens, processes_of
from rich.console import Console
from rich.table import Table
from served import Served, minilm, serve

_STEADY, _AWAY = ("minilm-0", "minilm-1"), "minilm-2"
_HANGS = "a child hangs, its model is unloaded"
_TITLES = {
    GENERATION: "the nursery is killed",
    KEEPER: "its keeper is killed",
    CHILDREN: "a child is killed",
    STUBS: "a stub is killed",
    TRITON: "Triton is killed",
}
_NORMAL_WITHIN_S = 180.0
_CLIENTS = 4
_CALM_S = 2.0  # before the next fault


@dataclass(slots=True)
class Seen:
    """Of one kind of fault."""

    tally: Tally = field(default_factory=Tally)
    again_s: list[float] = field(default_factory=list)
    normal_s: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    settings = {
        "devices": {"host_memory": "8GiB"},
        "orchestration": {"policies": {"evict_after_idle_seconds": 3600, "check_interval_seconds": 1}},
    }

    def prepare(incoming: Path) -> None:
        for name in (*_STEADY, _AWAY):
            shutil.copytree(minilm(), incoming / name)

    with serve(settings, prepare=prepare) as served:
        names = (*_STEADY, _AWAY)
        served.wait("all are loaded", lambda: served.are_loaded(names), within_s=300)
        served.wait("the nursery is warm", lambda: nursery_listens(served, "python"), within_s=300)
        for name in names:  # those that were loaded before the nursery was there are born now
            unload(served, name)
            served.ask("POST", f"/predict/{name}", {"inputs": "is anybody there?"})
        seen = asyncio.run(provoke(served, options.rounds))
    show(seen)
    if lost := sum(one.tally.lost.total() for one in seen.values()):
        raise SystemExit(f"{lost} requests were lost")


async def provoke(served: Served, rounds: int) -> dict[str, Seen]:
    faults: dict[str, Callable[[], float]] = {title: functools.partial(kill, served, which) for which, title in _TITLES.items()}
    faults[_HANGS] = functools.partial(hang, served)
    seen = {title: Seen() for title in faults}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for _ in range(rounds):
            for title, fault in faults.items():
                await once(session, served, fault, seen[title])
    return seen


async def once(session: aiohttp.ClientSession, served: Served, fault: Callable[[], float], seen: Seen) -> None:
    await asyncio.to_thread(unload, served, _AWAY)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(_CLIENTS):
            group.create_task(client(session, served, seen.tally, _STEADY[number % len(_STEADY)], stop))
        await asyncio.sleep(_CALM_S)
        began = await asyncio.to_thread(fault)
        for name in _STEADY:
            await until_answered(session, served, seen.tally, name, began)
        seen.again_s.append(time.monotonic() - began)
        others = children(served)
        await until_answered(session, served, seen.tally, _AWAY, began)
        while not children(served) - others:  # it was loaded in its stub, as without a nursery
            await asyncio.to_thread(unload, served, _AWAY)
            others = children(served)
            await until_answered(session, served, seen.tally, _AWAY, began)
        seen.normal_s.append(time.monotonic() - began)
        stop.set()


async def client(session: aiohttp.ClientSession, served: Served, tally: Tally, name: str, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await ask(session, served, tally, name)


async def until_answered(session: aiohttp.ClientSession, served: Served, tally: Tally, name: str, began: float) -> None:
    answered = Tally()
    while not answered.answered:
        if time.monotonic() - began > _NORMAL_WITHIN_S:
            raise SystemExit(f"{name} does not answer; the end of {served.log}:\n{served.tail()}")
        answered = Tally()
        await ask(session, served, answered, name)
        tally.add(answered)


def children(served: Served) -> set[int]:
    return {process.pid for process in processes_of(served).get(CHILDREN, [])}


def kill(served: Served, which: str) -> float:
    """When it was."""
    for process in victims(served, which)[:1]:
        process.kill()
    return time.monotonic()


def hang(served: Served) -> float:
    """The child of the model that is away is stopped once it is loaded, and the model is unloaded. When it hung."""
    before = children(served)
    served.ask("POST", f"/predict/{_AWAY}", {"inputs": "is anybody there?"})
    for process in processes_of(served).get(CHILDREN, []):
        if process.pid not in before:
            process.suspend()
    began = time.monotonic()
    unload(served, _AWAY)
    return began


def unload(served: Served, name: str) -> None:
    served.ask("POST", f"/models/{name}/unload")
    served.wait(f"{name} is unloaded", lambda: served.model(name).get("state") == "UNLOADED", within_s=60, every_s=0.02)


def show(seen: dict[str, Seen]) -> None:
    table = Table(title="Faults under load: two loaded models are asked by four clients")
    table.add_column("fault")
    for column in ("times", "sent", "answered", "refused", "lost", "answer again, s", "normal, s", "longest"):
        table.add_column(column, justify="right")
    for title, one in seen.items():
        tally = one.tally
        counts = (len(one.normal_s), tally.sent, tally.answered, tally.refused.total(), tally.lost.total())
        times = (statistics.median(one.again_s), statistics.median(one.normal_s), max(one.normal_s))
        table.add_row(title, *map(str, counts), *(f"{seconds:.2f}" for seconds in times))
    Console(width=max(130, Console().width)).print(table)
    for title, one in seen.items():
        for cause, count in [*one.tally.refused.most_common(4), *one.tally.lost.most_common(4)]:
            print(f"  {title}: {count} × {cause}")


if __name__ == "__main__":
    main()

"""Minutes of steady requests while models are loaded, evicted and killed: how many were sent, answered, refused, lost.

Copies of one real model share a budget that holds about three of them. One is asked all the time; the others take turns, so
each turn evicts somebody. Every ``--kill`` seconds one SIGKILL: Triton, a model's stub, the nursery's process that bears its
children, such a child, and the one that keeps the nursery; then Triton …

*Answered* is a 200 with an embedding of the right width. *Refused* is an error in Modelium's own words, by type. *Lost* is
anything else: no answer in time, a broken connection, an answer that is not understood. The last has to be 0.

At the end Modelium is stopped, and nothing may be left of it: no process, nothing in /dev/shm, no half-written file.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import shutil
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
from held import CHILDREN, NURSERY, STUBS, TRITON, Held, generations, held_by, processes_of, register
from left import Past, shm_prefix, what_is_left
from served import Served, minilm, serve

_MODELS = 6
_WIDTH = 384
_DEADLINE_S = 180
GENERATION, KEEPER = "nursery", "its keeper"
_VICTIMS = (TRITON, STUBS, GENERATION, CHILDREN, KEEPER)
_LOOK_S = 1.0


@dataclass(slots=True)
class Tally:
    sent: int = 0
    answered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    waits_s: list[float] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)

    def add(self, more: Tally) -> None:
        """What was seen elsewhere."""
        self.sent += more.sent
        self.answered += more.answered
        self.refused += more.refused
        self.lost += more.lost
        self.waits_s += more.waits_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--budget", default="500MiB", help="devices.host_memory")
    parser.add_argument("--turn", type=float, default=30, help="seconds for which a model is asked before the next one's turn")
    parser.add_argument("--kill", type=float, default=40, help="seconds between kills")
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    settings = {
        "devices": {"host_memory": options.budget},
        "orchestration": {
            "policies": {"evict_after_idle_seconds": 5, "unload_without_pressure": True, "check_interval_seconds": 1}
        },
    }
    source = minilm()

    def prepare(incoming: Path) -> None:
        for number in range(_MODELS):
            shutil.copytree(source, incoming / f"minilm-{number}")

    tally, past = Tally(), Past()
    with serve(settings, prepare=prepare) as served:
        asyncio.run(run(served, tally, past, options))
        before = held_by(served)
        past.note(served.directory)
        report(tally, served, options.minutes)
        served.process.terminate()
        served.process.wait(timeout=120)
        left = what_is_left(served.directory, past.processes, past.prefixes)
        show_left(before, left, served)
        if tally.lost or left:
            raise SystemExit(f"requests were lost, or something was left: {served.directory} is kept")


async def run(served: Served, tally: Tally, past: Past, options: argparse.Namespace) -> None:
    end = time.monotonic() + options.minutes * 60
    timeout = aiohttp.ClientTimeout(total=_DEADLINE_S + 30)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        watcher = asyncio.create_task(watch(served, past))
        killer = asyncio.create_task(kill(served, tally, end, options.kill))
        async with asyncio.TaskGroup() as group:
            for client in range(options.clients):
                group.create_task(stream(session, served, tally, end, options.turn, client))
        await killer
        watcher.cancel()


async def watch(served: Served, past: Past) -> None:
    """Remember who was there: who is left at the end may have no parent, and no name, of ours."""
    while True:
        past.processes |= set(await asyncio.to_thread(served.processes))
        past.prefixes |= {prefix for prefix in [shm_prefix(served.directory)] if prefix}
        await asyncio.sleep(_LOOK_S)


async def stream(session: aiohttp.ClientSession, served: Served, tally: Tally, end: float, turn_s: float, client: int) -> None:
    """One client: half of them always ask model 0, the others follow the turns. 10 requests a second at most."""
    began = time.monotonic()
    while (now := time.monotonic()) < end:
        turn = int((now - began) / turn_s)
        number = 0 if client % 2 == 0 else 1 + turn % (_MODELS - 1)
        await ask(session, served, tally, f"minilm-{number}")
        await asyncio.sleep(max(0.0, 0.1 - (time.monotonic() - now)))


async def ask(session: aiohttp.ClientSession, served: Served, tally: Tally, name: str) -> None:
    url = f"http://127.0.0.1:{served.port}/predict/{name}"
    tally.sent += 1
    began = time.monotonic()
    try:
        headers = {"X-Request-Timeout": str(_DEADLINE_S)}
        async with session.post(url, json={"inputs": "is anybody there?"}, headers=headers) as response:
            body = await response.json()
            if response.status == 200 and is_embedding(body):
                tally.answered += 1
                tally.waits_s.append(time.monotonic() - began)
            elif isinstance(body, dict) and "error" in body and "type" in body:
                tally.refused[f"{response.status} {body['type']}: {body['error'][:90]}"] += 1
            else:
                tally.lost[f"{response.status}: {str(body)[:80]}"] += 1
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        tally.lost[f"{type(error).__name__}: {error}"[:100]] += 1


def is_embedding(body: object) -> bool:
    while isinstance(body, list) and body and isinstance(body[0], list):
        body = body[0]
    return isinstance(body, list) and len(body) == _WIDTH


async def kill(served: Served, tally: Tally, end: float, kill_s: float) -> None:
    for victim in itertools.cycle(_VICTIMS):
        await asyncio.sleep(kill_s)
        if time.monotonic() > end - 20:  # leave time to come back
            return
        for process in (await asyncio.to_thread(victims, served, victim))[:1]:
            try:
                process.kill()
                tally.killed[victim] += 1
            except psutil.Error:
                continue


def victims(served: Served, which: str) -> list[psutil.Process]:
    """Of the nursery either those that bear children, or those that keep them."""
    if which == GENERATION:
        return generations(served)
    found = processes_of(served).get(NURSERY if which == KEEPER else which, [])
    return [process for process in found if process not in generations(served)]


def report(tally: Tally, served: Served, minutes: float) -> None:
    details = [served.model(model["name"]) for model in served.ask("GET", "/models").body["models"]]
    loads, unloads = (sum(model[key] for model in details) for key in ("loads", "unloads"))
    refused, lost = tally.refused.total(), tally.lost.total()
    print(f"{minutes:g} minutes: {tally.sent} sent, {tally.answered} answered, {refused} refused, {lost} lost")
    print(f"  {loads} loads, {unloads} unloads; killed: {dict(tally.killed)}")
    if waits := sorted(tally.waits_s):
        slow = waits[int(len(waits) * 0.99)]
        print(f"  answered after: median {statistics.median(waits) * 1e3:.0f} ms, 99 % {slow:.1f} s, longest {waits[-1]:.1f} s")
    for words, counts in (("refused", tally.refused), ("lost", tally.lost)):
        for cause, count in counts.most_common(8):
            print(f"  {words} {count}: {cause}")


def show_left(before: Held, left: list[str], served: Served) -> None:
    """What was there before Modelium was stopped, and what is there after."""
    there = ", ".join(f"{count} {kind}" for kind, count in sorted(before.processes.items()))
    print(f"  before the end: {there}; {before.zombies} zombies, {before.shm_files} files in /dev/shm")
    born = len(register(served.directory, "children"))
    print(f"  children in the nursery's register: {before.registered} before the end, {born} after it")
    print(f"  after the end: {', '.join(left) or 'no process, shared memory or file'} left")


if __name__ == "__main__":
    main()

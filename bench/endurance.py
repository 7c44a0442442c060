"""Minutes of steady requests while models are loaded, evicted and killed: how many were sent, answered, refused, lost.

Copies of one real model share a budget that holds about three of them. One is asked all the time; the others take turns, so
each turn evicts somebody. Every ``--kill`` seconds one SIGKILL: Triton, then a model's stub process, then Triton …

*Answered* is a 200 with an embedding of the right width. *Refused* is an error in Modelium's own words, by type. *Lost* is
anything else: no answer in time, a broken connection, an answer that is not understood. The last has to be 0.
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
from served import Served, minilm, serve

_MODELS = 6
_WIDTH = 384
_DEADLINE_S = 180


@dataclass(slots=True)
class Tally:
    sent: int = 0
    answered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    waits_s: list[float] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--budget", default="1700MiB", help="devices.host_memory")
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

    tally = Tally()
    with serve(settings, prepare=prepare) as served:
        asyncio.run(run(served, tally, options.minutes * 60, options.turn, options.kill, options.clients))
        report(tally, served, options.minutes)
    if tally.lost:
        raise SystemExit("requests were lost")


async def run(served: Served, tally: Tally, seconds: float, turn_s: float, kill_s: float, clients: int) -> None:
    end = time.monotonic() + seconds
    timeout = aiohttp.ClientTimeout(total=_DEADLINE_S + 30)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        killer = asyncio.create_task(kill(served, tally, end, kill_s))
        async with asyncio.TaskGroup() as group:
            for client in range(clients):
                group.create_task(stream(session, served, tally, end, turn_s, client))
        await killer


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
    for victim in itertools.cycle(("tritonserver", "triton_python_backend_stub")):
        await asyncio.sleep(kill_s)
        if time.monotonic() > end - 20:  # leave time to come back
            return
        for process in served.processes():
            try:
                if Path(process.exe()).name == victim:
                    process.kill()
                    tally.killed[victim] += 1
                    break
            except psutil.Error:
                continue


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


if __name__ == "__main__":
    main()

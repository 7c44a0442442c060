"""Loaded models under load, with a nursery and without one, in turns: requests a second and latency."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp
from asked import NURSERY, WAYS, WITHOUT, Model
from held import cpu_seconds
from served import Served, encode


@dataclass(slots=True, kw_only=True)
class Warm:
    """Of one way to serve, and so many connections: of each burst the requests a second, of each request its milliseconds."""

    per_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)  # of all processes, a request: what others do hardly changes it
    ms: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """``throughput``: the nursery's by the other way's, the median of the pairs of bursts; ``more_ms``: of the medians."""

    model: Model
    connections: int
    ways: dict[str, Warm]

    @property
    def throughput(self) -> float:
        pairs = zip(self.ways[NURSERY].per_s, self.ways[WITHOUT].per_s, strict=True)
        return statistics.median(born / without for born, without in pairs)

    @property
    def more_ms(self) -> float:
        return statistics.median(self.ways[NURSERY].ms) - statistics.median(self.ways[WITHOUT].ms)


async def compare(
    served: dict[str, Served], model: Model, *, connections: Sequence[int], bursts: int, seconds: float
) -> list[Compared]:
    found = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for count in connections:
            ways = {way: Warm() for way in WAYS}
            for number in range(-1, bursts):  # the first one warms
                order = list(WAYS) if number % 2 else list(reversed(WAYS))  # who goes first meets another machine
                for way in order:
                    spent = cpu_seconds(served[way])
                    seen = await burst(session, served[way], model, count, seconds if number >= 0 else seconds / 3)
                    if number >= 0 and seen:
                        ways[way].cpu_ms.append((cpu_seconds(served[way]) - spent) / len(seen) * 1e3)
                        ways[way].ms += seen
                        ways[way].per_s.append(len(seen) / seconds)
            found.append(Compared(model=model, connections=count, ways=ways))
    return found


async def burst(session: aiohttp.ClientSession, served: Served, model: Model, connections: int, seconds: float) -> list[float]:
    """The milliseconds of each request that ended within that time."""
    payload, kind = encode(model.body)
    url, headers = f"http://127.0.0.1:{served.port}/predict/{model.name}", {"content-type": kind}
    end, seen = time.perf_counter() + seconds, []

    async def client() -> None:
        while (began := time.perf_counter()) < end:
            async with session.post(url, data=payload, headers=headers) as response:
                body = await response.read()
            if response.status != 200:
                raise SystemExit(f"{model.name}: {response.status} {body[:200]!r}")
            if (at := time.perf_counter()) < end:
                seen.append((at - began) * 1e3)

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(client())
    return seen

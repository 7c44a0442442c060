"""Modelium's gateway beside Triton itself and beside other fronts, in turns, in one run, on loopback.

Requests of KServe's v2 protocol: 4 floats as JSON, as bytes and over gRPC, 600 kB as bytes (a picture); and a text for MiniLM,
through ``/predict``. A closed loop over plain sockets at 1 and at 16 connections, and the 99th percentile at half of what
Triton answers by itself, with requests that come at random. Ratios are of each turn's own figures of Triton, so what else the
machine does hits both.

``--others`` compares with Starlette + httpx and with Ray Serve (from the runtime environment) and with MLServer, which gets an
environment of its own below ``.cache/``. ``--picture`` draws the ratios, ``--json`` prints all figures.

    python bench/fronts.py --others --picture fronts.png
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
import uvloop
from kserve import closed_loop, closed_loop_of_grpc, cpu_s, fill, open_loop, request_of
from others import mlserver, ray_serve, starlette
from rich.console import Console
from rich.table import Table
from served import Served, minilm, serve

KINDS = ("JSON", "binary", "gRPC", "600 kB", "MiniLM")
HTTP = ("JSON", "binary", "600 kB")
TRITON, MODELIUM = "Triton", "Modelium"


@dataclass(slots=True, kw_only=True)
class Figures:
    """Of one front and one kind of request, one figure a turn: requests/s at 16 connections, ms at 1, µs of CPU a request."""

    front: str
    kind: str
    per_s: list[float] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    half_p99_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Where it listens, the processes that are its own, and the kinds of request that it takes."""

    name: str
    port: int
    grpc_port: int = 0
    pids: tuple[int, ...] = ()
    kinds: tuple[str, ...] = KINDS

    async def closed_loop(self, kind: str, connections: int, seconds: float) -> list[float]:
        """The time of each request."""
        if kind == "gRPC":
            return await closed_loop_of_grpc(self.grpc_port, connections, seconds)
        return await closed_loop(self.port, self.request(kind), connections, seconds)

    def request(self, kind: str) -> bytes:
        """As it is sent there."""
        return request_of("MiniLM, /predict" if (self.name, kind) == (MODELIUM, "MiniLM") else kind)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--others", action="store_true", help="other fronts beside it")
    parser.add_argument("--only", action="append", choices=KINDS, help="these requests; again for more (all)")
    parser.add_argument("--soak", type=int, default=0, help="so many requests more, to see whether the gateway's memory grows")
    parser.add_argument("--picture", type=Path, help="a PNG of the ratios")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(serve({}, prepare=prepare))
        served.wait("all are LOADED", lambda: served.are_loaded(["adder", "picture", "minilm"]), within_s=120)
        triton, over_grpc = (int(url.rpartition(":")[2]) for url in (served.http_url, served.grpc_url))
        fronts = [
            Front(name=TRITON, port=triton, grpc_port=over_grpc),
            Front(name=MODELIUM, port=served.port, grpc_port=served.grpc_port, pids=(served.pid,)),
        ]
        if options.others:
            others = {
                "Starlette + httpx": (starlette(triton), HTTP),
                "MLServer": (mlserver(), ("JSON",)),
                "Ray Serve, no model": (ray_serve(), ("JSON",)),
            }
            for name, (starting, kinds) in others.items():
                started = stack.enter_context(starting)
                fronts.append(Front(name=name, port=started.port, pids=started.pids, kinds=kinds))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measure(fronts, options.only or KINDS, options.seconds, options.turns))
            if options.soak:
                runner.run(soak(served, options.soak))
    if options.picture is not None:
        draw(found, options.picture)
    if options.json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    else:
        show(found)


def prepare(incoming: Path) -> None:
    fill(incoming)
    shutil.copytree(minilm(), incoming / "minilm")


async def measure(fronts: list[Front], kinds: Sequence[str], seconds: float, turns: int) -> list[Figures]:
    found = {
        (front.name, kind): Figures(front=front.name, kind=kind) for front in fronts for kind in front.kinds if kind in kinds
    }
    for kind in kinds:
        asked = [front for front in fronts if kind in front.kinds]
        for number in range(-1, turns):  # the first one warms
            turn: list[Front] = asked if number % 2 else asked[::-1]
            for front in turn:
                figures, spent = found[front.name, kind], sum(map(cpu_s, front.pids))
                many = await front.closed_loop(kind, 16, seconds if number >= 0 else 1)
                if number < 0:
                    continue
                figures.per_s.append(len(many) / seconds)
                figures.cpu_us.append((sum(map(cpu_s, front.pids)) - spent) / len(many) * 1e6)
                figures.ms.append(statistics.median(await front.closed_loop(kind, 1, seconds)) * 1e3)
            half = found[TRITON, kind].per_s[-1] / 2 if number >= 0 else 0
            for front in turn if half and kind != "gRPC" else ():
                if (TRITON, MODELIUM).count(front.name):  # others would drown in it
                    late = await open_loop(front.port, front.request(kind), half, seconds)
                    found[front.name, kind].half_p99_ms.append(statistics.quantiles(late, n=100)[98] * 1e3)
    return sorted(found.values(), key=lambda one: KINDS.index(one.kind))


async def soak(served: Served, requests: int) -> None:
    """Tell what the gateway holds as requests go through it."""
    sent, done = request_of("JSON"), 0
    while done < requests:
        done += len(await closed_loop(served.port, sent, 16, 10.0))
        held = psutil.Process(served.pid).memory_full_info().pss
        print(f"{done:>9,} requests more: {held / 2**20:.1f} MiB", file=sys.stderr, flush=True)


# -- what is shown ---------------------------------------------------------------------------------------------------


def ratios(found: list[Figures], one: Figures) -> list[float]:
    """Of each turn: its requests/s by Triton's own."""
    direct = next(each for each in found if (each.front, each.kind) == (TRITON, one.kind))
    return [through / alone for through, alone in zip(one.per_s, direct.per_s, strict=True)]


def more_ms(found: list[Figures], one: Figures) -> list[float]:
    """Of each turn: what its median at one connection has more than Triton's own."""
    direct = next(each for each in found if (each.front, each.kind) == (TRITON, one.kind))
    return [through - alone for through, alone in zip(one.ms, direct.ms, strict=True)]


def show(found: list[Figures]) -> None:
    table = Table(title="medians of all turns, and their range")
    headings = ("request", "front", "16 connections", "of Triton's", "1 connection", "more", "p99 at half", "CPU of the front")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("request", "front") else "right")
    for one in found:
        shares, more = ratios(found, one), more_ms(found, one)
        table.add_row(
            one.kind,
            one.front,
            f"{statistics.median(one.per_s):,.0f}/s",
            f"{statistics.median(shares):.2f} ({min(shares):.2f}–{max(shares):.2f})",
            f"{statistics.median(one.ms):.2f} ms",
            f"{statistics.median(more):+.2f} ms",
            f"{statistics.median(one.half_p99_ms):.1f} ms" if one.half_p99_ms else "",
            f"{statistics.median(one.cpu_us):.0f} µs" if one.cpu_us and any(one.cpu_us) else "",
        )
    Console(width=132).print(table)


def draw(found: list[Figures], path: Path) -> None:
    """Bars: of each kind of request the share of Triton's own throughput that each front lets through."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    others = [one for one in found if one.front != TRITON]
    names = [f"{one.front}, {one.kind}" for one in others]
    for panel, values, words in (
        (panels[0], [ratios(found, one) for one in others], "requests/s at 16 connections, of Triton's own"),
        (panels[1], [more_ms(found, one) for one in others], "ms more than Triton's own at 1 connection"),
    ):
        middle = [statistics.median(each) for each in values]
        spread = [
            [abs(m - min(each)) for m, each in zip(middle, values, strict=True)],
            [abs(max(each) - m) for m, each in zip(middle, values, strict=True)],
        ]
        colours = ["#2f6f4f" if one.front == MODELIUM else "#9aa5b1" for one in others]
        panel.barh(range(len(names)), middle, xerr=spread, color=colours, ecolor="#444444")
        panel.set(xlabel=words, yticks=range(len(names)), yticklabels=names if panel is panels[0] else [])
        panel.invert_yaxis()
    figure.savefig(path, format="png", dpi=120)


if __name__ == "__main__":
    main()

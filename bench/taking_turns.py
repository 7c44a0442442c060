"""Models that do not fit together, asked all the time on the real Triton: what requests wait, and for what.

Two stories, one after the other. *In turn*: two real MiniLMs of which one fits, each asked every two seconds. *Zipf*: twelve
small ONNX models of which three fit, one request every two seconds on average, the model on rank r with a share of 1/r.
Requests are sent when their time has come, whether or not those before are answered.

*Ahead* of a request were its own model's load, if it was not loaded, and those of the models whose requests had waited for
longer; each costs a load, an unload of what goes for it, and a second. Loads and unloads are the means of the run. A wait
should not be longer than three times what was ahead.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from served import Served, minilm, serve

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.server.systems import write_adder

_DEADLINE_S = 300
_WITHIN = 3.0
_EVERY_S = 2.0
_TWELVE = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request. ``ahead``: loads that had to come first, its own included; 0 for a model that was there."""

    model: str
    waited_s: float
    ahead: int
    outcome: str


@dataclass(slots=True)
class Tally:
    done: list[Answered] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)  # requests under way for each model
    counted: dict[str, float] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5, help="for each of the two stories")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--idle", action="store_true", help="as it was before: a request waits until another model is idle")
    options = parser.parse_args()
    seconds = options.minutes * 60
    policies = {"evict_for_requests": "idle"} if options.idle else {}
    print(f"{options.minutes:g} minutes each, seed {options.seed}{', evict_for_requests: idle' if options.idle else ''}")

    pair = [f"minilm-{number}" for number in range(2)]
    source = minilm()

    def two(incoming: Path) -> None:
        for name in pair:
            shutil.copytree(source, incoming / name)

    turns = ((at * _EVERY_S / 2, pair[at % 2]) for at in range(int(seconds / _EVERY_S * 2)))
    with serve(_settings(pair, "600MiB", "1GiB", policies), prepare=two) as served:
        tally = asyncio.run(_play(served, pair, turns, {"inputs": "a cat"}))
    _report("in turn", tally)

    dozen = [f"adder-{number}" for number in range(_TWELVE)]

    def twelve(incoming: Path) -> None:
        for name in dozen:
            write_adder(incoming / f"{name}.onnx")

    with serve(_settings(dozen, "300MiB", "1GiB", policies), prepare=twelve) as served:
        tally = asyncio.run(_play(served, dozen, zipf(dozen, seconds, options.seed), {"inputs": {"x": [[1.0]]}}))
    _report("Zipf", tally)


def _settings(models: list[str], each: str, budget: str, policies: Mapping[str, str]) -> dict[str, Any]:
    return {
        "devices": {"host_memory": budget},
        "models": {name: {"memory": each} for name in models},
        "orchestration": {"load_on_discovery": False, "policies": dict(policies)},
    }


def zipf(names: list[str], seconds: float, seed: int) -> Iterator[tuple[float, str]]:
    """When which model is asked."""
    chance, now = random.Random(seed), 0.0
    shares = [1 / rank for rank in range(1, len(names) + 1)]
    while (now := now + chance.expovariate(1 / _EVERY_S)) < seconds:
        yield now, chance.choices(names, shares)[0]


async def _play(served: Served, models: list[str], requests: Iterator[tuple[float, str]], body: object) -> Tally:
    tally = Tally()
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{served.port}",
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=_DEADLINE_S + 60),
    ) as http:
        for name in models:
            await asyncio.to_thread(served.wait, f"{name} is known", lambda name=name: bool(served.model(name)), within_s=120)  # type: ignore[misc]
        began, asking, said = time.monotonic(), [], 0.0
        for at, name in requests:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            asking.append(asyncio.create_task(_ask(http, name, body, tally)))
            if at - said >= 30:
                said = at
                print(f"  {at:4.0f} s: {len(tally.done)} answered, {sum(tally.waiting.values())} wait", flush=True)
        await asyncio.gather(*asking)
        async with http.get(f"http://127.0.0.1:{served.metrics_port}/metrics") as response:
            tally.counted = _metrics(await response.text())
    return tally


async def _ask(http: aiohttp.ClientSession, name: str, body: object, tally: Tally) -> None:
    """Send it, and note what was ahead: its own model's load, and those that others were waiting for already."""
    async with http.get(f"/models/{name}") as response:
        loaded = (await response.json())["state"] == "LOADED"
    ahead = 0 if loaded else 1 + sum(other != name and count > 0 for other, count in tally.waiting.items())
    tally.waiting[name] = tally.waiting.get(name, 0) + 1
    began = time.monotonic()
    try:
        async with http.post(f"/predict/{name}", json=body, headers={"X-Request-Timeout": str(_DEADLINE_S)}) as response:
            await response.read()
            outcome = str(response.status)
    except (aiohttp.ClientError, TimeoutError) as error:
        outcome = type(error).__name__
    finally:
        tally.waiting[name] -= 1
    tally.done.append(Answered(model=name, waited_s=time.monotonic() - began, ahead=ahead, outcome=outcome))


def _metrics(text: str) -> dict[str, float]:
    """Sums over the labels."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if match := re.match(
            r"(modelium_(?:model_(?:un)?load_duration_seconds_(?:sum|count)|swaps_total))(?:\{.*\})? (\S+)$", line
        ):
            found[match[1]] = found.get(match[1], 0.0) + float(match[2])
    return found


def _report(story: str, tally: Tally) -> None:
    waits = sorted(each.waited_s for each in tally.done)
    outcomes = Counter(each.outcome for each in tally.done)
    kind = "modelium_model_{}_duration_seconds_"
    load_s, unload_s = (
        tally.counted.get(kind.format(word) + "sum", 0.0) / max(1.0, tally.counted.get(kind.format(word) + "count", 0.0))
        for word in ("load", "unload")
    )
    loads, swaps = (tally.counted.get(name, 0.0) for name in (kind.format("load") + "count", "modelium_swaps_total"))
    cold = [each for each in tally.done if each.ahead]
    worst = max((each.waited_s / (each.ahead * (load_s + unload_s + 1)) for each in cold), default=0.0)
    over = sum(each.waited_s > _WITHIN * each.ahead * (load_s + unload_s + 1) for each in cold)
    print(f"{story}: {len(waits)} requests, {len(cold)} for a model that was not loaded; {loads:.0f} loads of {load_s:.1f} s,")
    print(f"  {swaps:.0f} unloads of {unload_s:.1f} s for somebody who waited; answers: {dict(outcomes)}")
    p50, p95 = statistics.median(waits), waits[int(len(waits) * 0.95)]
    print(f"  waits: p50 {p50:.2f} s, p95 {p95:.1f} s, longest {waits[-1]:.1f} s")
    print(f"  longest wait against what was ahead of it: {worst:.2f} times; {over} beyond {_WITHIN:g} times")


if __name__ == "__main__":
    main()

"""Thirty small models of which five fit, asked by Zipf's law on the real Triton: measured, and as the simulator predicts it.

The trace that Modelium kept (``GET /trace``), its models and its devices are simulated as ``modelium simulate --url`` does it;
what that says of cold starts and waiting seconds is held against what Modelium counted.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from served import Served, serve

sys.path.insert(0, str(Path(__file__).parent.parent))
from rich.console import Console
from rich.table import Table

from modelium.cli.remote import Remote
from modelium.cli.simulated import Asked, prepare
from modelium.config import load_settings
from modelium.simulation.runs import CONFIGURED, run_each
from modelium.simulation.tally import Outcome
from tests.server.systems import write_adder

_MODELS, _EACH, _BUDGET = 30, "300MiB", "1600MiB"  # five fit
_DEADLINE_S = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between requests, on average")
    parser.add_argument("--seed", type=int, default=8)
    options = parser.parse_args()
    names = [f"adder-{number:02d}" for number in range(_MODELS)]

    def drop(incoming: Path) -> None:
        for name in names:
            write_adder(incoming / f"{name}.onnx")

    settings = {
        "devices": {"host_memory": _BUDGET},
        "models": {name: {"memory": _EACH} for name in names},
        "orchestration": {"load_on_discovery": False},
    }
    with serve(settings, prepare=drop) as served:
        for name in names:
            served.wait(f"{name} is known", lambda name=name: served.model(name).get("state") == "UNLOADED", within_s=120)  # type: ignore[misc]
        requests = zipf(names, options.minutes * 60, options.every, random.Random(options.seed))
        outcomes = asyncio.run(_play(served, requests))
        counted = _metrics(str(served.ask("GET", "/metrics", port=served.metrics_port).body, "utf-8"))
        predicted = _predict(served)
    print(f"{options.minutes:g} minutes, a request each {options.every:g} s, seed {options.seed}; answers: {dict(outcomes)}")
    _report(counted, predicted)


def zipf(names: list[str], seconds: float, every_s: float, chance: random.Random) -> Iterator[tuple[float, str]]:
    """When which model is asked: the one on rank r with a share of 1/r."""
    now, shares = 0.0, [1 / rank for rank in range(1, len(names) + 1)]
    while (now := now + chance.expovariate(1 / every_s)) < seconds:
        yield now, chance.choices(names, shares)[0]


async def _play(served: Served, requests: Iterator[tuple[float, str]]) -> Counter[str]:
    """Each is sent when its time has come, whether or not those before are answered."""
    outcomes: Counter[str] = Counter()

    async def ask(http: aiohttp.ClientSession, name: str) -> None:
        try:
            async with http.post(f"/predict/{name}", json={"inputs": {"x": [[1.0]]}}) as response:
                await response.read()
                outcomes[str(response.status)] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            outcomes[type(error).__name__] += 1

    url, patience = f"http://127.0.0.1:{served.port}", aiohttp.ClientTimeout(total=_DEADLINE_S + 60)
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0), timeout=patience) as http:
        began, said, asking = time.monotonic(), 0.0, []
        for at, name in requests:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            asking.append(asyncio.create_task(ask(http, name)))
            if at - said >= 30:
                said = at
                print(f"  {at:4.0f} s: {outcomes.total()} of {len(asking)} answered", flush=True)
        await asyncio.gather(*asking)
    return outcomes


def _metrics(text: str) -> defaultdict[str, float]:
    """Sums over the labels."""
    found: defaultdict[str, float] = defaultdict(float)
    for name, value in re.findall(r"^(modelium_\w+)(?:\{.*\})? (\S+)$", text, re.MULTILINE):
        found[name] += float(value)
    return found


def _predict(served: Served) -> Outcome:
    """As ``modelium simulate --url`` does, with the configuration that was served."""
    asked = Asked(trace=None, models=None, fleet=None, policies=(CONFIGURED,), seed=0, duration_s=0.01)
    remote = Remote(f"http://127.0.0.1:{served.port}")
    setting, names = prepare(asked, load_settings(served.directory / "modelium.yaml"), remote)
    (outcome,) = run_each(setting, names)
    return outcome


def _report(counted: defaultdict[str, float], predicted: Outcome) -> None:
    load = "modelium_model_load_duration_seconds"
    unload = "modelium_model_unload_duration_seconds"
    print(
        f"a load took {counted[f'{load}_sum'] / max(1, counted[f'{load}_count']):.2f} s, "
        f"an unload {counted[f'{unload}_sum'] / max(1, counted[f'{unload}_count']):.2f} s"
    )
    table = Table("", "measured", "predicted", "error")
    rows = {
        "requests": (counted["modelium_requests_total"], predicted.requests),
        "cold starts": (counted["modelium_cold_starts_total"], predicted.cold_starts),
        "waiting seconds": (counted["modelium_cold_start_wait_seconds_sum"], predicted.waited_s),
        "loads": (counted[f"{load}_count"], predicted.loads),
        "load seconds": (counted[f"{load}_sum"], predicted.load_seconds),
        "unloads": (counted[f"{unload}_count"], predicted.evictions),
    }
    for what, (measured, said) in rows.items():
        error = f"{said / measured - 1:+.1%}" if measured else ""
        table.add_row(what, f"{measured:,.1f}", f"{said:,.1f}", error)
    Console().print(table)


if __name__ == "__main__":
    main()

"""How soon a model that is not loaded answers: born of a nursery, without one, and by stock Triton; and what a loaded one pays.

1. A model is unloaded, and asked when it is; from the request to the answer through the gateway. Both ways take turns, and with
   them a Triton without Modelium that loads MiniLM in an entry for its python backend (``plain.py``).
2. MiniLM, a ViT that gets pictures of 600 kB, and a Llama that writes 64 tokens, are asked by so many connections at once, in
   bursts, both ways in turns.

Aims: MiniLM within 0.4 s and ten times as soon as stock Triton, an ONNX file within 0.25 s; warm at least 0.95 times the
throughput, and at most 0.3 ms more.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from asked import EMBEDDER, IMAGES, LANGUAGE_MODEL, NURSERY, TINY, WAYS, WITHOUT, Model, ask, both_ways, models, picture, unload
from plain import Plain, plain
from rich.console import Console
from rich.table import Table
from served import Served
from warm_ways import Compared, compare

_TOKENS = 64
_QUIET_S = 0.5  # between an unload and the request: whoever comes back is not asked at once


@dataclass(slots=True, kw_only=True)
class Woken:
    """Seconds of each round: of the first request, of the one after it, of the unload; by way."""

    answers: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    warm: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    unloads: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10, help="of each model, each way")
    parser.add_argument("--without", type=int, help="of each model where there is no nursery, and of stock Triton (as many)")
    parser.add_argument("--bursts", type=int, default=5, help="of requests to a loaded model, each way")
    parser.add_argument("--seconds", type=float, default=3, help="that a burst lasts")
    every = [EMBEDDER, *TINY, LANGUAGE_MODEL]
    parser.add_argument("--only", action="append", choices=every, help="of these models; again for more (all)")
    options = parser.parse_args()
    chosen = [model for model in models() if model.name in (options.only or every)]
    console = Console(width=max(130, Console().width))
    with both_ways(chosen) as ways:
        if options.runs:
            with plain() as stock:
                stock.turn()  # the files are in the page cache then
                console.print(woken_table(*wake(ways, chosen, stock, options.runs, options.without)))
        compared: list[Compared] = []
        if options.bursts:
            tale = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": _TOKENS}}
            asked = {EMBEDDER: (None, (1, 16)), IMAGES: (picture(), (1, 16)), LANGUAGE_MODEL: (tale, (1, 8))}
            for body, counts, model in ((*asked[model.name], model) for model in chosen if model.name in asked):
                model = replace(model, body=body or model.body)
                for served in ways.values():
                    ask(served, model)
                compared += asyncio.run(
                    compare(ways, model, connections=counts, bursts=options.bursts, seconds=options.seconds)
                )
                for served in ways.values():
                    unload(served, model)
            console.print(warm_table(compared))


def wake(
    ways: dict[str, Served], chosen: Sequence[Model], stock: Plain, runs: int, without: int | None
) -> tuple[dict[str, Woken], list[tuple[float, float]]]:
    """By title of the model; and the plain entry's loads and answers, in the same rounds."""
    woken = {model.title: Woken() for model in chosen}
    plains = []
    for number in range(runs):
        for model in chosen:
            seen = woken[model.title]
            for way in list(WAYS) if number % 2 else list(reversed(WAYS)):
                if way == WITHOUT and without is not None and number >= without:
                    continue
                served = ways[way]
                time.sleep(_QUIET_S)
                seen.answers[way].append(ask(served, model))
                seen.warm[way].append(ask(served, model))
                seen.unloads[way].append(unload(served, model))
            if model.name == EMBEDDER and (without is None or number < without):
                time.sleep(_QUIET_S)
                plains.append(stock.turn())
        print(f"  {number + 1} of {runs} rounds", file=sys.stderr, flush=True)
    return woken, plains


def woken_table(woken: dict[str, Woken], plains: Sequence[tuple[float, float]]) -> Table:
    table = Table(title="request to an unloaded model → its answer, seconds; then the next answer; then the unload")
    columns = (NURSERY, "from to", WITHOUT, "from to", "times", "next, ms", WITHOUT, "unload", WITHOUT)
    for column in ("model", *columns):
        table.add_column(column, justify="left" if column == "model" else "right")
    for title, seen in woken.items():
        born, without = (statistics.median(seen.answers[way]) for way in (NURSERY, WITHOUT))
        table.add_row(
            title,
            *(cell for way in (NURSERY, WITHOUT) for cell in spread(seen.answers[way])),
            f"{without / born:.1f}",
            *(f"{statistics.median(seen.warm[way]) * 1e3:.1f}" for way in (NURSERY, WITHOUT)),
            *(f"{statistics.median(seen.unloads[way]):.3f}" for way in (NURSERY, WITHOUT)),
        )
    if plains and "MiniLM" in woken:
        born = statistics.median(woken["MiniLM"].answers[NURSERY])
        for what, seconds in zip(("load", "load, answer"), zip(*plains, strict=True), strict=True):
            times = f"{statistics.median(seconds) / born:.1f}"
            table.add_row(f"MiniLM, stock Triton: {what}", "", "", *spread(seconds), times, *[""] * 4)
    return table


def warm_table(compared: Sequence[Compared]) -> Table:
    table = Table(title="loaded models: both ways in turns")
    columns = ("requests/s", "without", "times", "median, ms", "without", "more", "p99, ms", "without", "CPU ms", "without")
    for column in ("model", "connections", *columns):
        table.add_column(column, justify="left" if column == "model" else "right")
    for one in compared:
        both = [one.ways[way] for way in (NURSERY, WITHOUT)]
        table.add_row(
            one.model.title,
            str(one.connections),
            *(f"{statistics.median(way.per_s):.1f}" for way in both),
            f"{one.throughput:.3f}",
            *(f"{statistics.median(way.ms):.2f}" for way in both),
            f"{one.more_ms:+.2f}",
            *(f"{percentile(way.ms, 0.99):.1f}" for way in both),
            *(f"{statistics.median(way.cpu_ms):.2f}" for way in both),
        )
    return table


def percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def spread(seconds: Sequence[float]) -> tuple[str, str]:
    return f"{statistics.median(seconds):.3f}", f"{min(seconds):.2f} {max(seconds):.2f}"


if __name__ == "__main__":
    main()

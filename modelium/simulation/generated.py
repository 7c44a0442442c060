"""Traces that nobody recorded: a line such as ``zipf:requests=100000,models=200`` enters, a trace leaves, the same for a seed.

Popularity is Zipf's (the model on rank r has a share of 1/r^exponent), visits come and go with the hour of the day, and a visit
is a burst of requests for one model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np

from modelium.nearest import nearest
from modelium.simulation.inputs import BadInput
from modelium.simulation.traces import LONGEST_DURATION_S, MOST_MODELS, MOST_REQUESTS, Trace

KIND = "zipf"
_DAY_S = 24 * 3600.0
_ROUNDS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """``exponent``: 0 is all alike. ``rhythm``: 0 is the same at all hours, 1 is nothing at the quietest. ``burst``: requests
    of a visit, ``gap_s`` apart; ``duration_s``: of an answer; all three are means. ``spread_h``: by how many hours the models'
    days differ.
    """

    requests: int = 100_000
    models: int = 200
    hours: float = 24.0
    exponent: float = 1.0
    rhythm: float = 0.6
    spread_h: float = 6.0
    burst: float = 4.0
    gap_s: float = 5.0
    duration_s: float = 1.5
    seed: int = 8


_MOST: dict[str, float] = {
    "requests": MOST_REQUESTS,
    "models": MOST_MODELS,
    "hours": 24 * 366.0,
    "exponent": 10.0,
    "rhythm": 1.0,
    "spread_h": 24.0,
    "burst": 10_000.0,
    "gap_s": 3600.0,
    "duration_s": LONGEST_DURATION_S,
    "seed": 2**63,
}
_LEAST: dict[str, float] = {"requests": 1, "models": 1, "hours": 0.01, "burst": 1.0, "gap_s": 0.001, "duration_s": 0.001}


def is_generated(text: str) -> bool:
    """Is it a line for ``parse_habits``, and no file?"""
    return text == KIND or text.startswith(f"{KIND}:")


def parse_habits(text: str, *, seed: int | None = None) -> Habits:
    """``zipf:requests=1000,models=20`` and so on; what is not said is as in ``Habits``. Raises ``BadInput``."""
    given: dict[str, float | int] = {}
    known = {field.name: field for field in fields(Habits)}
    for part in filter(None, text.partition(":")[2].split(",")):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in known or not equals:
            near = nearest(name, known)
            raise BadInput(f"{part!r} is not understood in {text!r}; {_advice(near, known)}")
        try:
            number = int(value) if known[name].type == "int" else float(value)
        except ValueError:
            raise BadInput(f"{name}={value} in {text!r}: that is no {known[name].type}") from None
        least, most = _LEAST.get(name, 0.0), _MOST[name]
        if not least <= number <= most:
            raise BadInput(f"{name}={value} in {text!r}: from {least:g} to {most:g}")
        given[name] = number
    habits = replace(Habits(), **given)  # type: ignore[arg-type]
    return habits if seed is None else replace(habits, seed=seed)


def _advice(near: list[str], known: Iterable[str]) -> str:
    return f"did you mean {near[0]}=…?" if near else f"it takes {', '.join(f'{name}=…' for name in known)}"


def generate(habits: Habits) -> Trace:
    """The requests of such users."""
    chance = np.random.default_rng(habits.seed)
    count, seconds = habits.requests, habits.hours * 3600.0
    shares = 1.0 / np.arange(1, habits.models + 1) ** habits.exponent
    names = tuple(f"m{number:0{len(str(habits.models - 1))}d}" for number in range(habits.models))
    who = chance.permutation(habits.models)  # names say nothing of ranks
    lengths = chance.geometric(1.0 / habits.burst, size=count)
    visits = int(np.searchsorted(np.cumsum(lengths), count)) + 1
    lengths = lengths[:visits]
    visitors = who[chance.choice(habits.models, size=visits, p=shares / shares.sum())]
    phases = chance.uniform(0.0, habits.spread_h / 24.0, size=habits.models)
    starts = _starts(chance, habits, phases[visitors], seconds)
    models = np.repeat(visitors, lengths)[:count]
    gaps = chance.exponential(habits.gap_s, size=len(models))
    ends = np.cumsum(lengths)
    firsts = np.concatenate(([0], ends[:-1]))
    gaps[firsts] = 0.0
    along = np.cumsum(gaps)
    times = np.repeat(starts, lengths)[:count] + along - np.repeat(along[firsts], lengths)[:count]
    durations = chance.exponential(habits.duration_s, size=count)
    order = np.argsort(times, kind="stable")
    times = times[order]
    return Trace(
        names=names,
        times=times - times[0],
        models=models[order].astype(np.int32),
        durations=durations[order].astype(np.float32),
    )


def _starts(
    chance: np.random.Generator, habits: Habits, phases: np.ndarray[tuple[int], np.dtype[np.float64]], seconds: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """When each visit begins: at any time alike, and taken again where the hour is a quiet one for its model."""
    starts = chance.uniform(0.0, seconds, size=len(phases))
    open_ = np.arange(len(phases))
    for _ in range(_ROUNDS):
        heights = 1.0 - habits.rhythm * (1.0 + np.cos(2 * np.pi * (starts[open_] / _DAY_S - phases[open_]))) / 2.0
        open_ = open_[chance.uniform(size=len(open_)) > heights]
        if not len(open_):
            break
        starts[open_] = chance.uniform(0.0, seconds, size=len(open_))
    return starts

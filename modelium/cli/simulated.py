"""``modelium simulate``: what was typed enters, what would have been leaves, as a table or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from modelium.cli import replies
from modelium.cli.remote import Remote
from modelium.cli.running import running_fleet, running_models
from modelium.cli.terminal import duration
from modelium.config import Settings
from modelium.names import printable
from modelium.simulation.generated import generate, is_generated, parse_habits
from modelium.simulation.inputs import BadInput, SimulatedModel
from modelium.simulation.picture import draw, require
from modelium.simulation.runs import Setting, check_names, run_each
from modelium.simulation.simulator import Conditions
from modelium.simulation.specs import in_words, of_the_trace, parse_fleet, plausible_models, read_models, spread
from modelium.simulation.tally import Outcome
from modelium.simulation.traces import Trace, parse_trace, read_trace

_FLEET = "8x80GiB"
_NAMED = 3
_SEED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The arguments of the verb."""

    trace: str | None
    models: Path | None
    fleet: str | None
    policies: Sequence[str]
    seed: int | None
    duration_s: float


def prepare(asked: Asked, settings: Settings, remote: Remote | None) -> tuple[Setting, tuple[str, ...]]:
    """What is to be simulated, and under which policies. ``remote``: the running Modelium that what is not given is taken of.

    Raises ``BadInput``, and what asking it raises.
    """
    policies = settings.policies()
    names = check_names(asked.policies, policies)
    trace = _trace(asked, remote)
    running = replies.models(remote.get("/models")) if remote is not None and not (asked.fleet and asked.models) else None
    if asked.fleet or running is None:
        fleet = parse_fleet(asked.fleet or _FLEET, gpu_fraction=settings.devices.gpu_memory_fraction)
    else:
        fleet = running_fleet(running)
    if asked.models is not None:
        known: Sequence[SimulatedModel] = read_models(asked.models)
    elif running is not None:
        known = running_models(running, settings, fleet)
    else:
        known = plausible_models(trace.names, fleet, seed=_SEED if asked.seed is None else asked.seed)
    models, unknown = of_the_trace(trace.names, known)
    if unknown:
        some = ", ".join(printable(trace.names[index], longest=60) for index in sorted(unknown)[:_NAMED])
        more = ", …" if len(unknown) > _NAMED else ""
        if asked.models is not None or len(unknown) == len(trace.names):
            where = asked.models or "the running Modelium"
            raise BadInput(f"{len(unknown)} models of the trace are not in {where}: {some}{more}")
        trace = trace.without(unknown)
        sys.stderr.write(f"modelium: {len(unknown)} models of the trace are not there any more and left out: {some}{more}\n")
    devices = {device.id for device in fleet.devices}
    for model in models:
        if model.device is not None and model.device not in devices:
            raise BadInput(f"{model.name} is to be on {model.device}, which is not in the fleet ({in_words(fleet)})")
    models = spread(models, fleet)
    orchestration = settings.orchestration.policies
    conditions = Conditions(
        request_timeout_s=settings.gateway.request_timeout_seconds,
        max_waiting=settings.gateway.max_waiting,
        drain_timeout_s=orchestration.drain_timeout_seconds,
        measure_every_s=orchestration.check_interval_seconds,
        usage_window_s=min(60.0, orchestration.evict_after_idle_seconds),
    )
    return Setting(trace=trace, models=models, fleet=fleet, policies=policies, conditions=conditions), names


def _trace(asked: Asked, remote: Remote | None) -> Trace:
    if asked.trace is None:
        assert remote is not None  # the verb has seen to it
        where = f"the trace of {remote.url}"
        return parse_trace(BytesIO(remote.get("/trace")), where, duration_s=asked.duration_s, mended=True)
    if is_generated(asked.trace):
        return generate(parse_habits(asked.trace, seed=asked.seed))
    if asked.trace == "-":
        return parse_trace(sys.stdin.buffer, "standard input", duration_s=asked.duration_s)
    return read_trace(Path(asked.trace), duration_s=asked.duration_s)


def run(setting: Setting, names: Sequence[str], picture: Path | None) -> list[Outcome]:
    """All of them, with a bar on a terminal; and the picture."""
    if picture is not None:
        require()
    with _progress() as tell:
        outcomes = list(run_each(setting, names, tell))
    if picture is not None:
        draw(outcomes, title(setting), picture)
    return outcomes


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, name: str, part: float) -> None:
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = self._bars.add_task(name, total=1.0)
        self._bars.update(task, completed=part)


@contextmanager
def _progress() -> Iterator[_Bars]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        yield _Bars(bars)


def title(setting: Setting) -> str:
    """What was simulated, in one line."""
    trace = setting.trace
    return f"{len(trace):,} requests for {len(trace.names):,} models in {duration(trace.seconds)}, on {in_words(setting.fleet)}"


def table(setting: Setting, outcomes: Sequence[Outcome]) -> Table:
    """A row each."""
    shown = Table(
        "policy", "cold starts", "waited", "cold p50 / p95 / p99", "missed", "refused", "loads", "evictions", "thrash",
        "memory taken / in use", title=title(setting),
    )  # fmt: skip
    for column in shown.columns[1:]:
        column.justify = "right"
    for each in outcomes:
        shown.add_row(
            each.policy,
            f"{each.cold_starts:,}",
            f"{each.waited_s:,.0f} s",
            f"{each.cold_p50_s:.1f} / {each.cold_p95_s:.1f} / {each.cold_p99_s:.1f} s",
            f"{each.missed:,}",
            f"{each.refused:,}",
            f"{each.loads:,} ({duration(each.load_seconds)})",
            f"{each.evictions:,}",
            f"{each.thrash:,}",
            f"{each.utilization:.0%} / {each.in_use:.1%}",
        )
    return shown


def as_json(setting: Setting, outcomes: Sequence[Outcome]) -> str:
    """The same for programs."""
    trace = setting.trace
    said = {
        "requests": len(trace),
        "models": len(trace.names),
        "seconds": trace.seconds,
        "fleet": [{"device": device.id, "budget_bytes": device.budget_bytes} for device in setting.fleet.devices],
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }
    return json.dumps(said, indent=2)

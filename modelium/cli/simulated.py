"""``modelium simulate``: what was typed enters, what would have been leaves, as a table or JSON."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from modelium.cli import replies
from modelium.cli.remote import Remote
from modelium.cli.running import running_fleet, running_models
from modelium.cli.terminal import duration
from modelium.config import Settings
from modelium.names import printable
from modelium.simulation.generated import generate, is_generated, parse_habits
from modelium.simulation.inputs import BadInput, SimulatedModel
from modelium.simulation.picture import require
from modelium.simulation.runs import Setting, check_names, run_each
from modelium.simulation.simulator import Conditions
from modelium.simulation.specs import (
    MADE,
    in_words,
    largest_made,
    not_held,
    of_the_trace,
    parse_fleet,
    parse_made,
    plausible_models,
    read_models,
    spread,
)
from modelium.simulation.tally import Outcome
from modelium.simulation.traces import LONGEST_DURATION_S, Trace, parse_trace, read_trace
from modelium.sizes import GIB

_FLEET = "8x80GiB"
_NAMED = 3
_SEED = 8
_TOLD_EVERY_S = 10.0  # where no terminal shows a bar


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
    if not 0 <= asked.duration_s <= LONGEST_DURATION_S:  # which nan is not either
        raise BadInput(f"--duration {asked.duration_s:g}: from 0 to {LONGEST_DURATION_S:,.0f} seconds")
    policies = settings.policies()
    names = check_names(asked.policies, policies)
    trace = _trace(asked, remote)
    running = replies.models(remote.get("/models")) if remote is not None and not (asked.fleet and asked.models) else None
    if asked.fleet or running is None:
        fleet = parse_fleet(asked.fleet or _FLEET, gpu_fraction=settings.devices.gpu_memory_fraction)
    else:
        fleet = running_fleet(running)
    made_up: str | None = None
    said = str(asked.models) if asked.models is not None else ""
    if asked.models is not None and not said.startswith(MADE):
        known: Sequence[SimulatedModel] = read_models(asked.models)
    elif running is not None and not said:
        known = running_models(running, settings, fleet)
    else:
        largest = parse_made(said) if said else largest_made(fleet)
        known = plausible_models(trace.names, largest, seed=_SEED if asked.seed is None else asked.seed)
        made_up = f"{MADE}{largest // GIB}GiB" if largest % GIB == 0 else f"{MADE}{largest}B"
    models, unknown = of_the_trace(trace.names, known)
    if unknown:
        some = ", ".join(printable(trace.names[index], longest=60) for index in sorted(unknown)[:_NAMED])
        more = ", …" if len(unknown) > _NAMED else ""
        if asked.models is not None or len(unknown) == len(trace.names):
            where = asked.models or "the running Modelium"
            raise BadInput(f"{_counted(len(unknown), 'model')} of the trace {_is(len(unknown))} not in {where}: {some}{more}")
        trace = trace.without(unknown)
        gone = f"{_counted(len(unknown), 'model')} of the trace {_is(len(unknown))} not there any more and left out"
        sys.stderr.write(f"modelium: {gone}: {some}{more}\n")
    devices = {device.id for device in fleet.devices}
    for model in models:
        if model.device is not None and model.device not in devices:
            raise BadInput(f"{model.name} is to be on {model.device}, which is not in the fleet ({in_words(fleet)})")
    models = spread(models, fleet)
    orchestration = settings.orchestration.policies
    conditions = Conditions(
        request_timeout_s=settings.gateway.request_timeout_seconds,
        max_waiting=settings.gateway.max_waiting,
        max_waiting_per_model=settings.gateway.max_waiting_per_model,
        drain_timeout_s=orchestration.drain_timeout_seconds,
        measure_every_s=orchestration.check_interval_seconds,
        usage_window_s=min(60.0, orchestration.evict_after_idle_seconds),
    )
    setting = Setting(trace=trace, models=models, fleet=fleet, policies=policies, conditions=conditions, made_up=made_up)
    return setting, names


def _trace(asked: Asked, remote: Remote | None) -> Trace:
    if asked.trace is None:
        assert remote is not None  # the verb has seen to it
        where = f"the trace of {remote.url}"
        return parse_trace(BytesIO(remote.get("/trace")), where, duration_s=asked.duration_s, mended=True)
    if is_generated(asked.trace):
        return generate(parse_habits(asked.trace, seed=asked.seed))
    if asked.trace == "-":
        return parse_trace(sys.stdin.buffer, "standard input", duration_s=asked.duration_s)
    kind = re.match(r"([A-Za-z_]{2,20}):", asked.trace)
    if kind is not None and not Path(asked.trace).exists():
        raise BadInput(
            f"{asked.trace} is no file, and {kind[1]!r} makes up no traces; zipf: does, as zipf:requests=1000,models=20"
        )
    return read_trace(Path(asked.trace), duration_s=asked.duration_s)


def run(setting: Setting, names: Sequence[str], picture: Path | None) -> list[Outcome]:
    """All of them, with a bar on a terminal and a line every some seconds elsewhere. ``picture``: where one is to be drawn
    afterwards, which is looked at before."""
    if picture is not None:
        require(picture)
    with _progress() as tell:
        return list(run_each(setting, names, tell))


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, name: str, part: float) -> None:
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = self._bars.add_task(name, total=1.0)
        self._bars.update(task, completed=part)


class Lines:
    """How far it is, where it is no terminal: a line every some seconds, and none for what is done before."""

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float]) -> None:
        self._write = write
        self._clock = clock
        self._told_at = clock()

    def __call__(self, name: str, part: float) -> None:
        """Of this policy, this part is done."""
        now = self._clock()
        if now - self._told_at >= _TOLD_EVERY_S:
            self._told_at = now
            self._write(f"modelium: simulates {name}: {part:.0%}\n")


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(sys.stderr.write, time.monotonic)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        yield _Bars(bars)


def title(setting: Setting) -> str:
    """What was simulated, in one line."""
    trace = setting.trace
    asked = f"{_counted(len(trace), 'request')} for {_counted(len(trace.names), 'model')} in {duration(trace.seconds)}"
    return f"{asked}, on {in_words(setting.fleet)}"


def caption(setting: Setting) -> str | None:
    """What has to be known to read the figures: that models were made up, and whom nothing can hold."""
    said = []
    if setting.made_up is not None:
        said.append(
            f"The models were made up: compare policies, do not read the seconds as a prediction. "
            f"The same for another fleet: --models {setting.made_up}"
        )
    if lost := not_held(setting.models, setting.fleet):
        more = ", …" if len(lost) > _NAMED else ""
        said.append(f"Nothing can hold {_counted(len(lost), 'model')}: {', '.join(lost[:_NAMED])}{more}")
    return "\n".join(said) or None


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def table(setting: Setting, outcomes: Sequence[Outcome]) -> Table:
    """A row each."""
    shown = Table(
        "policy", "cold starts", "waited", "cold p50 / p95 / p99", "missed", "refused", "loads", "evictions", "thrash",
        "memory taken / in use", title=title(setting), caption=Text(caption(setting) or ""),
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
        "models_made_up": setting.made_up,
        "not_held": not_held(setting.models, setting.fleet),
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }
    return json.dumps(said, indent=2)

"""Loads and unloads on the real Triton: what models were estimated and measured to take, and what does not come back.

First a table: estimated, measured, error, for a real embedder, an ONNX graph and three language models that vLLM serves on the
CPU, each alone and at work. Then the embedder is loaded, asked once and unloaded ``--cycles`` times, and a language model a
fifth as often: the memory of all of Modelium's processes together (proportional, so that a page which n of them share is
counted once) before and after, its trend over the cycles, how often an unload had to kill, and how long loads, unloads and
cycles took; and what Triton and the nursery hold after the first cycles and after the last (``held.py``).

On a machine with GPUs, models go there, and what is measured is NVML's: of the models' processes in the table, of the whole
devices in the cycles. Nobody else should use them meanwhile.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from at_work import EMBEDDER, LANGUAGE_MODEL, PATIENCE_S, RUNTIMES, WORK, post, write_model
from held import Held, held_by, held_table, nursery_listens, register
from served import ROOT, Served, serve

sys.path.insert(0, str(ROOT))
from rich.console import Console
from rich.table import Table

from modelium.devices import Devices
from modelium.devices.footprints import resident_bytes, unshared_bytes
from modelium.sizes import MIB, human_bytes

_WARM = 0.1  # the part of the cycles after which libraries and allocators have what they keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """A model's memory on its device: as estimated before its first load, and the most that was measured. ``alone_bytes``: what
    that is where no other program maps the same libraries, of which each counts a part of them. ``error``: 0.1 when it was a
    tenth too much."""

    name: str
    runtime: str
    device: str
    estimated_bytes: int
    measured_bytes: int
    alone_bytes: int

    @property
    def error(self) -> float:
        return self.estimated_bytes / self.measured_bytes - 1 if self.measured_bytes else float("nan")

    @property
    def error_alone(self) -> float:
        return self.estimated_bytes / self.alone_bytes - 1 if self.alone_bytes else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycles:
    """``before_bytes`` and ``after_bytes`` are medians, of the first and the last tenth after those that warm up;
    ``trend_bytes`` is the regression's, a cycle, and ``trend_error_bytes`` its standard error."""

    name: str
    cycles: int
    before_bytes: int
    after_bytes: int
    trend_bytes: float
    trend_error_bytes: float
    own_bytes: int  # what no file backs, after the last cycle beyond after the first of those
    own_trend_bytes: float  # and of that alone: it does not depend on who else maps the same libraries
    own_trend_error_bytes: float
    by_part: dict[str, float]  # the trend of each kind of process
    device_bytes: dict[str, int]  # of each GPU: used after the last unload, beyond before the first load
    marked_bytes: dict[str, int]  # what Modelium itself shows as leaked, by device
    escalations: int
    load_seconds: tuple[float, ...]
    unload_seconds: tuple[float, ...]
    cycle_seconds: tuple[float, ...]  # a load, a request, an unload, as a client sees them
    held: tuple[Held, Held]  # after those that warm up, and after the last one
    bytes: tuple[int, ...]  # of all processes, after each cycle

    @property
    def leaked_bytes(self) -> int:
        return self.after_bytes - self.before_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=100, help="of the embedder; of the language model a fifth of that")
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    parser.add_argument("--gpu", action="store_true", help="fail where no GPU is used")
    parser.add_argument("--without-nursery", action="store_true", help="models load in their stubs, as they did once")
    parser.add_argument("--only", action="append", choices=list(WORK), help="of these models; again for more (all)")
    options = parser.parse_args()
    work = {name: WORK[name] for name in options.only or WORK}

    def prepare(incoming: Path) -> None:
        for name in work:
            write_model(incoming, name)

    settings = {
        "triton": {"nursery": not options.without_nursery},
        "orchestration": {
            "load_on_discovery": False,
            "policies": {"check_interval_seconds": 1, "correct_estimates": False, "min_residence_seconds": 0},
        },
        "gateway": {"request_timeout_seconds": PATIENCE_S},
    }
    with serve(settings, prepare=prepare) as served:
        if options.gpu and not gpus(served):
            raise SystemExit("NVML shows no GPU here (modelium doctor says more): there is nothing to check")
        for name in work:
            served.wait(f"{name} is known", lambda name=name: served.model(name).get("state") == "UNLOADED", within_s=600)  # type: ignore[misc]
        if not options.without_nursery:  # what loads before they listen is weighed as it is without
            kinds = {RUNTIMES[name] for name in work}
            served.wait("the nurseries listen", lambda: nursery_listens(served, *kinds), within_s=300)
        weighed = [weigh(served, name, ask) for name, ask in work.items()]
        if not options.json:
            show_weighed(weighed)
        times = {EMBEDDER: options.cycles, LANGUAGE_MODEL: max(1, options.cycles // 5)}
        turned = []
        for name in (name for name in times if name in work):
            turned.append(turn(served, name, times[name]))
            if not options.json:
                show_cycles(turned[-1])
    if options.json:
        shown = {
            "weighed": [{**asdict(one), "error": one.error, "error_alone": one.error_alone} for one in weighed],
            "cycles": [{**asdict(one), "leaked_bytes": one.leaked_bytes} for one in turned],
        }
        print(json.dumps(shown, indent=1))


# -- what is measured ------------------------------------------------------------------------------------------------


def weigh(served: Served, name: str, ask: Callable[[Served, str], None]) -> Weighed:
    """Alone on its device, at work, until a reading after that has said what it holds."""
    post(served, f"/models/{name}/load")
    ask(served, name)
    time.sleep(3)  # three readings
    served.wait(f"{name} is weighed", lambda: served.model(name).get("measured_bytes") is not None, within_s=120)
    seen = served.model(name)
    born = register(served.directory, "children")  # what such a model shares is the nursery's, and not measured
    alone = weigh_alone(served, name) if seen["device"] == "host" and not born else seen["measured_bytes"]
    post(served, f"/models/{name}/unload")
    return Weighed(
        name=name,
        runtime=seen["runtime"],
        device=seen["device"],
        estimated_bytes=seen["estimated_bytes"],
        measured_bytes=seen["measured_bytes"],
        alone_bytes=alone,
    )


def weigh_alone(served: Served, name: str) -> int:
    """Its processes' memory that no file backs, and the most that one of them maps of files."""
    triton = next(process.pid for process in served.processes() if process.name() == "tritonserver")
    devices = Devices(host_memory=None, gpu_memory_fraction=0.9)
    own, files = 0, 0
    for process in devices.processes(triton).get(name, ()):
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        kib = {key: int(size) for key, size in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
        own += (kib["Pss_Anon"] + kib["Pss_Shmem"]) * 1024
        files = max(files, (kib["Rss"] - kib["Anonymous"] - kib["Pss_Shmem"]) * 1024)
    return own + files


def parts(served: Served) -> dict[str, int]:
    """The memory of Modelium's processes by kind."""
    found: dict[str, int] = {"modelium": resident_bytes([served.pid])}
    for process in served.processes():
        try:
            kind = process.name()
        except Exception:  # it ended
            continue
        found[kind] = found.get(kind, 0) + resident_bytes([process.pid])
    return found


def gpus(served: Served) -> dict[str, int]:
    devices = served.ask("GET", "/models").body["devices"]
    return {device["id"]: device["used_bytes"] for device in devices if device["kind"] == "cuda"}


def escalations(served: Served) -> int:
    text = str(served.ask("GET", "/metrics", port=served.metrics_port).body, "utf-8")
    return int(sum(map(float, re.findall(r"^modelium_model_unload_kills_total\{.*\} (\S+)$", text, re.MULTILINE))))


def turn(served: Served, name: str, times: int) -> Cycles:
    killed, gpus_before = escalations(served), gpus(served)
    seen: list[dict[str, int]] = []
    own: list[int] = []
    loads, unloads, whole = [], [], []
    held: list[Held] = []
    for number in range(1, times + 1):
        began = time.perf_counter()
        post(served, f"/models/{name}/load")
        post(served, f"/predict/{name}", {"inputs": "is anybody there?"})
        after = post(served, f"/models/{name}/unload")
        whole.append(time.perf_counter() - began)
        loads.append(after["load_seconds"])
        unloads.append(after["unload_seconds"])
        seen.append(parts(served))
        own.append(unshared_bytes([served.pid, *(process.pid for process in served.processes())]))
        if number in (int(times * _WARM) + 1, times):
            held.append(held_by(served))
        if number % 10 == 0 or number == times:
            shown = ", ".join(f"{kind} {human_bytes(size)}" for kind, size in seen[-1].items())
            print(f"  {name}: {number} of {times} cycles; {shown}", file=sys.stderr, flush=True)
    steady = seen[int(times * _WARM) :]
    sums, some = [sum(one.values()) for one in steady], max(1, len(steady) // 10)
    trend, error = regress(sums)
    own = own[int(times * _WARM) :]
    own_trend, own_error = regress(own)
    kinds = sorted({kind for one in steady for kind in one})
    return Cycles(
        name=name,
        cycles=times,
        before_bytes=int(statistics.median(sums[:some])),
        after_bytes=int(statistics.median(sums[-some:])),
        trend_bytes=trend,
        trend_error_bytes=error,
        own_bytes=int(statistics.median(own[-some:]) - statistics.median(own[:some])),
        own_trend_bytes=own_trend,
        own_trend_error_bytes=own_error,
        by_part={kind: regress([one.get(kind, 0) for one in steady])[0] for kind in kinds},
        device_bytes={device: used - gpus_before.get(device, 0) for device, used in gpus(served).items()},
        marked_bytes={
            device["id"]: device["leaked_bytes"]
            for device in served.ask("GET", "/models").body["devices"]
            if device.get("leaked_bytes")
        },
        escalations=escalations(served) - killed,
        load_seconds=tuple(loads),
        unload_seconds=tuple(unloads),
        cycle_seconds=tuple(whole),
        held=(held[0], held[-1]),
        bytes=tuple(sum(one.values()) for one in seen),
    )


def regress(values: Sequence[float]) -> tuple[float, float]:
    """The slope a step, and its standard error."""
    if len(values) < 3:
        return 0.0, 0.0
    steps = range(len(values))
    slope, intercept = statistics.linear_regression(steps, values)
    rest = sum((value - intercept - slope * step) ** 2 for step, value in zip(steps, values, strict=True))
    middle = statistics.mean(steps)
    spread = sum((step - middle) ** 2 for step in steps)
    return slope, (rest / (len(values) - 2) / spread) ** 0.5


# -- what is said ----------------------------------------------------------------------------------------------------


def show_weighed(weighed: Sequence[Weighed]) -> None:
    table = Table("model", "runtime", "device", "estimated", "measured", "error", "alone", "error")
    for one in weighed:
        measured, alone = human_bytes(one.measured_bytes), human_bytes(one.alone_bytes)
        errors = f"{one.error:+.1%}", f"{one.error_alone:+.1%}"
        table.add_row(
            one.name, one.runtime, one.device, human_bytes(one.estimated_bytes), measured, errors[0], alone, errors[1]
        )
    Console(width=max(100, Console().width)).print(table)


def show_cycles(one: Cycles) -> None:
    print(f"{one.name}, {one.cycles} cycles:")
    print(f"  all processes: {human_bytes(one.before_bytes)}, then {human_bytes(one.after_bytes)}: {signed(one.leaked_bytes)}")
    by_part = ", ".join(f"{kind} {signed(size)}" for kind, size in one.by_part.items())
    print(f"  trend a cycle: {signed(one.trend_bytes)} (standard error {signed(one.trend_error_bytes)}): {by_part}")
    own = f"{signed(one.own_trend_bytes)} a cycle (standard error {signed(one.own_trend_error_bytes)})"
    print(f"  of it what no file backs: {signed(one.own_bytes)}, {own}")
    for device, size in one.device_bytes.items():
        print(f"  {device}: {signed(size)} of it in use more than before")
    marked = ", ".join(f"{device} {human_bytes(size)}" for device, size in one.marked_bytes.items())
    print(f"  marked as leaked: {marked or 'nothing'}; unloads that had to kill: {one.escalations}")
    for what, seconds in (("load", one.load_seconds), ("unload", one.unload_seconds), ("cycle", one.cycle_seconds)):
        low, high, late = min(seconds), max(seconds), sorted(seconds)[int(len(seconds) * 0.99)]
        print(f"  {what} seconds: median {statistics.median(seconds):.2f}, p99 {late:.2f}, {low:.2f} to {high:.2f}")
    Console(width=max(120, Console().width)).print(held_table(*one.held))


def signed(size: float) -> str:
    return f"{size / MIB:+,.2f} MiB"


if __name__ == "__main__":
    main()

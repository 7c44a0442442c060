"""2,000 hostile folders in one minute beside a good model: does anybody notice, and does it come back from a restart amid them?

Asked: no request of the good model failed outside of the restart, no pause of the event loop of 200 ms, Modelium's process grew
by at most 300 MB (its two workers may take 512 MiB each, and are shown apart), nothing outside ``incoming/`` was touched, no
list was refused, and a folder that went beyond a limit was looked at once. The folders are of the kinds of ``tests/hostile.py``
(the first of each is 16 times as heavy) and of one more that no reader bounds: a megabyte of Python that takes over 512 MiB to
parse.

Nothing hostile is loaded (``load_on_discovery: false``): this is about looking at folders. The clients share the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
from served import Served, serve

from tests import hostile
from tests.models import ensure_models

GOOD = "onnx-dynamic"
BODY = {"inputs": {"x": [[1, 2, 3, 4]]}}
QUIET_S = 30.0
DROPPING_S = 60.0
MOST_PAUSE_S = 0.2
MOST_GROWTH_BYTES = 300e6
VIEWS = ("/models", "/plan", "/")
BEYOND = "beyond-a-limit"
HEAVY_BYTES = 64 * 1024
_OVER = re.compile(r"incoming/(\S+): .*it is not looked at again")
_PAUSE = re.compile(r"^modelium_loop_longest_pause_seconds (\S+)$", re.MULTILINE)


@dataclass(slots=True)
class Phase:
    """What was seen in one stretch of time."""

    name: str
    good_ms: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    refused_views: list[str] = field(default_factory=list)
    longest_view_ms: float = 0.0
    pause_s: float = 0.0
    rss_bytes: int = 0
    workers_rss_bytes: int = 0


class Witness:
    """Asks the good model all the time, the views every second, and what Modelium measures; each into the phase of the day."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.phase = Phase("before")
        self._stop = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        threads = [threading.Thread(target=work) for work in (self._ask, self._view)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def enter(self, name: str) -> Phase:
        self.phase = Phase(name)
        return self.phase

    def _ask(self) -> None:
        while not self._stop.wait(0.05):
            phase, began = self.phase, time.perf_counter()
            try:
                answer = self._served.ask("POST", f"/predict/{GOOD}", BODY)
                trouble = "" if answer.status == 200 else f"{answer.status} {str(answer.body)[:200]}"
            except (OSError, HTTPException) as error:
                trouble = repr(error)
            if phase is not self.phase and "restart" in (phase.name, self.phase.name):
                continue  # it belongs to the restart
            if trouble:
                phase.failed.append(trouble)
            phase.good_ms.append((time.perf_counter() - began) * 1e3)

    def _view(self) -> None:
        while not self._stop.wait(1.0):
            phase = self.phase
            with suppress(psutil.Error):
                phase.rss_bytes = max(phase.rss_bytes, psutil.Process(self._served.pid).memory_info().rss)
                phase.workers_rss_bytes = max(phase.workers_rss_bytes, workers_rss_bytes(self._served))
            try:
                for path in VIEWS:
                    began = time.perf_counter()
                    answer = self._served.ask("GET", path)
                    phase.longest_view_ms = max(phase.longest_view_ms, (time.perf_counter() - began) * 1e3)
                    if answer.status != 200:
                        phase.refused_views.append(f"{path}: {answer.status} {str(answer.body)[:200]}")
                answer = self._served.ask("GET", "/metrics", port=self._served.metrics_port)
                phase.pause_s = max(phase.pause_s, float(_PAUSE.findall(answer.body.decode())[0]))
            except (OSError, HTTPException) as error:
                phase.refused_views.append(repr(error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folders", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=DROPPING_S)
    parser.add_argument("--known-within", type=float, default=900, help="seconds, after which it ends whatever is known")
    options = parser.parse_args()
    names = [*hostile.KINDS, BEYOND]
    beyond = [number for number in range(options.folders) if names[number % len(names)] == BEYOND]
    settings = {
        "orchestration": {"load_on_discovery": False, "policies": {"always_loaded": [GOOD]}},
        "models": {folder_name(BEYOND, number): {"allow_custom_code": True} for number in beyond},
    }
    faults: list[str] = []
    print(f"load of this machine at the start: {os.getloadavg()[0]:.1f} of {os.cpu_count()} processors")
    with serve(settings, prepare=put_good) as served:
        templates = make_templates(served.directory / "templates")
        neighbour = hostile.lay(served.directory / "neighbour", hostile.model(hostile.BERT))
        served.wait("the good model is loaded", lambda: served.model(GOOD).get("state") == "LOADED", within_s=120)
        witness = Witness(served)
        with witness.watching():
            time.sleep(62)  # what the start held up is over, and out of the metric's minute
            quiet = witness.enter("quiet")
            time.sleep(QUIET_S)
            before = listing(served.directory)
            first = witness.enter("attack")
            began = time.monotonic()
            half = options.folders // 2
            drop(served, templates, names, range(half), until=began + options.seconds / 2)
            restarting = witness.enter("restart")
            at = time.monotonic()
            served.restart()
            served.wait("the good model answers again", lambda: answers(served), within_s=180)
            back_s = time.monotonic() - at
            second = witness.enter("attack after the restart")
            rest = range(half, options.folders)
            drop(served, templates, names, rest, until=time.monotonic() + options.seconds / 2)
            dropped = listing(served.incoming)
            deadline = time.monotonic() + options.known_within
            while not (known := all_known(served, options.folders + 1)) and time.monotonic() < deadline:
                time.sleep(1)
            known_s = time.monotonic() - began
            tail = witness.enter("all known")
            time.sleep(5)
        states = Counter(model["state"] for model in served.ask("GET", "/models").body["models"])
        if listing(served.directory) != before:
            faults.append(f"touched: {sorted(listing(served.directory).items() ^ before.items())[:5]}")
        if listing(served.incoming) != dropped:
            faults.append("a folder in incoming/ was touched")
        over = Counter(_OVER.findall(served.log.read_text(errors="replace")))
        faults += [f"{name} was looked at {count} times" for name, count in over.items() if count > 1]
        del neighbour
    phases = [quiet, first, restarting, second, tail]
    said = f"{'all' if known else 'NOT all'} known {known_s:.0f} s after the first"
    print(f"{options.folders} folders of {len(names)} kinds in {options.seconds:g} s; {said}")
    print(f"the good model answered again {back_s:.1f} s after the restart began; beyond a limit {len(over)}; {dict(states)}")
    columns = ("asked", "failed", "p50", "p99", "longest", "pause", "views", "RSS", "workers")
    print(f"{'':<26}" + "".join(f"{column:>9}" for column in columns))
    for phase in phases:
        print(line(phase))
        if phase is not restarting:
            faults += [f"{phase.name}: a good request failed: {each}" for each in phase.failed[:5]]
            faults += [f"{phase.name}: a view failed: {each}" for each in phase.refused_views[:5]]
        if phase in (first, second) and phase.pause_s >= MOST_PAUSE_S:
            faults.append(f"{phase.name}: the loop paused for {phase.pause_s * 1e3:.0f} ms")
    grown = max(phase.rss_bytes for phase in phases) - quiet.rss_bytes
    print(f"Modelium's process grew by {grown / 1e6:.0f} MB")
    if grown > MOST_GROWTH_BYTES:
        faults.append(f"grew by {grown / 1e6:.0f} MB")
    for fault in faults:
        print("WRONG", fault)
    sys.exit(bool(faults))


def line(phase: Phase) -> str:
    ms = sorted(phase.good_ms) or [0.0]
    p99 = ms[min(len(ms) - 1, int(len(ms) * 0.99))]
    times = (statistics.median(ms), p99, ms[-1], phase.pause_s * 1e3, phase.longest_view_ms)
    sizes = (phase.rss_bytes, phase.workers_rss_bytes)
    cells = [str(len(phase.good_ms)), str(len(phase.failed)), *(f"{each:.0f} ms" for each in times)]
    cells += [f"{each / 1e6:.0f} MB" for each in sizes]
    return f"{phase.name:<26}" + "".join(f"{cell:>9}" for cell in cells)


def put_good(incoming: Path) -> None:
    shutil.copy(ensure_models(names=(GOOD,)) / f"{GOOD}.onnx", incoming)


def answers(served: Served) -> bool:
    return served.ask("POST", f"/predict/{GOOD}", BODY, timeout_s=60).status == 200


def all_known(served: Served, count: int) -> bool:
    models = served.ask("GET", "/models").body["models"]
    return len(models) == count and not any(model["reason"] == "found, not looked at yet" for model in models)


def workers_rss_bytes(served: Served) -> int:
    """Of the processes that look at folders."""
    workers = [child for child in psutil.Process(served.pid).children(recursive=True) if _looks(child)]
    return sum(worker.memory_info().rss for worker in workers)


def _looks(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "modelium.analysis.worker" in process.cmdline()
    return False


# -- folders -------------------------------------------------------------------------------------------------------------


def folder_name(kind: str, number: int) -> str:
    return f"{kind}-{number:04}"


def make(kind: str, folder: Path, megabytes: int) -> None:
    if kind == BEYOND:
        hostile.lay(folder, {"serve_app.py": "app=[" + "[]," * 340_000 + "]\n"})
    else:
        hostile.KINDS[kind](folder, megabytes)


def make_templates(directory: Path) -> Mapping[str, Path]:
    """One of each kind that takes long to make: the others of it are copies."""
    templates = {}
    for kind in [*hostile.KINDS, BEYOND]:
        make(kind, directory / kind, 1)
        if sum(path.lstat().st_size for path in (directory / kind).rglob("*")) > HEAVY_BYTES:
            templates[kind] = directory / kind
        else:
            shutil.rmtree(directory / kind)
    return templates


def drop(served: Served, templates: Mapping[str, Path], names: list[str], numbers: range, *, until: float) -> None:
    for left, number in zip(range(len(numbers), 0, -1), numbers, strict=True):
        kind = names[number % len(names)]
        folder = served.incoming / folder_name(kind, number)
        if number < len(names):
            make(kind, folder, 16)
        elif kind in templates:
            shutil.copytree(templates[kind], folder, symlinks=True)
        else:
            make(kind, folder, 1)
        time.sleep(max(0.0, (until - time.monotonic()) / left))


def listing(top: Path) -> dict[str, str]:
    """Every file that is not Modelium's own, by what would change if it were touched."""
    own = {"incoming", "repository", ".repository.staging", "state", "serve.log"}
    found = {}
    for path in sorted(top.rglob("*")):
        inner = path.relative_to(top)
        if inner.parts[0] in own:
            continue
        facts = path.lstat()
        found[str(inner)] = f"{facts.st_mode:o} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"
    passwd = Path("/etc/passwd")
    found[str(passwd)] = hashlib.sha256(passwd.read_bytes()).hexdigest()
    return found


if __name__ == "__main__":
    main()

"""SIGKILL for a whole Modelium at random moments under load, again and again: is it always back, and is nothing left?

Clients ask two models that are always wanted; others are loaded, unloaded and dropped in two parts meanwhile. After each kill
Modelium is started again at once, as an init system would, also while the guardian of the run before still cleans up. The
moments are drawn from ``--seed``: about two in five fall into a start, before it answers, the others into a run that was seen
to answer.

One line a run. *Listens* is the time from its start to the first connection that the gateway takes, *back* to an answer of
both models; a run that is killed in its start has no *back*. *Left* is what was there of earlier runs when it was back, and
once more after an orderly end: processes, their files in /dev/shm, work in the repository's workshop, half-written files in
the state directory, and in the end ports.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import http.client
import itertools
import random
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from left import Past, shm_prefix, taken, what_is_left
from onnx import TensorProto, helper
from served import Place, Served, lay_out

from modelium.values import State

_STEADY = ("steady-0", "steady-1")
_BACK_WITHIN_S = 180.0
_IN_A_START = 0.4  # of the kills
_SETTINGS = {
    "devices": {"host_memory": "4GiB"},
    "orchestration": {
        "model_discovery": {"scan_interval_seconds": 2},
        "policies": {"always_loaded": list(_STEADY), "check_interval_seconds": 1},
    },
}


@dataclass(slots=True)
class Load:
    """What the clients see, whichever run is up, and whether they shall stop."""

    served: Served
    stop: threading.Event = field(default_factory=threading.Event)
    seen: Counter[str] = field(default_factory=Counter)


class Run:
    """One start of Modelium, and how it went."""

    def __init__(self, place: Place) -> None:
        self.began = time.monotonic()
        self.served = place.start()
        self.listens_s: float | None = None
        self.back_s: float | None = None
        self.left: list[str] = []
        threading.Thread(target=self._until_listens, daemon=True).start()

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.began

    def until_back(self) -> None:
        def both_answer() -> bool:
            return all(asks(self.served, name) == 200 for name in _STEADY)

        self.served.wait("both models answer", both_answer, within_s=_BACK_WITHIN_S)
        self.back_s = self.age_s

    def _until_listens(self) -> None:
        while self.served.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.served.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                self.listens_s = self.age_s
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds of answering after which the latest kill falls")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    place = lay_out(Path(tempfile.mkdtemp(prefix="modelium-kill-")), _SETTINGS)
    for name in _STEADY:
        (place.directory / "incoming" / f"{name}.onnx").write_bytes(adder())
    print(f"seed {options.seed}")
    print(" run  listens      back  killed after  during                     answered refused broken  left of earlier runs")
    runs, past = [Run(place)], Past()
    atexit.register(lambda: runs[-1].served.process.kill())  # what it leaves, its guardian ends
    load = Load(runs[0].served)
    with under(load, chance):
        for number in range(options.kills):
            run = runs[-1]
            in_its_start = number > 0 and chance.random() < _IN_A_START
            if in_its_start:
                time.sleep(chance.uniform(0.0, max((each.back_s or 0.0 for each in runs[-4:]), default=5.0)))
            else:
                look(run, place, past)
                time.sleep(chance.uniform(0.0, options.longest))
            during, after_s = state_of(run.served), run.age_s
            past.note(place.directory)
            run.served.process.kill()
            run.served.process.wait()
            runs.append(Run(place))
            load.served = runs[-1].served
            show(len(runs) - 1, run, f"{after_s:>10.1f} s", during, load)
        look(runs[-1], place, past)
    past.note(place.directory)
    runs[-1].served.process.terminate()
    runs[-1].served.process.wait(timeout=60)
    show(len(runs), runs[-1], f"{'-':>12}", "ended in order", load)
    finish(runs, [*what_is_left(place.directory, past.processes, past.prefixes), *taken(place.ports)])
    shutil.rmtree(place.directory)


def look(run: Run, place: Place, past: Past) -> None:
    """Wait until the run is back, and see what is there of those before it."""
    run.until_back()
    run.left = what_is_left(place.directory, past.processes, past.prefixes - {shm_prefix(place.directory)})


def show(number: int, run: Run, killed: str, during: str, load: Load) -> None:
    seen, load.seen = load.seen, Counter()
    listens, back = (f"{each:>6.1f} s" if each is not None else f"{'-':>8}" for each in (run.listens_s, run.back_s))
    counts = f"{seen['answered']:>8} {seen['refused']:>7} {seen['broken']:>6}"
    left = ", ".join(run.left) or ("nothing" if run.back_s is not None else "-")
    print(f"{number:>4} {listens}  {back}  {killed}  {during:<26} {counts}  {left}", flush=True)


def finish(runs: list[Run], left: list[str]) -> None:
    after_a_kill = runs[1:]
    listens = sorted(run.listens_s for run in after_a_kill if run.listens_s is not None)
    back = sorted(run.back_s for run in after_a_kill if run.back_s is not None)
    in_starts = sum(run.back_s is None for run in runs)
    print(
        f"{len(after_a_kill)} kills, {in_starts} of them in a start; {len(back)} of {len(back)} starts that were let be: back"
    )
    print(f"  listens after: median {listens[len(listens) // 2]:.1f} s, longest {listens[-1]:.1f} s")
    print(f"  back after: median {back[len(back) // 2]:.1f} s, longest {back[-1]:.1f} s")
    print(f"  after an orderly end: {', '.join(left) or 'no process, shared memory, port or file'} left")
    if left or any(run.left for run in runs):
        raise SystemExit(f"something was left: {runs[0].served.directory} is kept")


def asks(served: Served, name: str) -> int:
    """The status; 0 for a wrong answer."""
    answer = served.ask("POST", f"/predict/{name}", {"inputs": {"x": [[1.0]]}}, timeout_s=30)
    return answer.status if answer.status != 200 or answer.body["y"] == [[2.0]] else 0


def state_of(served: Served) -> str:
    """What goes on at this moment, by Modelium's own words."""
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
        states = Counter(model["state"] for model in served.ask("GET", "/models", timeout_s=2).body["models"])
        busy = {state: count for state, count in states.items() if State(state).is_moving}
        return ", ".join(f"{count} {state}" for state, count in sorted(busy.items())) or f"{states['LOADED']} LOADED"
    return "start, nobody listens"


# -- the load ------------------------------------------------------------------------------------------------------


def adder(weight_floats: int = 1000) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])
    constants = [
        helper.make_tensor("amount", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("ballast", TensorProto.FLOAT, [weight_floats], bytes(4 * weight_floats), raw=True),
    ]
    graph = helper.make_graph([helper.make_node("Add", ["x", "amount"], ["y"])], "adder", [x], [y], constants)
    made = onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(made.SerializeToString())


@contextlib.contextmanager
def under(load: Load, chance: random.Random) -> Iterator[None]:
    """Clients, somebody who drops and removes models, and somebody who loads and unloads, until the end of the context."""
    seeds = [chance.random() for _ in range(2)]
    threads = [threading.Thread(target=client, args=(load,), daemon=True) for _ in range(3)]
    threads.append(threading.Thread(target=dropper, args=(load, random.Random(seeds[0])), daemon=True))
    threads.append(threading.Thread(target=operator, args=(load, random.Random(seeds[1])), daemon=True))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        load.stop.set()
        for thread in threads:
            thread.join(timeout=60)


def client(load: Load) -> None:
    for name in itertools.cycle(_STEADY):
        if load.stop.wait(0.01):
            return
        try:
            load.seen["answered" if asks(load.served, name) == 200 else "refused"] += 1
        except (OSError, http.client.HTTPException):
            load.seen["broken"] += 1  # killed, or not up yet


def dropper(load: Load, chance: random.Random) -> None:
    """A new model about twice a second, copied in two parts; the oldest of many goes."""
    incoming, numbers = load.served.incoming, itertools.count()
    while not load.stop.wait(chance.uniform(0.1, 0.6)):
        path = incoming / f"dropped-{next(numbers)}.onnx"
        whole = adder(chance.randrange(1, 500_000))
        with path.open("wb") as file:
            file.write(whole[: len(whole) // 2])
            file.flush()
            load.stop.wait(0.05)
            file.write(whole[len(whole) // 2 :])
        dropped = sorted(incoming.glob("dropped-*"), key=lambda found: int(found.stem.rpartition("-")[2]))
        for old in dropped[:-6]:
            old.unlink()


def operator(load: Load, chance: random.Random) -> None:
    while not load.stop.wait(chance.uniform(0.05, 0.3)):
        dropped = sorted(path.stem for path in load.served.incoming.glob("dropped-*"))
        if dropped:
            verb = chance.choice(("load", "unload", "unload"))
            with contextlib.suppress(OSError, http.client.HTTPException):
                load.served.ask("POST", f"/models/{chance.choice(dropped)}/{verb}", timeout_s=30)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()

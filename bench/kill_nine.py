"""SIGKILL for a whole Modelium at random moments under load, again and again: is it always back, and is nothing left?

Clients ask two models that are always wanted; others are loaded, unloaded and dropped in two parts meanwhile. After each kill
Modelium is started again at once, as an init system would, also while the guardian of the run before still cleans up. *Back* is
the time from that start to an answer of both models. *Left* is counted then, and once more after an orderly end: processes of
runs before, their files in /dev/shm, work in the repository's workshop, half-written files in the state directory.

The moments are drawn from ``--seed``: some fall into the start, some into loads, most into requests.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import fcntl
import http.client
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import psutil
import yaml
from onnx import TensorProto, helper
from served import ROOT, Served, free_ports

_STEADY = ("steady-0", "steady-1")
_SHM = Path("/dev/shm")
_CLEAN_WITHIN_S = 20.0  # a guardian gives Triton 8 s, and what hangs 5 s more


@dataclass(slots=True)
class Load:
    """What the clients did and saw of one run, and whether they shall stop."""

    served: Served
    stop: threading.Event = field(default_factory=threading.Event)
    seen: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    killed_after_s: float
    during: str
    answered: int
    broken: int
    back_s: float
    left: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds after the start at which the latest kill falls")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    directory = Path(tempfile.mkdtemp(prefix="modelium-kill-"))
    ports = prepare(directory)
    rounds: list[Round] = []
    prefixes: set[str] = set()
    numbers = itertools.count()
    print(f"seed {options.seed}")
    print(f"{'':>4} {'killed after':>12} {'during':<22} {'answered':>8} {'broken':>6} {'back after':>10}  left")
    process, began = start(directory), time.monotonic()
    atexit.register(lambda: process.terminate())  # the one that runs then
    for number in range(1, options.kills + 1):
        served = serving(directory, ports, process)
        # Half of the kills fall into a run that was seen to answer, the others anywhere from the first moment on.
        if chance.random() < 0.5:
            until_back(served)
        moment = time.monotonic() + chance.uniform(0.0, options.longest)
        load = Load(served)
        with under(load, chance, numbers):
            time.sleep(max(0.0, moment - time.monotonic()))
            during, after = state_of(served), time.monotonic() - began
            earlier = family(directory)
            prefixes |= {prefix for prefix in [shm_prefix(directory)] if prefix}
            process.kill()
            process.wait()
        process, began = start(directory), time.monotonic()
        served = serving(directory, ports, process)
        until_back(served)
        back_s = time.monotonic() - began
        left = what_is_left(directory, earlier, prefixes - {shm_prefix(directory)})
        seen = load.seen
        rounds.append(
            Round(
                killed_after_s=after,
                during=during,
                answered=seen["answered"],
                broken=seen["broken"],
                back_s=back_s,
                left=tuple(left),
            )
        )
        what = ", ".join(left) or "nothing"
        counts = f"{seen['answered']:>8} {seen['broken']:>6}"
        print(f"{number:>4} {after:>10.1f} s {during:<22} {counts} {back_s:>8.1f} s  {what}", flush=True)
    earlier = family(directory)
    prefixes |= {prefix for prefix in [shm_prefix(directory)] if prefix}
    process.terminate()
    process.wait(timeout=60)
    left = what_is_left(directory, earlier, prefixes)
    report(rounds, left)
    if left or any(each.left for each in rounds):
        raise SystemExit(f"something was left: {directory} is kept")
    shutil.rmtree(directory)


def report(rounds: list[Round], left: list[str]) -> None:
    times = sorted(each.back_s for each in rounds)
    clean = sum(not each.left for each in rounds)
    print(f"{len(rounds)} kills: {len(rounds)} times back, {clean} times with nothing left")
    print(f"  back after: median {times[len(times) // 2]:.1f} s, longest {times[-1]:.1f} s")
    print(f"  after an orderly end: {', '.join(left) or 'nothing'} left")


# -- the server ----------------------------------------------------------------------------------------------------


def prepare(directory: Path) -> list[int]:
    """The configuration and the two models that are always there."""
    ports = free_ports(5)
    gateway, metrics, *triton = ports
    names = ("http_url", "grpc_url", "metrics_url")
    config = {
        "gateway": {"port": gateway},
        "metrics": {"port": metrics},
        "triton": {
            **{name: f"127.0.0.1:{port}" for name, port in zip(names, triton, strict=True)},
            "model_repository": str(directory / "repository"),
            "state_directory": str(directory / "state"),
            "runtime_directory": str(ROOT / ".runtime"),
        },
        "devices": {"host_memory": "4GiB"},
        "orchestration": {
            "model_discovery": {"watch_directories": [str(directory / "incoming")], "scan_interval_seconds": 2},
            "policies": {"always_loaded": list(_STEADY), "check_interval_seconds": 1},
        },
    }
    (directory / "incoming").mkdir()
    (directory / "modelium.yaml").write_text(yaml.safe_dump(config))
    for name in _STEADY:
        (directory / "incoming" / f"{name}.onnx").write_bytes(adder())
    return ports


def start(directory: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "modelium.cli", "--config", str(directory / "modelium.yaml"), "serve"]
    with (directory / "serve.log").open("ab") as log:
        return subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def serving(directory: Path, ports: list[int], process: subprocess.Popen[bytes]) -> Served:
    http_url, grpc_url = (f"127.0.0.1:{port}" for port in ports[2:4])
    return Served(directory=directory, port=ports[0], http_url=http_url, grpc_url=grpc_url, process=process)


def until_back(served: Served) -> None:
    served.wait("both models answer", lambda: all(asks(served, name) == 200 for name in _STEADY), within_s=180)


def asks(served: Served, name: str) -> int:
    return served.ask("POST", f"/predict/{name}", {"inputs": {"x": [[1.0]]}}, timeout_s=30).status


def state_of(served: Served) -> str:
    """What goes on at this moment, by Modelium's own words."""
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
        states = Counter(model["state"] for model in served.ask("GET", "/models", timeout_s=2).body["models"])
        busy = {state: count for state, count in states.items() if state in ("LOADING", "UNLOADING", "DRAINING")}
        return ", ".join(f"{count} {state}" for state, count in sorted(busy.items())) or f"{states['LOADED']} LOADED"
    return "start"


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
def under(load: Load, chance: random.Random, numbers: Iterator[int]) -> Iterator[None]:
    """Clients, somebody who drops and removes models, and somebody who loads and unloads, until the end of the context."""
    seeds = [chance.random() for _ in range(2)]
    threads = [threading.Thread(target=client, args=(load,), daemon=True) for _ in range(3)]
    threads.append(threading.Thread(target=dropper, args=(load, random.Random(seeds[0]), numbers), daemon=True))
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


def dropper(load: Load, chance: random.Random, numbers: Iterator[int]) -> None:
    """A new model about twice a second, copied in two parts; the oldest of many goes."""
    incoming = load.served.incoming
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


# -- what is left --------------------------------------------------------------------------------------------------


def family(directory: Path) -> set[psutil.Process]:
    """Every process that has to do with this directory, whoever its parent is now."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = " ".join(process.cmdline())
            if str(directory) in words or process.cwd().startswith(str(directory)):
                found.add(process)
    return found - {psutil.Process()}


def shm_prefix(directory: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((directory / "state" / "server.json").read_text())["shm_prefix"])
    return ""


def what_is_left(directory: Path, earlier: set[psutil.Process], prefixes: set[str]) -> list[str]:
    """Of runs that are over; a guardian that still cleans up after its own is given its time."""
    deadline = time.monotonic() + _CLEAN_WITHIN_S
    while True:
        left = [f"process {process.pid}" for process in earlier if process.is_running() and not is_zombie(process)]
        left += [f"/dev/shm/{path.name}" for path in _SHM.iterdir() if path.name.startswith(tuple(prefixes or {"\0"}))]
        left += [str(path.relative_to(directory)) for path in temporary(directory)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def is_zombie(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return True


def temporary(directory: Path) -> Iterator[Path]:
    """Work that nobody does any more: in the repository's workshop, and beside the files of the state directory."""
    for workshop in (directory / ".repository.staging", directory / "repository" / ".staging"):
        for work in workshop.glob("*"):
            if not locked(work):
                yield work
    yield from (path for pattern in ("*.new", "*.tmp") for path in (directory / "state").glob(pattern))


def locked(path: Path) -> bool:
    """Somebody is at work there now."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return True  # it went while we looked
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()

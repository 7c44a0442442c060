"""What many small models take that are loaded at once: MiniLM as often with weights of its own, as links to one file, and as
whole copies of it.

Each is served twice, one after the other: born of a nursery, and without one. All models are loaded and asked once; then the
proportional memory (``held.py``) of tritonserver, stubs, children and nursery is added up, with all of the weights that are
files in memory. Aims: a third of the memory where the weights differ, an eighth where they are alike. The second table says
whose it is, a model.

Without a nursery, models may be fewer (``--without``) where memory is short: the ratio is that of the memory per model.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import shutil
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asked import NURSERY, WAYS, WITHOUT
from held import CHILDREN, STUBS, TRITON, Held, Memory, held_by, nursery_listens
from held import NURSERY as NURSERY_PROCESSES
from rich.console import Console
from rich.table import Table
from served import Served, minilm, serve

from modelium.sizes import MIB, human_bytes

_COUNTED = (TRITON, STUBS, CHILDREN, NURSERY_PROCESSES)
_PARTS = ("weights in memory", "child's own", "of files", "stub's own", "of files and shared", "nursery", "Triton")
_TOGETHER = 4  # asked for the first time
_FIRST = "minilm-0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """``seconds``: from the first request until all have answered."""

    models: int
    held: Held
    seconds: float

    @property
    def memory(self) -> Memory:
        return sum((self.held.memory.get(kind, Memory()) for kind in _COUNTED), Memory())  # weights are the children's

    @property
    def per_model(self) -> float:
        return self.memory.total / self.models

    @property
    def parts(self) -> tuple[int, ...]:
        """As ``_PARTS`` names them."""
        stubs, children, nursery, triton = (
            self.held.memory.get(kind, Memory()) for kind in (STUBS, CHILDREN, NURSERY_PROCESSES, TRITON)
        )
        return (
            children.shared,
            children.anonymous,
            children.files,
            stubs.anonymous,
            stubs.shared + stubs.files,
            nursery.total,
            triton.total,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--without", type=int, help="models where there is no nursery (as many)")
    parser.add_argument("--budget", default="64GiB", help="devices.host_memory")
    parser.add_argument("--only", choices=list(_KINDS), help="of these weights (all)")
    options = parser.parse_args()
    numbers = {NURSERY: options.models, WITHOUT: options.without or options.models}
    whole = Table(title="MiniLM-like models loaded at once: proportional memory of Triton, stubs, children and nursery")
    each = Table(title="A model's part")
    for table, columns in ((whole, ("models", "memory", "a model", "times", "seconds")), (each, _PARTS)):
        table.add_column("weights")
        table.add_column("way")
        for column in columns:
            table.add_column(column, justify="right")
    for kind in [options.only] if options.only else list(_KINDS):
        seen = {way: load_all(kind, way, numbers[way], options.budget) for way in WAYS}
        for way, one in seen.items():
            times = f"{seen[WITHOUT].per_model / one.per_model:.2f}"
            sizes = (human_bytes(one.memory.total), human_bytes(int(one.per_model)))
            whole.add_row(kind, way, str(one.models), *sizes, times, f"{one.seconds:.0f}")
            each.add_row(kind, way, *(f"{part / one.models / MIB:.1f} MiB" for part in one.parts))
    console = Console(width=max(150, Console().width))
    console.print(whole)
    console.print(each)


def load_all(kind: str, way: str, number: int, budget: str) -> Alike:
    settings = {
        "triton": {"nursery": WAYS[way]},
        "devices": {"host_memory": budget},
        "orchestration": {"load_on_discovery": False, "policies": {"evict_after_idle_seconds": 3600}},
        "gateway": {"request_timeout_seconds": 900},
    }
    names = [f"minilm-{each}" for each in range(number)]

    def prepare(incoming: Path) -> None:
        _KINDS[kind](incoming, names)

    with serve(settings, prepare=prepare) as served:
        for name in names:
            served.wait(f"{name} is known", lambda name=name: served.model(name).get("state") == "UNLOADED", within_s=300)  # type: ignore[misc]
        if WAYS[way]:
            served.wait("the nursery is warm", lambda: nursery_listens(served, "python"), within_s=300)
        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(_TOGETHER) as pool:
            list(pool.map(lambda name: ask(served, name), names))
        seconds = time.perf_counter() - began
        served.wait("all are loaded", lambda: served.are_loaded(names), within_s=60)
        if WAYS[way]:  # the generation that bore no one yet has come, and one that has no child is gone
            time.sleep(5)
        held = held_by(served)
        if (born := held.processes.get(CHILDREN, 0)) != (number if WAYS[way] else 0):
            print(f"{kind}, {way}: {born} of {number} models were born of a nursery")
        return Alike(models=number, held=held, seconds=seconds)


def ask(served: Served, name: str) -> None:
    answer = served.ask("POST", f"/predict/{name}", {"inputs": "is anybody there?"}, timeout_s=900)
    if answer.status != 200:
        raise SystemExit(f"{name}: {answer.status} {answer.body}; the end of {served.log}:\n{served.tail()}")


# -- folders ---------------------------------------------------------------------------------------------------------


def different(incoming: Path, names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        shutil.copytree(minilm(), incoming / name)
        for weights in (incoming / name).glob("*.safetensors"):
            change(weights, number)


def one_file(incoming: Path, names: Sequence[str]) -> None:
    shutil.copytree(minilm(), incoming / _FIRST)
    for name in names[1:]:
        shutil.copytree(incoming / _FIRST, incoming / name, copy_function=os.link)


def copies(incoming: Path, names: Sequence[str]) -> None:
    for name in names:
        shutil.copytree(minilm(), incoming / name)


def change(weights: Path, number: int) -> None:
    """The last number of the last tensor, and with it the file."""
    whole = bytearray(weights.read_bytes())
    whole[-4:] = struct.pack("<f", number / 1000)
    fresh = weights.with_name(f".{weights.name}")
    fresh.write_bytes(whole)
    fresh.replace(weights)


_KINDS: dict[str, Callable[[Path, Sequence[str]], None]] = {"different": different, "one file": one_file, "copies": copies}


if __name__ == "__main__":
    main()

"""What a plan costs: with nothing new, one model changed, one that waits where others may go, and all models waiting in vain.

A board is kept from plan to plan, as the controller keeps it; *anew* is a plan from a snapshot of everything. Figures are
milliseconds of CPU time, the median of five.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

from rich.console import Console
from rich.table import Table

from modelium.brain.board import Board
from modelium.brain.plan import plan, plan_on
from modelium.values import Device, ModelView, Usage
from tests.unit.brain.worlds import GIB, NOW, gpu, loaded, wanted, world

BUDGET = 72 * GIB
SIZES = (3, 8, 14, 16, 28)  # GiB of those who wait
BUSY = Usage(last_used_at=NOW, in_flight=1, qps=1.0)


def main() -> None:
    table = Table(
        "models", "devices", "nothing new", "one changed", "anew", "one waits", "all wait: first", "again", title="ms of CPU"
    )
    for models in (100, 1_000, 10_000):
        for count in (1, 64, 256):
            figures = measured(models, tuple(gpu(index, total=80 * GIB, budget=BUDGET) for index in range(count)))
            table.add_row(f"{models:,}", str(count), *(f"{figure:.2f}" for figure in figures))
    Console(width=max(Console().width, 110)).print(table)


def measured(models: int, devices: tuple[Device, ...]) -> list[float]:
    """In the order of the columns."""
    size = BUDGET // -(-models // len(devices))
    busy = [loaded(f"m{n}", size, device=devices[n % len(devices)], usage=BUSY, loaded_at=NOW - 900) for n in range(models)]
    snapshot = world(*busy, devices=devices)
    board = Board.of(snapshot)

    def change() -> None:
        board.put(busy[0])
        plan_on(board, NOW)

    idle = [
        loaded(f"i{n}", BUDGET // 8, device=devices[n // 8], usage=Usage(last_used_at=NOW - 500 - n), loaded_at=NOW - 900)
        for n in range(8 * len(devices))
    ]
    waits = [wanted(f"w{n}", SIZES[n % len(SIZES)] * GIB, demand_since=NOW - n / models) for n in range(models)]
    # Before each measurement the room that was made for it is forgotten: it is to be looked for.
    one = Board.of(world(*idle, waits[0], devices=devices))
    full = Board.of(world(*hogs(devices), *waits, devices=devices))

    def look() -> None:
        one.made_for.clear()
        plan_on(one, NOW)

    return [
        cpu_ms(lambda: plan_on(board, NOW)),
        cpu_ms(change),
        cpu_ms(lambda: plan(snapshot), times=1),
        cpu_ms(look),
        cpu_ms(lambda: plan_on(full, NOW), times=1),
        cpu_ms(lambda: plan_on(full, NOW)),
    ]


def hogs(devices: tuple[Device, ...]) -> list[ModelView]:
    """Two models on each device that are always in use."""
    return [
        loaded(f"h{n}", BUDGET // 2, device=devices[n // 2], usage=BUSY, loaded_at=NOW - 900) for n in range(2 * len(devices))
    ]


def cpu_ms(work: Callable[[], object], *, times: int = 5) -> float:
    """Of this process."""
    taken = []
    for _ in range(times):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return median(taken) * 1000


if __name__ == "__main__":
    main()

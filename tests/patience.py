"""Time in tests: how long to wait for what has to happen, and how much work is much.

No test says how many seconds something takes: the next machine is five times slower, and busy. What has to happen is waited
for (only a test that fails waits for all of ``PATIENCE_S``); what must cost little is compared with a piece of work done in the
same run (``work_s``). How fast Modelium is, ``make bench`` tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 240.0


def work_s() -> float:
    """What a million turns of a loop cost a core now: about 50 ms on a machine of 2024."""
    return cpu_s(_turn)


def cpu_s(work: Callable[[], object]) -> float:
    """What it costs a core, whoever else is at work on the machine."""
    began = time.process_time()
    work()
    return time.process_time() - began


def _turn() -> int:
    total = 0
    for number in range(1_000_000):
        total += number % 7
    return total

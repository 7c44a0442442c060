"""A child that is asked and computes nothing is told from one that computes; with real processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelium_nursery.hangs import Watch

_COMPUTES = "while True: pass"
_STARTS_ONE = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(1, flush=True)\\nwhile True: pass'])"
_WAITS = "import time\nprint(1, flush=True)\ntime.sleep(1e6)"


@contextmanager
def running(program: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True)
    try:
        yield process
    finally:
        for pid in [*map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()), process.pid]:
            subprocess.run(["kill", "-9", str(pid)], check=True)
        process.communicate()


def until_asleep(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    process.stdout.readline()
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        pass


def test_one_that_waits_for_ever_hangs_after_so_many_looks() -> None:
    with running(_WAITS) as process:
        until_asleep(process)
        watch = Watch(process.pid, after_s=3)
        assert [watch.hangs(now) for now in (1, 2, 3, 4)] == [False, False, False, True]
        watch.begin()
        assert not watch.hangs(5), "it is asked anew"


def test_a_gap_between_two_looks_says_nothing() -> None:
    with running(_WAITS) as process:
        until_asleep(process)
        watch = Watch(process.pid, after_s=3)
        assert [watch.hangs(now) for now in (1, 1.5, 1.9, 1000, 2000)] == [False] * 5


def ticks_of(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_one_that_computes_does_not_and_nor_does_one_whose_own_process_does() -> None:
    with running(_COMPUTES) as computing, running(_STARTS_ONE) as starting:
        assert starting.stdout is not None
        starting.stdout.readline()
        (child,) = map(int, Path(f"/proc/{starting.pid}/task/{starting.pid}/children").read_text().split())
        for asked, works in ((computing.pid, computing.pid), (starting.pid, child)):
            watch = Watch(asked, after_s=2)
            for now in range(1, 9):
                assert not watch.hangs(float(now))
                before = ticks_of(works)
                while ticks_of(works) == before:  # an event of the kernel's: it has computed for a hundredth of a second
                    pass

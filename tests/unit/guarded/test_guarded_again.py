"""A program that is killed and starts again, beside what goes on without it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelium.guarded import Command, GuardedProgram
from modelium.guarded.processes import ProcessRow, read_process, same
from tests.patience import PATIENCE_S

# It starts a process that is in the register and one that is not, and says who they are.
_PROGRAM = """
import pathlib, subprocess, sys, time
here = pathlib.Path(sys.argv[1])
pids = [subprocess.Popen(["sleep", "1000000"]).pid for _ in range(2)]
stat = pathlib.Path(f"/proc/{pids[0]}/stat").read_text()
(here / "register").mkdir(exist_ok=True)
(here / "register" / str(pids[0])).write_text(stat[stat.rindex(")") + 2 :].split()[19] + " 1 2")
(here / "fresh").write_text(f"{pids[0]} {pids[1]}")
(here / "fresh").rename(here / "said")
time.sleep(1000000)
"""


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 — the truth lies in other processes
            await asyncio.sleep(0.01)


async def said(tmp_path: Path) -> list[ProcessRow]:
    await until(lambda: (tmp_path / "said").exists())
    found = [read_process(int(pid)) for pid in (tmp_path / "said").read_text().split()]
    (tmp_path / "said").unlink()
    return [process for process in found if process is not None]


def command(tmp_path: Path, register: Path | None) -> Command:
    return Command(
        arguments=[sys.executable, "-c", _PROGRAM, str(tmp_path)],
        environment={"PATH": os.environ["PATH"]},
        directory=tmp_path,
        log=tmp_path / "log",
        register=register,
    )


async def test_what_is_in_the_register_goes_on_and_ends_with_the_program(tmp_path: Path) -> None:
    program = GuardedProgram(tmp_path / "record.json", grace_s=0)
    await program.start(command(tmp_path, tmp_path / "register"))
    first, other = await said(tmp_path)
    assert program.pid is not None
    os.kill(program.pid, signal.SIGKILL)
    second, _ = await said(tmp_path)
    await until(lambda: not same(other))
    assert same(first)
    assert program.running
    await program.stop()
    assert not same(first)
    assert not same(second)


async def test_without_a_register_everything_ends_with_the_program(tmp_path: Path) -> None:
    program = GuardedProgram(tmp_path / "record.json", grace_s=0)
    await program.start(command(tmp_path, None))
    started = await said(tmp_path)
    assert program.pid is not None
    os.kill(program.pid, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        assert await program.wait() == -signal.SIGKILL
    assert not any(map(same, started))


async def test_of_a_guardian_that_was_killed_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = tmp_path / "record.json"
    program = GuardedProgram(record, grace_s=0)
    await program.start(command(tmp_path, None))
    started = await said(tmp_path)
    os.kill(json.loads(record.read_text())["guardian"], signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        assert await program.wait() is None
    assert not any(map(same, started))
    assert "that the guardian of record, which was killed, left" in caplog.text
    assert "earlier run" not in caplog.text

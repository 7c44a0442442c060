"""Arguments that a program gets and ``ps`` does not show, on real processes."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from pathlib import Path

import pytest

from modelium.guarded import Command, GuardedProgram
from modelium.guarded.hidden import CannotHide, ask_to_be_traced, reveal, with_hidden
from tests.patience import PATIENCE_S

_PROGRAM = """
import json, os, pathlib, sys
pathlib.Path(sys.argv[1]).write_text(json.dumps([sys.argv[2:], sorted(os.environ.items())]) + pathlib.Path("/proc/self/cmdline").read_text())
"""  # noqa: E501 – a program


async def test_the_program_gets_what_ps_does_not_show(tmp_path: Path) -> None:
    program = GuardedProgram(tmp_path / "record.json", grace_s=5)
    command = Command(
        arguments=[sys.executable, "-c", _PROGRAM, str(tmp_path / "said"), "--key=hidden", "--plain", "--other=hidden"],
        environment={"PATH": "/usr/bin", "LANG": "C.UTF-8"},
        directory=tmp_path,
        log=tmp_path / "log",
        hidden={"--key=hidden": "--key=the secret is longer than its stand-in", "--other=hidden": ""},
    )
    assert "secret" not in repr(command)
    await program.start(command)
    async with asyncio.timeout(PATIENCE_S):
        assert await program.wait() == 0, (tmp_path / "log").read_text()
    said = (tmp_path / "said").read_text()
    assert '["--key=the secret is longer than its stand-in", "--plain", ""]' in said
    assert said.endswith("--key=hidden\0--plain\0--other=hidden\0") and said.count("the secret") == 1
    assert '["MODELIUM_ARGUMENT_0", "--key=hidden"]' in said, "children inherit the stand-in"


def test_a_stand_in_that_is_no_argument_ends_the_child() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    hidden = {"--absent=hidden": "--absent=secret"}
    pid = os.fork()
    if not pid:
        try:
            ask_to_be_traced(libc)
            os.execve("/bin/true", ["/bin/true", "--other"], with_hidden({}, hidden))
        finally:
            os._exit(3)
    with pytest.raises(CannotHide, match="cannot be changed"):
        reveal(libc, pid, hidden)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)

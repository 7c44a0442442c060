"""The guard of a deployment: it outlives the process that deployed, and deletes what that left on Ray.

Run as a program it waits for the end of its parent. A word on standard input means that nothing is left to do. Ray is
imported only when there is: until then this is a small process that sleeps.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

_WITHIN_S = 30
_PR_SET_NAME = 15
_CONNECTION = "MODELIUM_RAY_CONNECTION"


def start(deployment: Any) -> subprocess.Popen[bytes]:
    """Guard ``deployment`` from now on."""
    package = Path(__file__).parent
    command = [sys.executable, "-S", str(package / "guard.py"), str(os.getpid()), deployment.application]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, close_fds=True, start_new_session=True)
    assert guard.stdin is not None
    guard.stdin.write(deployment.connection.as_json().encode() + b"\n")
    guard.stdin.flush()
    return guard


def dismiss(guard: subprocess.Popen[bytes]) -> None:
    """Nothing is deployed any more."""
    with contextlib.suppress(OSError):
        assert guard.stdin is not None
        guard.stdin.write(b"done\n")
        guard.stdin.close()


def main() -> None:
    """Wait for the parent's end, then delete its application, unless it was dismissed."""
    call_it()
    parent, application = int(sys.argv[1]), sys.argv[2]
    told = sys.stdin.readline()
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(parent)
        if os.getppid() == parent:  # else it has ended, and its id may be in use again
            select.select([descriptor], [], [])
    if sys.stdin.readline().strip() == "done":
        return
    # Without -S from here on: Ray is in the environment's site-packages.
    arguments = [sys.executable, "-c", _DELETE, str(Path(__file__).parent.parent), application]
    # The connection has a token in it, and everybody can read a command line.
    os.execve(sys.executable, arguments, {**os.environ, _CONNECTION: told})


def call_it() -> None:
    """By a name that Triton's guardian knows: an orphan that is called otherwise is ended after a few seconds."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NAME, b"modelium-guard", 0, 0, 0)


_DELETE = f"""
import signal, sys
signal.alarm({_WITHIN_S})
sys.path.append(sys.argv[1])
import json, os
from modelium_ray import guard
guard.call_it()
from modelium_ray.connection import Connection, connect
from modelium_ray.deployment import delete
connect(Connection(**json.loads(os.environ.pop("{_CONNECTION}"))))
delete(sys.argv[2])
"""

if __name__ == "__main__":
    main()

"""The guard of a deployment: a real process beside a real parent, and a module ``ray`` that writes down what it is told."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from modelium.resources import templates_directory
from tests.patience import PATIENCE_S

TEMPLATE = templates_directory() / "ray" / "1"
CONNECTION = {"address": "head:6379", "dashboard": "", "token": "secret", "http_host": "", "http_port": 0}
# Deploys, says who guards it, and ends as it is told.
PARENT = f"""
import json, os, signal, sys
sys.path.append({str(TEMPLATE)!r})
from types import SimpleNamespace
from modelium_ray import guard
from modelium_ray.connection import Connection
deployment = SimpleNamespace(application="m@4f0c-7", connection=Connection(**json.loads({json.dumps(CONNECTION)!r})))
process = guard.start(deployment)
print(process.pid, flush=True)
if sys.stdin.readline().strip() == "done":
    guard.dismiss(process)
else:
    os.kill(os.getpid(), signal.SIGKILL)
"""
RAY = """
import json, os, pathlib
def write(name, told):
    path = pathlib.Path(os.environ["TOLD"]) / name
    path.write_text(json.dumps(told))
def init(**said):
    words = pathlib.Path("/proc/self/cmdline").read_text()
    write("init", [said["address"], os.environ["RAY_AUTH_TOKEN"], os.environ["RAY_AUTH_TOKEN"] in words])
    write("name", pathlib.Path("/proc/self/comm").read_text().strip())
"""
SERVE = """
import ray
from types import SimpleNamespace
def delete(application, _blocking):
    ray.write('delete', application)
def status():
    return SimpleNamespace(applications={})
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """One that has started its guard."""
    package = tmp_path / "modules" / "ray"
    package.mkdir(parents=True)
    (tmp_path / "told").mkdir()
    (package / "__init__.py").write_text(RAY)
    (package / "serve.py").write_text(SERVE)
    environment = {
        **os.environ,
        "PYTHONPATH": str(package.parent),
        "TOLD": str(tmp_path / "told"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("RAY_AUTH_TOKEN", None)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process
        process.kill()


def guard_of(parent: subprocess.Popen[str]) -> psutil.Process:
    assert parent.stdout is not None
    return psutil.Process(int(parent.stdout.readline()))


def end(parent: subprocess.Popen[str], word: str, guard: psutil.Process) -> None:
    """Both: the guard waits for its parent's end, whatever it was told. (It is nobody's child then: who reaps it, and when, is
    the machine's affair.)"""
    assert parent.stdin is not None
    descriptor = os.pidfd_open(guard.pid)
    parent.stdin.write(word + "\n")
    parent.stdin.flush()
    parent.wait(PATIENCE_S)
    ended, _, _ = select.select([descriptor], [], [], PATIENCE_S)
    os.close(descriptor)
    assert ended, "the guard is still there"


def test_what_a_killed_process_deployed_is_deleted(parent: subprocess.Popen[str], tmp_path: Path) -> None:
    guard = guard_of(parent)
    assert os.getsid(guard.pid) == guard.pid, "it does not end with its parent's group"
    end(parent, "die", guard)
    told = {path.name: json.loads(path.read_text()) for path in (tmp_path / "told").iterdir()}
    assert told == {"init": ["head:6379", "secret", False], "delete": "m@4f0c-7", "name": "modelium-guard"}, (
        "everybody can read a command line; and Triton's guardian spares what is called so"
    )


def test_a_guard_that_was_dismissed_touches_nothing(parent: subprocess.Popen[str], tmp_path: Path) -> None:
    guard = guard_of(parent)
    end(parent, "done", guard)
    assert list((tmp_path / "told").iterdir()) == []


def test_until_it_has_to_a_guard_imports_no_ray(parent: subprocess.Popen[str]) -> None:
    """It sleeps beside every model: it is to be small."""
    arguments = guard_of(parent).cmdline()
    assert arguments[1] == "-S" and arguments[-1] == "m@4f0c-7" and "secret" not in " ".join(arguments)

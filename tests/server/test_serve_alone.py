"""``modelium serve`` as a process of its own, as a system would start it: with few rights and no home, and killed by -9.

Its only model lies in a Hugging Face cache that may be read and nothing more.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from modelium.guarded.processes import descendants, same
from tests.server.conftest import find_model
from tests.server.systems import RUNTIME

pytestmark = pytest.mark.server

PATIENCE_S = 180.0
SHM = Path("/dev/shm")
NOBODYS_HOME = "/proc/no-home"  # is not there, and can't be made
# Root may write where the modes forbid it: the capabilities behind that (DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER) are given away.
WITH_FEW_RIGHTS = """
import ctypes, os, sys
for capability in (1, 2, 3):
    ctypes.CDLL(None).prctl(24, capability)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass
class Alone:
    directory: Path
    port: int
    runs: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.directory / "serve.log"

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "modelium.cli", "--config", str(self.directory / "modelium.yaml"), "serve"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "HF_"))}
        with self.log.open("ab") as log:
            self.runs.append(
                subprocess.Popen(
                    [sys.executable, "-c", WITH_FEW_RIGHTS, *command],
                    cwd=self.directory,
                    env={**kept, "HOME": NOBODYS_HOME},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )
        return self.runs[-1]

    def embed(self) -> Any:
        """The answer of the model; waits until there is one."""
        return self.ask("/predict/acme/tiny", {"inputs": "served from a folder of others"})

    def ask(self, path: str, body: object = None) -> Any:
        """Until it is answered: nobody listens at first, and before the first scan no model is known."""
        deadline = time.monotonic() + PATIENCE_S
        data = None if body is None else json.dumps(body).encode()
        url, headers = f"http://127.0.0.1:{self.port}{path}", {"Content-Type": "application/json"}
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            try:
                with opener.open(urllib.request.Request(url, data=data, headers=headers), timeout=PATIENCE_S) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                assert error.code in (404, 503) and time.monotonic() < deadline, error.read()
            except OSError:
                assert time.monotonic() < deadline, self.log.read_text()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.runs[-1].wait(0.1)
                raise AssertionError(self.log.read_text())


def add_snapshot(cache: Path, revision: str, names: list[str]) -> None:
    """As a download does it: ``refs/main`` names it before it is whole."""
    (cache / "refs").mkdir(exist_ok=True)
    (cache / "refs" / "main").write_text(revision)
    (cache / "snapshots" / revision).mkdir(parents=True)
    for name in names:
        (cache / "snapshots" / revision / name).symlink_to(f"../../blobs/{name}")


def make_read_only(top: Path, *, back: bool = False) -> None:
    for path in (top, *top.rglob("*")):
        if not path.is_symlink():
            path.chmod((0o755 if back else 0o555) if path.is_dir() else 0o644 if back else 0o444)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, test_models: Path) -> Iterator[Alone]:
    """A directory whose ``incoming/`` may be read and nothing more, served."""
    directory = tmp_path_factory.mktemp("alone")
    incoming = directory / "incoming"
    cache = incoming / "models--acme--tiny"
    shutil.copytree(find_model(test_models, "bert-features"), cache / "blobs")
    add_snapshot(cache, "aaa", [path.name for path in (cache / "blobs").iterdir()])
    make_read_only(incoming)
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(4)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        port, *triton = (each.getsockname()[1] for each in sockets)
    names = ("http_url", "grpc_url", "metrics_url")
    config = {
        "gateway": {"port": port, "grpc_port": None},
        "metrics": {"enabled": False},
        "triton": {
            **{name: f"127.0.0.1:{port}" for name, port in zip(names, triton, strict=True)},
            "model_repository": str(directory / "repository"),
            "state_directory": str(directory / "state"),
            "runtime_directory": str(RUNTIME),
        },
        "devices": {"host_memory": "4GiB"},
        "orchestration": {"model_discovery": {"watch_directories": [str(incoming)]}},
    }
    (directory / "modelium.yaml").write_text(yaml.safe_dump(config))
    made = Alone(directory=directory, port=port)
    made.start()
    try:
        yield made
    finally:
        made.runs[-1].terminate()
        made.runs[-1].wait(timeout=PATIENCE_S)


def test_a_folder_that_may_only_be_read_is_served_to_a_user_without_a_home(alone: Alone) -> None:
    incoming = alone.directory / "incoming"
    before = sorted(incoming.rglob("*"))
    assert np.size(alone.embed()) > 1
    status = Path(f"/proc/{alone.runs[-1].pid}/status").read_text()
    effective = int(next(line for line in status.splitlines() if line.startswith("CapEff")).split()[1], 16)
    assert not effective & 0b1110  # else this test shows nothing
    assert sorted(incoming.rglob("*")) == before and not Path(NOBODYS_HOME).exists()


def test_after_a_kill_it_answers_as_before_and_nothing_of_the_first_run_is_left(alone: Alone) -> None:
    before = alone.embed()
    killed = alone.runs[-1]
    guardian = json.loads((alone.directory / "state" / "server.json").read_text())
    family = [*descendants(killed.pid)]
    assert len(family) > 2  # the guardian, Triton, the model
    killed.kill()
    killed.wait()
    incoming = alone.directory / "incoming"
    make_read_only(incoming, back=True)
    add_snapshot(incoming / "models--acme--tiny", "bbb", ["config.json"])
    make_read_only(incoming)
    alone.start()
    assert np.allclose(alone.embed(), before, atol=1e-5)
    model = alone.ask("/models/acme--tiny")
    assert model["path"].endswith("/snapshots/aaa")
    assert "snapshot bbb is not whole yet, the older aaa is served" in model["revision_error"]
    assert not [process for process in family if same(process)]
    assert not [path.name for path in SHM.iterdir() if path.name.startswith(guardian["shm_prefix"])]
    assert not [path for workshop in alone.directory.glob("**/.*staging") for path in workshop.iterdir()]

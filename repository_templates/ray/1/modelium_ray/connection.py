"""Reaching Ray: the entry's address enters, a connected Ray with Serve running leaves.

Imports ray, which takes a second: only where it is used.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_FILE = "MODELIUM_RAY_FILE"
_SERVE_TRIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """``http_port`` 0: Serve's proxy is the cluster's own affair. ``here``: replicas see this machine's files."""

    address: str
    dashboard: str = ""
    token: str = ""
    http_host: str = ""
    http_port: int = 0

    @property
    def here(self) -> bool:
        return bool(self.http_port)

    def as_json(self) -> str:
        names = ("address", "dashboard", "token", "http_host", "http_port")
        return json.dumps({name: getattr(self, name) for name in names})


def find(address: str, dashboard: str) -> Connection:
    """``auto``: what the file in the environment says, else the cluster that Ray finds by itself."""
    if address != "auto":
        return Connection(address=address, dashboard=dashboard, token=os.environ.get("RAY_AUTH_TOKEN", ""))
    path = os.environ.get(_FILE)
    if not path:
        return Connection(address="auto", dashboard=dashboard, token=os.environ.get("RAY_AUTH_TOKEN", ""))
    try:
        said: Mapping[str, object] = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RuntimeError("Ray is not running") from None
    return Connection(**said)  # type: ignore[arg-type]


def connect(connection: Connection, environment: Mapping[str, object] | None = None) -> None:
    """Make this process a driver of the cluster; what it deploys has ``environment``, unless it says otherwise itself. Raises
    ``RuntimeError`` with one sentence."""
    if connection.token:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=connection.token)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    import ray

    try:
        ray.init(
            address=connection.address,
            namespace="modelium",
            log_to_driver=False,
            configure_logging=False,
            runtime_env=dict(environment or {}),
        )
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RuntimeError(f"Ray at {connection.address} cannot be used: {first}") from error


def ensure_serve(connection: Connection) -> None:
    """Start Serve where it does not run yet, by a process of its own: Serve's actors take over the environment of whoever
    starts them, and that must not be this model's. Raises ``RuntimeError``."""
    import ray

    with contextlib.suppress(ValueError):
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
        return
    command = [sys.executable, "-c", _START_SERVE, str(Path(__file__).parent.parent)]
    done = subprocess.run(command, input=connection.as_json(), capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        said = [line for line in done.stderr.strip().splitlines() if line.strip()] or ["nothing"]
        raise RuntimeError(f"Ray Serve does not start: {said[-1][:300]}")


def start_serve(connection: Connection) -> None:
    """Start it from here. Several models may do so at once: then all but one are told that it runs already, and look again."""
    connect(connection)
    from ray import serve

    options = {"host": connection.http_host, "port": connection.http_port} if connection.here else None
    for left in reversed(range(_SERVE_TRIES)):
        try:
            serve.start(proxy_location="HeadOnly", **({"http_options": options} if options else {}))
            return
        except Exception:
            if not left:
                raise
            time.sleep(0.25)


_START_SERVE = """
import json, sys
sys.dont_write_bytecode = True
sys.path.append(sys.argv[1])
from modelium_ray.connection import Connection, start_serve
start_serve(Connection(**json.load(sys.stdin)))
"""


def leave() -> None:
    """Disconnect; never raises."""
    with contextlib.suppress(Exception):
        import ray

        ray.shutdown()

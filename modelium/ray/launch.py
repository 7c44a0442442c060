"""How Ray is started: what enters are a runtime report, addresses and directories, what leaves are command lines and an
environment. Nothing is started here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelium.guarded.addresses import Address
from modelium.guarded.environment import passed_on
from modelium.guarded.guardian import RUN_MARK
from modelium.runtime_env import RuntimeReport

# A loopback address that Ray does not take for "localhost", which it would replace by the machine's address in the network.
HOST = "127.0.0.2"
KILL_AFTER_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLaunch:
    """All that the head of a Ray of our own needs besides the runtime."""

    gcs: Address
    dashboard: Address
    client: Address
    directory: Path
    object_store_bytes: int


def head_command(report: RuntimeReport, launch: HeadLaunch) -> list[str]:
    """``ray start --head``: it stays, and ends when any of Ray's own processes ends."""
    return [
        *_ray(report),
        "--head",
        f"--node-ip-address={launch.gcs.host}",
        f"--port={launch.gcs.port}",
        "--include-dashboard=true",
        f"--dashboard-host={launch.dashboard.host}",
        f"--dashboard-port={launch.dashboard.port}",
        f"--ray-client-server-port={launch.client.port}",  # started whether wanted or not: off the port of another Ray's
        f"--object-store-memory={launch.object_store_bytes}",
        f"--temp-dir={launch.directory}",
        # Modelium places models here itself, by memory, and pins their replicas to GPUs. A replica of an application's
        # counts as one CPU unless it says otherwise: that is not to be what keeps it from starting.
        "--num-cpus=64",
        "--num-gpus=0",
        "--include-log-monitor=false",
        "--no-monitor",
    ]


def node_command(report: RuntimeReport, address: str, directory: Path) -> list[str]:
    """``ray start --address``: a node that offers nothing, because a program can only use a cluster from one of its nodes."""
    return [
        *_ray(report),
        f"--address={address}",
        "--num-cpus=0",
        "--num-gpus=0",
        "--memory=0",
        f"--object-store-memory={80 * 2**20}",
        f"--temp-dir={directory}",
        "--include-log-monitor=false",
    ]


def ray_environment(
    report: RuntimeReport, token: str = "", *, chosen: Mapping[str, str | None] | None = None
) -> dict[str, str]:
    """What of this process's own is needed and no secret, with the runtime's Python first and nothing that asks a network.
    ``token``: every request to this Ray has to carry it, for its ports are open to everybody on this machine. ``chosen``: the
    user's variables."""
    assert report.python is not None
    inherited = passed_on(os.environ, chosen)
    environment = {name: value for name, value in inherited.items() if name not in ("RAY_ADDRESS", "VIRTUAL_ENV", RUN_MARK)}
    given = {
        "PATH": os.pathsep.join([str(report.python.parent), environment.get("PATH", os.defpath)]),
        "LC_ALL": "C.UTF-8",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_WAIT_POLICY": environment.get("OMP_WAIT_POLICY", "PASSIVE"),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        **token_environment(token),
    }
    wins = {name: environment[name] for name in chosen or {} if name in environment and name != "PATH"}
    return environment | given | wins


def token_environment(token: str) -> Mapping[str, str]:
    """What Ray reads its token from; of a cluster elsewhere the user's own variables stand."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {}


def _ray(report: RuntimeReport) -> list[str]:
    assert report.python is not None
    return [str(report.python), str(report.python.parent / "ray"), "start", "--block", "--disable-usage-stats"]

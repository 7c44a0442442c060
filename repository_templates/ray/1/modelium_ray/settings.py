"""``parameters`` of config.pbtxt, checked: strings enter, values leave."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What one actor asks of its node."""

    cpus: float
    gpus: float
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    minimum: int
    maximum: int
    target_ongoing_requests: float
    bundles: tuple[Bundle, ...]
    visible_devices: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that an entry says. ``given``: the parameters as they are, for the replica; ``directory``: the entry's ``1/``."""

    name: str
    owner: str
    directory: Path
    way: str
    address: str
    dashboard: str
    replicas: Replicas
    given: Mapping[str, str]
    inputs: tuple[str, ...]
    batches: bool
    max_batch_size: int

    @classmethod
    def of(cls, given: Mapping[str, str], config: Mapping[str, Any], *, directory: str, name: str) -> Settings:
        wanted = json.loads(given["replicas"])
        return cls(
            name=name,
            owner=given.get("owner") or "".join(c if c.isalnum() else "_" for c in socket.gethostname()),
            directory=Path(directory),
            way=given["way"],
            address=given.get("ray_address") or "auto",
            dashboard=given.get("ray_dashboard", ""),
            replicas=Replicas(
                minimum=int(wanted["min"]),
                maximum=int(wanted["max"]),
                target_ongoing_requests=float(wanted["target_ongoing_requests"]),
                bundles=tuple(Bundle(**bundle) for bundle in wanted["bundles"]),
                visible_devices=str(wanted.get("visible_devices", "")),
                device=str(wanted.get("device", "cpu")),
            ),
            given=dict(given),
            inputs=tuple(one["name"] for one in config["input"]),
            batches=int(config.get("max_batch_size", 0)) > 0,
            max_batch_size=max(1, int(config.get("max_batch_size", 0))),
        )

    @property
    def application(self) -> str:
        """Its name in Ray Serve: another one for each process that deploys it, so that a new revision can be put beside the old
        one, and so that what a dead process left is recognised. Modelium reads it off the replicas (devices/replicas.py)."""
        pid = os.getpid()
        return f"{self.name}@{self.owner}-{pid}.{begun_at(pid)}"


def begun_at(pid: int) -> str:
    """When a process of this machine began, in ticks since the machine did; "" when it has ended. With its id that names one
    process for ever."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    fields = stat[stat.rfind(b")") + 2 :].split()
    return "" if fields[0] in b"ZX" else fields[19].decode()  # Triton may leave a killed stub as a zombie

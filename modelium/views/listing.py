"""Everything as it is told at ``GET /models``: the models, the devices, Triton and Ray."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from modelium import values
from modelium.views.fields import Of
from modelium.views.models import Status

_device = Of[values.Device]()
_server = Of[values.ServerStatus]()
_node = Of[values.RayNode]()
_directory = Of[values.WatchDirectory]()
_unclaimed = Of[values.Unclaimed]()
_nursery = Of[values.NurseryStatus]()
_snapshot = Of[values.Snapshot]()
_ray = Of[values.Snapshot]("fleet.ray")


def _shown(path: Path) -> str:
    """A name on a disk need not be text."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU, the host's memory, or a cluster's. ``leaked_bytes``: what unloads have not brought back."""

    id: str = _device.needed()
    kind: str = _device("")
    name: str = _device("")
    total_bytes: int = _device(0)
    used_bytes: int = _device.needed()
    budget_bytes: int = _device.needed()
    leaked_bytes: int = _device(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Triton."""

    up: bool = _server.needed()
    version: str = _server("")
    restarts: int = _server(0)
    detail: str = _server("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine of a Ray cluster, and what it has left."""

    address: str = _node("")
    cpus: float = _node(0.0, lambda node: node.total.cpus)
    free_cpus: float = _node(0.0, lambda node: node.free.cpus)
    gpus: float = _node(0.0, lambda node: node.total.gpus)
    free_gpus: float = _node(0.0, lambda node: node.free.gpus)
    memory_bytes: int = _node(0, lambda node: node.total.memory_bytes)
    used_bytes: int = _node(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ray:
    """Ray's state (off, asleep, up, down), and its nodes."""

    state: str = _ray.needed()
    detail: str = _ray("")
    version: str = _ray("")
    here: bool = _ray(True)
    restarts: int = _ray(0, lambda snapshot: snapshot.ray_restarts)
    nodes: tuple[Node, ...] = _ray(())


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchDirectory:
    """``suspended``: why it cannot be looked into now."""

    path: str = _directory.needed(lambda directory: _shown(directory.path))
    suspended: str = _directory("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclaimed:
    """Something that was dropped and is no model."""

    path: str = _unclaimed.needed(lambda unclaimed: _shown(unclaimed.path))
    advice: str = _unclaimed.needed()


@dataclass(frozen=True, slots=True, kw_only=True)
class Nursery:
    """The processes that models are forked from. ``held_bytes`` is in no model's memory. ``importing``: runtimes whose loads
    wait for theirs."""

    processes: int = _nursery.needed()
    children: int = _nursery(0)
    held_bytes: int = _nursery.needed()
    importing: tuple[str, ...] = _nursery(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """``models`` are written one by one (``gateway.status``), as summaries."""

    models: tuple[Status, ...] = _snapshot.needed(lambda snapshot: ())
    devices: tuple[Device, ...] = _snapshot((), lambda snapshot: snapshot.fleet.devices)
    triton: Server | None = _snapshot(None, lambda snapshot: snapshot.server)
    ray: Ray | None = _snapshot(None, lambda snapshot: snapshot)
    nursery: Nursery | None = _snapshot(None)
    scanned: bool = _snapshot(True)
    directories: tuple[WatchDirectory, ...] = _snapshot(())
    unclaimed: tuple[Unclaimed, ...] = _snapshot(())

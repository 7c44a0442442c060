"""What a Ray cluster has and what is left of it: nodes enter, devices for the planner leave, and whether replicas find room.

The memory of all nodes together is one device, that of all their GPUs another; what may be promised there is counted in
bytes as everywhere. That is not enough, because a replica needs its CPUs, its GPUs and its memory on one node:
``ClusterRoom`` looks for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelium.values import Bundle, Device, DeviceKind, ModelView, Ray, RayNode, RayState, Replicas, Runtime, State

HOSTS, GPUS = "ray", "ray:cuda"
_EPSILON = 1e-6  # shares of a GPU are rounded


def cluster_devices(ray: Ray, gpu_memory_fraction: float = 0.9) -> tuple[Device, ...]:
    """The devices that a cluster adds: none where it is not up, or is this machine.

    1. ``ray``: what Ray calls the memory of its nodes, which is less than theirs.
    2. ``ray:cuda``: their GPUs, of each the part that models may use.
    """
    if ray.here or ray.state is not RayState.UP:
        return ()
    nodes = f"{len(ray.nodes)} node{'s' if len(ray.nodes) != 1 else ''}"
    memory = sum(node.total.memory_bytes for node in ray.nodes)
    used = sum(min(node.used_bytes, node.total.memory_bytes) for node in ray.nodes)
    found = [_device(HOSTS, DeviceKind.HOST, f"Ray cluster, {nodes}", memory, used, memory)]  # 1
    if gpus := sum(_gpu_bytes(node) for node in ray.nodes):  # 2
        count = int(sum(node.total.gpus for node in ray.nodes))
        taken = sum(min(node.gpu_used_bytes, _gpu_bytes(node)) for node in ray.nodes)
        name = f"Ray cluster, {count} GPU{'s' if count != 1 else ''} on {nodes}"
        found.append(_device(GPUS, DeviceKind.CUDA, name, gpus, taken, int(gpus * gpu_memory_fraction)))
    return tuple(found)


def _device(id: str, kind: DeviceKind, name: str, total: int, used: int, budget: int) -> Device:
    return Device(id=id, kind=kind, index=-1, name=name, total_bytes=total, used_bytes=used, budget_bytes=budget, cluster=True)


def _gpu_bytes(node: RayNode) -> int:
    return int(node.total.gpus) * node.gpu_bytes


@dataclass(slots=True)
class _Left:
    """What a node has left; changed while a plan is made."""

    total: Bundle
    cpus: float
    gpus: float
    memory_bytes: int

    def holds(self, bundle: Bundle) -> bool:
        return (
            bundle.cpus <= self.cpus + _EPSILON
            and bundle.gpus <= self.gpus + _EPSILON
            and bundle.memory_bytes <= self.memory_bytes
        )

    def add(self, bundle: Bundle, sign: int) -> None:
        self.cpus += sign * bundle.cpus
        self.gpus += sign * bundle.gpus
        self.memory_bytes += sign * bundle.memory_bytes

    def may_have_held(self, bundle: Bundle) -> bool:
        total = self.total
        return (
            self.cpus + bundle.cpus <= total.cpus + _EPSILON
            and self.gpus + bundle.gpus <= total.gpus + _EPSILON
            and self.memory_bytes + bundle.memory_bytes <= total.memory_bytes
        )


class ClusterRoom:
    """What may still be promised on Ray's nodes. Nothing is known of a Ray that is asleep: then everything finds room."""

    def __init__(self, ray: Ray, models: Iterable[ModelView] = ()) -> None:
        """``models``: what was promised to those that load, or were loaded since the nodes were asked, is taken away: Ray
        did not know of it yet."""
        self._known = bool(ray.nodes)
        self._left = [_copy(node) for node in ray.nodes]
        for view in models:
            place = view.placement
            unknown = view.state is State.LOADING or (view.state is State.LOADED and view.loaded_at >= ray.read_at)
            if unknown and place is not None and place.runtime is Runtime.RAY:
                self.take(place.replicas)

    def fits(self, replicas: Replicas | None, *, without: Sequence[Replicas] = ()) -> bool:
        """Would as many replicas as there have to be find room, if those of ``without`` were gone?"""
        if replicas is None or not self._known:
            return True
        left = [_Left(each.total, each.cpus, each.gpus, each.memory_bytes) for each in self._left]
        for gone in without:
            for bundle in _wanted(gone):
                home = next((each for each in left if each.may_have_held(bundle)), None)
                if home is not None:
                    home.add(bundle, 1)
        return _pack(left, replicas)

    def take(self, replicas: Replicas | None) -> None:
        """Promise it."""
        if replicas is not None and self._known:
            _pack(self._left, replicas)

    def ever_fits(self, replicas: Replicas) -> bool:
        """Would they find room if nothing else ran there?"""
        empty = [_Left(each.total, each.total.cpus, each.total.gpus, each.total.memory_bytes) for each in self._left]
        return not self._known or _pack(empty, replicas)

    def describe(self, replicas: Replicas) -> str:
        """What is asked, in words: ``2 × (1 CPU, 0.5 GPU)``."""
        bundle = replicas.bundles[0]
        parts = [f"{bundle.cpus:g} CPU" if bundle.cpus else "", f"{bundle.gpus:g} GPU" if bundle.gpus else ""]
        words = ", ".join(part for part in parts if part) or "memory"
        count = len(replicas.bundles) * max(1, replicas.minimum)
        return f"{count} × ({words})" if count > 1 else words


def _copy(node: RayNode) -> _Left:
    return _Left(node.total, node.free.cpus, node.free.gpus, node.free.memory_bytes)


def _wanted(replicas: Replicas) -> list[Bundle]:
    return [bundle for _ in range(max(1, replicas.minimum)) for bundle in replicas.bundles]


def _pack(left: list[_Left], replicas: Replicas) -> bool:
    """First fit, the largest first; what was placed before it failed stays taken, so a failure is final for this plan."""
    for bundle in sorted(_wanted(replicas), key=lambda b: (-b.gpus, -b.memory_bytes, -b.cpus)):
        home = next((each for each in left if each.holds(bundle)), None)
        if home is None:
            return False
        home.add(bundle, -1)
    return True

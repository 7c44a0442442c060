"""What a Ray cluster has and what is left of it: nodes enter, devices for the planner leave, and whether replicas find room.

The memory of all nodes together is one device, that of all their GPUs another; what may be promised there is counted in
bytes as everywhere. That is not enough, because a replica needs its CPUs, its GPUs and its memory on one node:
``ClusterRoom`` looks for that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from modelium.values import Bundle, Device, DeviceKind, ModelView, Ray, RayNode, RayState, Replicas

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

    cpus: float
    gpus: list[float]  # of each one
    memory_bytes: int

    @classmethod
    def of(cls, free: Bundle) -> _Left:
        """Ray tells how much of all GPUs is free; that it has packed them well is believed."""
        whole = int(free.gpus + _EPSILON)
        return cls(free.cpus, [1.0] * whole + [free.gpus - whole], free.memory_bytes)

    def beside(self, others: Iterable[Bundle]) -> _Left:
        """What there will be when these are gone."""
        gone = tuple(others)
        if not gone:
            return _Left(self.cpus, list(self.gpus), self.memory_bytes)
        return _Left.of(
            Bundle(
                cpus=self.cpus + sum(each.cpus for each in gone),
                gpus=sum(self.gpus) + sum(each.gpus for each in gone),
                memory_bytes=self.memory_bytes + sum(each.memory_bytes for each in gone),
            )
        )

    def take(self, bundle: Bundle) -> bool:
        """False when it has not so much; then nothing is taken."""
        # A share is of one GPU, several are whole ones. Ray too fills those first that have been shared already.
        count, share = (round(bundle.gpus), 1.0) if bundle.gpus > 1 else (int(bundle.gpus > 0), bundle.gpus)
        there = [index for index, left in enumerate(self.gpus) if left + _EPSILON >= share]
        if bundle.cpus > self.cpus + _EPSILON or bundle.memory_bytes > self.memory_bytes or len(there) < count:
            return False
        for index in sorted(there, key=self.gpus.__getitem__)[:count]:
            self.gpus[index] -= share
        self.cpus -= bundle.cpus
        self.memory_bytes -= bundle.memory_bytes
        return True


class ClusterRoom:
    """What may still be promised on Ray's nodes. Nothing is known of a Ray that is asleep: then everything finds room.

    Ray's account of its nodes is as old as the last question, Modelium's own promises are not. So of each model of ours that
    occupies what was promised to it, what Ray does not show yet is taken too (1). What Ray shows of a model that leaves, or
    that has left since, is on its way back (2).
    """

    def __init__(self, ray: Ray, models: Collection[ModelView] = ()) -> None:
        self._nodes = ray.nodes
        self._left = [_Left.of(node.free) for node in ray.nodes]
        staying = [view for view in models if view.state.stays]
        held = {name for node in ray.nodes for name in node.held}
        self._returning = held.difference(view.name for view in staying)  # 2
        for view in staying:
            place = view.placement
            if place is not None and place.replicas is not None:
                shown = sum(len(node.held.get(view.name, ())) for node in self._nodes)
                _pack(self._left, _wanted(place.replicas)[shown:])  # 1

    def fits(self, replicas: Replicas | None) -> bool:
        """Would as many replicas as there have to be find room now?"""
        return replicas is None or not self._nodes or _pack([each.beside(()) for each in self._left], _wanted(replicas))

    def would_fit(self, replicas: Replicas | None, without: Iterable[str]) -> bool:
        """And when what leaves has left, and the models of ``without`` too?"""
        if replicas is None or not self._nodes:
            return True
        gone = self._returning.union(without)
        left = [
            there.beside(bundle for name in gone for bundle in node.held.get(name, ()))
            for there, node in zip(self._left, self._nodes, strict=True)
        ]
        return _pack(left, _wanted(replicas))

    def take(self, replicas: Replicas | None) -> None:
        """Promise it."""
        if replicas is not None and self._nodes:
            _pack(self._left, _wanted(replicas))

    def describe(self, replicas: Replicas) -> str:
        """What is asked, in words: ``2 × (1 CPU, 0.5 GPU)``."""
        bundle = replicas.bundles[0]
        parts = [f"{bundle.cpus:g} CPU" if bundle.cpus else "", f"{bundle.gpus:g} GPU" if bundle.gpus else ""]
        words = ", ".join(part for part in parts if part) or "memory"
        count = len(replicas.bundles) * max(1, replicas.minimum)
        return f"{count} × ({words})" if count > 1 else words


def _wanted(replicas: Replicas) -> list[Bundle]:
    """The largest first."""
    all_of_them = [bundle for _ in range(max(1, replicas.minimum)) for bundle in replicas.bundles]
    return sorted(all_of_them, key=lambda b: (-b.gpus, -b.memory_bytes, -b.cpus))


def _pack(left: list[_Left], wanted: Iterable[Bundle]) -> bool:
    """First fit. What was placed before one finds no room stays taken."""
    return all(any(each.take(bundle) for each in left) for bundle in wanted)

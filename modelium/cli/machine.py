"""What a plan without a server is made for: settings enter, this machine's devices and a Ray cluster's leave."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace

from modelium import runtime_env
from modelium.brain.placement.cluster import cluster_devices
from modelium.config import RaySettings, Settings, lacks_unit, parse_bytes
from modelium.devices import Devices
from modelium.errors import RayUnavailable
from modelium.ray.dashboard import Dashboard
from modelium.ray.joined import offers, other_version, runs_here
from modelium.sizes import GIB, human_bytes
from modelium.values import Device, DeviceKind, Fleet, Ray, RayState, device_id

_LEAST_GPU, _MOST_GPU = GIB, 2**14 * GIB


def gpu_bytes(size: str) -> int:
    """``80GiB`` → bytes. Raises ``ValueError`` for what is no size of a GPU; so is a number alone, behind which GiB was
    forgotten.

    >>> gpu_bytes("24GiB")
    25769803776
    """
    if lacks_unit(size):
        raise ValueError(f"{size[:20]} has no unit: write --gpu {size.strip()[:20]}GiB for a GPU with that many GiB")
    found = parse_bytes(size)
    if not isinstance(found, int) or found < _LEAST_GPU:
        raise ValueError(f"{size} is less than a GPU has: write its memory, like --gpu 24GiB or --gpu 80GiB")
    if found > _MOST_GPU:
        raise ValueError(f"{size[:20]} is more than a GPU has: write its memory, like --gpu 24GiB or --gpu 80GiB")
    return found


def fleet_of(settings: Settings, gpus: Sequence[int]) -> Fleet:
    """This machine's devices, or its host and GPUs of these sizes, all free. Nobody else is asked: see ``with_cluster``."""
    fraction = settings.devices.gpu_memory_fraction
    fleet = Devices(host_memory=settings.devices.host_memory, gpu_memory_fraction=fraction).fleet()
    if settings.ray.enabled and settings.ray.own:
        fleet = replace(fleet, ray=Ray(state=RayState.ASLEEP))
    if not gpus:
        return fleet
    thought = tuple(
        Device(
            id=device_id(DeviceKind.CUDA, index),
            kind=DeviceKind.CUDA,
            index=index,
            name=f"a GPU with {human_bytes(size)}",
            total_bytes=size,
            used_bytes=0,
            budget_bytes=int(size * fraction),
        )
        for index, size in enumerate(gpus)
    )
    hosts = (device for device in fleet.devices if device.kind is DeviceKind.HOST)
    return Fleet(devices=(*hosts, *thought), ray=fleet.ray)


def with_cluster(fleet: Fleet, settings: Settings) -> Fleet:
    """``fleet`` and what the Ray cluster at ``ray.address`` has now; as it is where there is none."""
    if not settings.ray.enabled or settings.ray.own:
        return fleet
    try:
        ray = ask_cluster(settings.ray)
    except RayUnavailable as error:
        ray = Ray(state=RayState.DOWN, here=bool(settings.ray.on_this_machine), detail=str(error))
    if ray.state is RayState.UP and settings.triton.mode == "embedded":
        runtime = runtime_env.read_ray(runtime_env.inspect(settings.triton.runtime_directory))
        if differs := other_version(settings.ray.address, ray.version, runtime.version):
            ray = replace(ray, state=RayState.DOWN, detail=f"{differs}; they have to be the same", nodes=())
    added = cluster_devices(ray, settings.devices.gpu_memory_fraction)
    return Fleet(devices=(*fleet.devices, *added), ray=ray)


def ask_cluster(settings: RaySettings) -> Ray:
    """The cluster at ``settings.address`` by its dashboard's account. Raises ``RayUnavailable`` where that gives none."""
    return asyncio.run(_ask(settings))


async def _ask(settings: RaySettings) -> Ray:
    dashboard = Dashboard(settings.dashboard, os.environ.get("RAY_AUTH_TOKEN", ""))
    version = await dashboard.version()
    if not await dashboard.healthy():
        raise RayUnavailable(f"the head of the Ray cluster at {settings.address} does not answer its own dashboard")
    nodes = await dashboard.nodes()
    here = runs_here(nodes) if settings.on_this_machine is None else settings.on_this_machine
    return Ray(state=RayState.UP, version=version, here=here, nodes=tuple(filter(offers, nodes)))

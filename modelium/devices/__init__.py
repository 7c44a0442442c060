"""Devices and what is on them: what enters are NVML, /proc and control groups, what leaves is a ``Fleet`` and the memory
that each model's processes hold.

Reading is cheap but not free (files of /proc, a page-table walk for proportional sizes): call it from a thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from modelium.devices.attribution import ProcessMap
from modelium.devices.footprints import Scales, unshared_bytes
from modelium.devices.host import read_host_memory
from modelium.devices.nursery import Nursery
from modelium.devices.nvml import Nvml
from modelium.devices.processes import Process, alive, find_process, watch_exit
from modelium.devices.replicas import Replica, find_replicas, processes_of
from modelium.values import Device, DeviceKind, Fleet, NurseryStatus, device_id

__all__ = ["Devices", "Process", "Replica", "Scales", "find_process", "processes_of"]

_HOST_SHARE = 0.75


class Devices:
    """This machine's devices. ``host_memory`` None: models may use three quarters of the host's memory. ``nursery``: where one
    says who was born in it; None where there never is one."""

    def __init__(self, *, host_memory: int | None, gpu_memory_fraction: float, nursery: Path | None = None) -> None:
        self._host_memory = host_memory
        self._gpu_memory_fraction = gpu_memory_fraction
        self._nvml = Nvml()
        self._map = ProcessMap(Nursery(nursery))

    def fleet(self) -> Fleet:
        """Every device with its memory now: the host first, then the GPUs in Triton's order."""
        memory = read_host_memory()
        wanted = int(memory.total_bytes * _HOST_SHARE) if self._host_memory is None else self._host_memory
        host = Device(
            id=device_id(DeviceKind.HOST),
            kind=DeviceKind.HOST,
            index=-1,
            name=f"host, {os.cpu_count()} CPUs",
            total_bytes=memory.total_bytes,
            used_bytes=memory.used_bytes,
            budget_bytes=min(wanted, memory.total_bytes),
        )
        gpus = [
            Device(
                id=device_id(DeviceKind.CUDA, gpu.index),
                kind=DeviceKind.CUDA,
                index=gpu.index,
                name=gpu.name,
                total_bytes=gpu.total_bytes,
                used_bytes=gpu.used_bytes,
                budget_bytes=int(gpu.total_bytes * self._gpu_memory_fraction),
                uuid=gpu.uuid,
            )
            for gpu in self._nvml.gpus()
        ]
        return Fleet(devices=(host, *gpus))

    def processes(self, server_pid: int) -> dict[str, tuple[Process, ...]]:
        """Model name → its processes below ``server_pid`` (tritonserver or anything above it), stubs first.

        Offspring that outlives its stub stays with its model for as long as it lives, and so does who was born in the nursery
        for that stub.
        """
        return self._map.read(server_pid)

    def born(self, processes: Iterable[Process]) -> list[Process]:
        """Those that were born in the nursery, as of the last look at the processes."""
        return [process for process in processes if process.pid in self._map.born]

    def orphans(self) -> frozenset[int]:
        """The processes of models whose nursery has ended by now, so that they have for themselves what they shared with it.
        Asked after they were weighed, it names all whose weight may say so."""
        return self._map.orphans()

    def replicas(self, owner: str) -> dict[str, tuple[Replica, ...]]:
        """Model name → its Ray replicas on this machine with all below them. ``owner``: whose entries deployed
        them."""
        return find_replicas(owner)

    def scales(self) -> Scales:
        """For the host, with the nursery as of the last look at the processes. They read each process once."""
        return Scales(born=self._map.kin, nursery=self._map.nursery)

    def nursery(self, scales: Scales) -> NurseryStatus | None:
        """The nursery as of the last look at the processes; None where there is none."""
        if not self._map.nursery:
            return None
        return NurseryStatus(processes=len(self._map.nursery), children=len(self._map.born), held_bytes=scales.weigh_nursery())

    def held_bytes(self, pids: Iterable[int], device: Device, scales: Scales | None = None) -> int:
        """What these processes hold on a device together; 0 also where it cannot be known (then keep the estimate)."""
        match device.kind:
            case DeviceKind.HOST:
                return (scales or self.scales()).weigh(pids)
            case DeviceKind.CUDA:
                return self._nvml.process_bytes(device.index, frozenset(pids))

    def residues(self, server_pid: int) -> dict[str, int]:
        """Device → what is taken there by the server itself, without its models' processes, or by nobody: on the host the
        former, on a GPU both. Those of which it cannot be known are left out."""
        self._map.read(server_pid)
        own = self._map.own
        found = {device_id(DeviceKind.HOST): unshared_bytes(own)}
        for gpu in self._nvml.gpus():
            residue = self._nvml.residue_bytes(gpu.index, frozenset(own))
            if residue is not None:
                found[device_id(DeviceKind.CUDA, gpu.index)] = residue
        return found

    def alive(self, process: Process) -> bool:
        """Whether this very process runs; a zombie does not."""
        return alive(process)

    def watch_exit(self, process: Process, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` once, in the running loop, when the process has ended. What is returned ends the watch."""
        return watch_exit(process, callback)

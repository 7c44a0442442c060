"""Where models are served, and what that takes. Sizes are in bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from modelium.values.language import EnginePlan
from modelium.values.ray import Ray, RayWay, Replicas


class Runtime(StrEnum):
    """Who executes the model inside Triton: the name of the Triton backend, or ``ray`` behind the python backend."""

    VLLM = "vllm"
    ONNXRUNTIME = "onnxruntime"
    PYTHON = "python"
    RAY = "ray"


class DeviceKind(StrEnum):
    """The host's memory or a GPU's, on this machine or on a Ray cluster."""

    HOST = "host"
    CUDA = "cuda"


def device_id(kind: DeviceKind, index: int = -1, *, node: str = "") -> str:
    """``host``, ``cuda:0``; with a ``node`` other than this one ``NODE/cuda:0``, so that the ids of all nodes differ."""
    own = kind.value if index < 0 else f"{kind.value}:{index}"
    return f"{node}/{own}" if node else own


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A place for models. ``used_bytes`` is what is really taken now (by anybody); ``budget_bytes`` is what models may use.

    ``index`` is NVML's and Triton's GPU ordinal, -1 for the host and for a Ray cluster. ``cluster``: not of this machine, but
    all the host memory (or all the GPUs) of a Ray cluster together; only the ray runtime can use it. ``node``: whose it is,
    "" for the one that Modelium runs on. ``leaked_bytes``: of ``used_bytes``, what unloads have not brought back.
    """

    id: str  # as `device_id` makes it; "ray" · "ray:cuda" for a cluster
    kind: DeviceKind
    index: int
    name: str
    total_bytes: int
    used_bytes: int
    budget_bytes: int
    uuid: str = ""
    cluster: bool = False
    node: str = ""
    leaked_bytes: int = 0

    @property
    def is_host(self) -> bool:
        """Is it the memory of a machine that runs a Triton?"""
        return self.kind is DeviceKind.HOST and not self.cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Every device of this machine, the host included, and those of a Ray cluster."""

    devices: tuple[Device, ...]
    ray: Ray = field(default_factory=Ray)

    def get(self, device_id: str) -> Device | None:
        """The device of that id, None where there is none."""
        return next((d for d in self.devices if d.id == device_id), None)

    def hosts(self) -> tuple[Device, ...]:
        """The memory of each machine that runs a Triton."""
        return tuple(device for device in self.devices if device.is_host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Memory of one model on its device. What was measured once is what the next placement uses. ``corrected_bytes``: the
    estimate times what others of its kind were measured to take of theirs."""

    estimated_bytes: int
    measured_bytes: int | None = None
    corrected_bytes: int | None = None

    @property
    def bytes(self) -> int:
        """As measured, else as estimated and corrected."""
        if self.measured_bytes is not None:
            return self.measured_bytes
        return self.estimated_bytes if self.corrected_bytes is None else self.corrected_bytes

    @property
    def error(self) -> float | None:
        """Of the estimate, as a part of what was measured: 0.1 when it is a tenth too much. None: nothing was measured yet."""
        return self.estimated_bytes / self.measured_bytes - 1 if self.measured_bytes and self.estimated_bytes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How and where a model is to be served: everything the entry needs besides the profile.

    ``footprint`` is what it takes on each of its devices: ``device_id``, and for a tensor-parallel engine those of ``engine``;
    with Ray, what all replicas that there may be take.
    """

    runtime: Runtime
    device_id: str
    device_kind: DeviceKind
    device_index: int
    footprint: Footprint
    max_batch_size: int
    instance_count: int = 1
    reason: str = ""
    engine: EnginePlan | None = None  # with vLLM, in Triton or behind Ray
    replicas: Replicas | None = None  # with runtime ray
    way: RayWay | None = None  # with runtime ray: what its replicas run
    exclusive: bool = False  # its user wants each of its devices for it alone, and that is its footprint
    born: bool = False  # on the host: its processes are a nursery's children, which count without their imports

    @property
    def manner(self) -> str:
        """In what manner it is served: a measurement is of one manner, and says nothing about another."""
        born = " born" if self.born else ""
        return f"{self.runtime} {self.device_kind} {self.max_batch_size}x{self.instance_count}{born}"

    @property
    def devices(self) -> tuple[str, ...]:
        """The ids of all devices it is on."""
        return self.engine.devices if self.engine is not None else (self.device_id,)

    @property
    def gpus(self) -> tuple[int, ...]:
        """The ordinals of all GPUs it is on."""
        if self.device_kind is not DeviceKind.CUDA:
            return ()
        return self.engine.gpus if self.engine is not None else (self.device_index,)

    @property
    def by_vllm(self) -> bool:
        """Does vLLM answer, in Triton or behind Ray? Then the tensors are those of Triton's vLLM backend."""
        return self.runtime is Runtime.VLLM or self.engine is not None

    @property
    def by_ray(self) -> bool:
        """Do Ray's replicas answer? Then Triton's process only forwards."""
        return self.runtime is Runtime.RAY

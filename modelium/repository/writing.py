"""What writes the entries of one runtime: its file, beside this one, fills it in; ``config`` has the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from modelium.config import RaySettings
from modelium.values import DeviceKind, ModelOverride, ModelProfile, Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class RayPlace:
    """Which Ray entries are deployed on: ``auto`` or the address of a cluster's GCS, and that cluster's dashboard.
    ``owner``: by which what they deploy is recognised there (``Ledger.owner``)."""

    address: str = "auto"
    dashboard: str = ""
    owner: str = ""

    @classmethod
    def of(cls, settings: RaySettings, owner: str = "") -> RayPlace:
        """The one that the configuration names."""
        if settings.own:
            return cls(owner=owner)
        return cls(address=settings.address, dashboard=settings.dashboard, owner=owner)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An entry that is to be written. ``source``: the model's folder or file, ``model_path``: the same as Triton sees it."""

    profile: ModelProfile
    placement: Placement
    source: Path
    seen_by_triton: Callable[[Path], str]
    override: ModelOverride = field(default_factory=ModelOverride)
    ray: RayPlace = field(default_factory=RayPlace)

    @property
    def model_path(self) -> str:
        """The model's folder or file as Triton sees it."""
        return self.seen_by_triton(self.source)


def on_its_device(placement: Placement) -> pb.ModelInstanceGroup:
    """As many instances as were planned, where they were planned."""
    count = max(1, placement.instance_count)
    match placement.device_kind:
        case DeviceKind.HOST:
            return pb.ModelInstanceGroup(count=count, kind=pb.ModelInstanceGroup.KIND_CPU)
        case DeviceKind.CUDA:
            return pb.ModelInstanceGroup(count=count, kind=pb.ModelInstanceGroup.KIND_GPU, gpus=[placement.device_index])


def nothing_more(order: Order, version: Path) -> None:
    """The template is all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """``parameters`` and ``instances`` of config.pbtxt; ``fill``: what ``1/`` holds besides the template's files."""

    parameters: Callable[[Order], dict[str, str]]
    instances: Callable[[Placement], pb.ModelInstanceGroup] = on_its_device
    fill: Callable[[Order, Path], None] = nothing_more

"""Small worlds for the brain's tests: devices, models and observations with sensible defaults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from modelium.values import (
    Demand,
    Device,
    DeviceKind,
    Fleet,
    Footprint,
    ModelProfile,
    ModelView,
    Observed,
    Placement,
    Policies,
    Runtime,
    State,
    Task,
    Usage,
)

MIB = 2**20
GIB = 2**30
NOW = 10_000.0


def host(budget: int = 8 * GIB, total: int = 64 * GIB, used: int = 0) -> Device:
    return Device(
        id="host", kind=DeviceKind.HOST, index=-1, name="host memory", total_bytes=total, used_bytes=used, budget_bytes=budget
    )


def gpu(index: int = 0, budget: int = 20 * GIB, total: int = 24 * GIB, used: int = 0) -> Device:
    return Device(
        id=f"cuda:{index}",
        kind=DeviceKind.CUDA,
        index=index,
        name="a GPU",
        total_bytes=total,
        used_bytes=used,
        budget_bytes=budget,
    )


def profile(name: str = "m", task: Task = Task.TEXT_CLASSIFICATION, **changes: object) -> ModelProfile:
    plain = ModelProfile(
        name=name,
        path=Path("/incoming") / name,
        task=task,
        library="transformers",
        architecture="BertForSequenceClassification",
        parameters=20_000_000,
        weight_bytes=80_000_000,
        max_length=512,
        embedding_width=384,
        fingerprint="f1",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def placed(size: int, device: Device, runtime: Runtime = Runtime.PYTHON) -> Placement:
    return Placement(
        runtime=runtime,
        device_id=device.id,
        device_kind=device.kind,
        device_index=device.index,
        footprint=Footprint(estimated_bytes=size),
        max_batch_size=8,
    )


def loaded(name: str, size: int = GIB, *, device: Device | None = None, idle_s: float = 0.0, **changes: object) -> ModelView:
    view = ModelView(
        name=name,
        state=State.LOADED,
        profile=profile(name),
        footprint=Footprint(estimated_bytes=size, measured_bytes=size),
        placement=placed(size, device or host()),
        usage=Usage(last_used_at=NOW - idle_s),
        bytes_held=size,
        load_seconds=4.0,
    )
    return replace(view, **changes)  # type: ignore[arg-type]


def wanted(name: str, size: int = GIB, *, demand: Demand = Demand.REQUEST, **changes: object) -> ModelView:
    view = ModelView(
        name=name,
        state=State.UNLOADED,
        profile=profile(name),
        footprint=Footprint(estimated_bytes=size, measured_bytes=size),
        demand=demand,
        demand_since=NOW - 1,
        waiting=1 if demand is Demand.REQUEST else 0,
    )
    return replace(view, **changes)  # type: ignore[arg-type]


def world(*models: ModelView, devices: tuple[Device, ...] = (), **changes: object) -> Observed:
    observed = Observed(now=NOW, models=models, fleet=Fleet(devices=devices or (host(),)), policies=Policies())
    return replace(observed, **changes)  # type: ignore[arg-type]

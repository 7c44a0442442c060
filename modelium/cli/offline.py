"""Verbs that need no server: a path enters, what it is and how it would be served leaves, by the controller's own functions."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelium import repository
from modelium.analyzers import analyze
from modelium.brain.engine_placement import why_too_big
from modelium.brain.memory import Estimate, estimate
from modelium.brain.options import options
from modelium.brain.placement import rooms_of
from modelium.brain.runtime import RuntimeChoice, choose_runtime
from modelium.brain.words import human_bytes
from modelium.cli import replies
from modelium.cli.abilities import likely_capabilities
from modelium.cli.engine import language_rows
from modelium.config import Settings
from modelium.devices import Devices
from modelium.errors import ModeliumError
from modelium.gateway.json_views import profile_view
from modelium.gateway.language_views import engine_view, language_view, plan_view
from modelium.names import served_name
from modelium.tasks import signature
from modelium.values import (
    AdapterProfile,
    Candidate,
    Device,
    DeviceKind,
    Fleet,
    Footprint,
    Incomplete,
    ModelOverride,
    ModelProfile,
    ModelView,
    Placement,
    PlanLine,
    Ray,
    RayState,
    State,
    Tensor,
    Unsupported,
)


class NotAModel(ModeliumError):
    """The path cannot be served as it is."""

    type = "not_a_model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A folder as Modelium sees it. ``runtime.runtime`` and ``placement`` are None when nothing here can serve it."""

    profile: ModelProfile
    choice: RuntimeChoice
    placement: Placement | None
    placement_reason: str
    estimate: Estimate | None = None  # the parts of the footprint; an engine's are in the lines of its plan
    plan: tuple[PlanLine, ...] = ()  # of the engine, also of one that is too big

    @property
    def servable(self) -> bool:
        return self.placement is not None

    def facts(self) -> dict[str, str]:
        """The profile as rows of a table: only what is known."""
        profile = self.profile
        pooling = profile.pooling
        kind = f"{profile.dtype}, {profile.weight_format}"
        rows = {
            "path": str(profile.path),
            "task": f"{profile.task} ({profile.task_source})" if profile.task_source else str(profile.task),
            "architecture": profile.architecture + (f" ({profile.model_type})" if profile.model_type else ""),
            "library": profile.library,
            "parameters": f"{profile.parameters:,}" if profile.parameters else "",
            "weights": f"{profile.weight_bytes:,} bytes ({human_bytes(profile.weight_bytes)}), {kind}",
            "quantization": profile.quantization or "",
            "longest input": f"{profile.max_length:,} tokens" if profile.max_length and not profile.language else "",
            "labels": _labels(profile.labels),
            "embedding": f"{profile.embedding_width} wide" if profile.embedding_width else "",
            "pooling": f"{pooling.mode}{', normalised' if pooling.normalize else ''}" if pooling else "",
            "custom code": "needed: allow it by name with models: {NAME: {allow_custom_code: true}}"
            if profile.needs_custom_code
            else "",
            "revision": profile.fingerprint[:16],
        }
        if profile.language is not None:
            rows |= language_rows(replies.Language.model_validate(language_view(profile.language)))
        return {name: value for name, value in rows.items() if value}

    def tensors(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        described = signature(self.profile, self.choice.runtime, engine=self.choice.engine)
        return described.inputs, described.outputs

    def as_json(self) -> str:
        profile, placement = self.profile, self.placement
        served = {
            "runtime": self.choice.runtime,
            "runtime_rule": self.choice.rule,
            "runtime_reason": self.choice.reason,
            "device": placement.device_id if placement else None,
            "devices": list(placement.devices) if placement else [],
            "device_reason": self.placement_reason,
            "estimated_bytes": placement.footprint.estimated_bytes if placement else None,
            "max_batch_size": placement.max_batch_size if placement else None,
            "engine": engine_view(placement.engine) if placement and placement.engine else None,
            "plan": plan_view(self.plan),
        }
        described = profile_view(profile, self.choice.runtime, engine=self.choice.engine)
        return json.dumps({"name": profile.name, "path": str(profile.path), **described, **served}, indent=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """An entry that was written: where, from what, and the files in it."""

    entry: Path
    inspection: Inspection

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.entry)) for path in self.entry.rglob("*") if path.is_file())

    def as_json(self) -> str:
        return json.dumps({"entry": str(self.entry), "name": self.inspection.profile.name, "files": self.files()}, indent=2)


def inspect(path: Path, settings: Settings, *, gpus: Sequence[int] = ()) -> Inspection:
    """Analyze ``path`` and decide how it would be served on this machine when nothing else is loaded.

    ``gpus``: the memory of GPUs that this machine is to be thought to have, instead of its own.
    """
    candidate = candidate_at(path)
    override = settings.overrides().get(candidate.name, ModelOverride())
    match analyze(candidate, override):
        case ModelProfile() as profile:
            pass
        case AdapterProfile(adapter=adapter):
            base = f" for {adapter.base}" if adapter.base else ""
            raise NotAModel(
                f"{path} is a LoRA adapter{base}, of rank {adapter.rank}: drop it beside its base model, which serves it"
            )
        case Incomplete(why=why):
            raise NotAModel(f"{path} is not complete: {why}")
        case Unsupported(why=why, hint=hint):
            raise NotAModel(f"{path} cannot be served: {why}" + (f" ({hint})" if hint else ""))
    fleet = _fleet(settings, gpus)
    choice = choose_runtime(profile, likely_capabilities(settings, fleet), override)
    if choice.runtime is None:
        return Inspection(profile=profile, choice=choice, placement=None, placement_reason="no runtime serves it")
    view = ModelView(name=candidate.name, state=State.UNLOADED, profile=profile, footprint=Footprint(estimated_bytes=0))
    rooms = rooms_of(fleet.devices, ())
    placements = options(view, profile, choice, rooms.values(), override, settings.policies(), fleet.ray)
    if not placements:
        return _too_big(profile, choice, fleet, override, settings)
    room, placement = placements[0]
    reason = f"{human_bytes(room.free)} free of {human_bytes(room.device.budget_bytes)} for models on {room.device.name}"
    if placement.engine is not None:
        return Inspection(
            profile=profile, choice=choice, placement=placement, placement_reason=reason, plan=placement.engine.lines
        )
    parts = estimate(
        profile,
        choice.runtime,
        device=placement.device_kind,
        max_batch_size=max(placement.max_batch_size, 1),
        instances=placement.instance_count,
    )
    return Inspection(profile=profile, choice=choice, placement=placement, placement_reason=reason, estimate=parts)


def _fleet(settings: Settings, gpus: Sequence[int]) -> Fleet:
    """This machine's devices, or its host and GPUs of these sizes, all free."""
    fraction = settings.devices.gpu_memory_fraction
    fleet = Devices(host_memory=settings.devices.host_memory, gpu_memory_fraction=fraction).fleet()
    if settings.ray.enabled and settings.ray.own:
        fleet = replace(fleet, ray=Ray(state=RayState.ASLEEP))
    if not gpus:
        return fleet
    thought = tuple(
        Device(
            id=f"cuda:{index}",
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


def _too_big(
    profile: ModelProfile, choice: RuntimeChoice, fleet: Fleet, override: ModelOverride, settings: Settings
) -> Inspection:
    reason, lines = f"it fits on no device: {_budgets(fleet)}", tuple[PlanLine, ...]()
    if choice.engine and profile.language is not None:
        found = why_too_big(profile, fleet.devices, override, settings.policies())
        if found is not None:
            reason, lines = found.reason, found.lines
    return Inspection(profile=profile, choice=choice, placement=None, placement_reason=reason, plan=lines)


def render(path: Path, out: Path, settings: Settings, *, gpus: Sequence[int] = ()) -> Rendering:
    """Write the entry of ``path`` into ``out/NAME``."""
    inspection = inspect(path, settings, gpus=gpus)
    if inspection.placement is None:
        raise NotAModel(f"{path} cannot be served: {inspection.choice.reason}; {inspection.placement_reason}")
    profile = inspection.profile
    override = settings.overrides().get(profile.name, ModelOverride())
    entry = repository.render(
        profile,
        inspection.placement,
        out,
        path_mapping=settings.triton.path_mapping,
        override=override,
        ray=repository.RayPlace.of(settings.ray),
    )
    return Rendering(entry=entry, inspection=inspection)


def candidate_at(path: Path) -> Candidate:
    """``path`` as the watcher would have found it, whatever directory it lies in."""
    if not path.exists():
        raise NotAModel(f"{path}: no such file or folder")
    path = Path(os.path.abspath(path))  # noqa: PTH100 – a link keeps the name that the user gave it
    label = path.stem if path.is_file() else path.name
    root = path.parent
    if path.parent.name == "snapshots":  # a revision in a Hugging Face cache: its files are links into the cache's blobs
        cache = path.parent.parent
        label, root = cache.name.removeprefix("models--").replace("--", "/"), cache.parent
    try:
        name = served_name(label)
    except ValueError as error:
        raise NotAModel(f"{path}: {error}") from error
    return Candidate(name=name, label=label, path=path, root=root, signature="", newest_mtime=path.stat().st_mtime)


def _budgets(fleet: Fleet) -> str:
    return ", ".join(f"{device.id} has {human_bytes(device.budget_bytes)} for models" for device in fleet.devices)


def _labels(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:6]) + (" …" if len(labels) > 6 else "")
    return f"{len(labels)} ({shown})" if labels else ""

"""Verbs that need no server: a path enters, what it is and how it would be served leaves, by the controller's own functions."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from modelium import repository
from modelium.analyzers import analyze
from modelium.brain.memory import Estimate, estimate
from modelium.brain.placement import options, rooms_of
from modelium.brain.plan import human_bytes
from modelium.brain.runtime import RuntimeChoice, choose_runtime
from modelium.config import Settings
from modelium.devices import Devices
from modelium.errors import ModeliumError
from modelium.gateway.json_views import profile_view
from modelium.names import served_name
from modelium.tasks import signature
from modelium.values import (
    Candidate,
    Fleet,
    Footprint,
    Incomplete,
    ModelOverride,
    ModelProfile,
    ModelView,
    Placement,
    State,
    Tensor,
    Unsupported,
)

# Backends that the embedded server brings; what a running Triton really has is only known to a running Modelium.
_EMBEDDED_BACKENDS = frozenset({"python", "onnxruntime"})


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
    estimate: Estimate | None = None  # the parts of the footprint

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
            "longest input": f"{profile.max_length:,} tokens" if profile.max_length else "",
            "labels": _labels(profile.labels),
            "embedding": f"{profile.embedding_width} wide" if profile.embedding_width else "",
            "pooling": f"{pooling.mode}{', normalised' if pooling.normalize else ''}" if pooling else "",
            "custom code": "needed: allow it by name with models: {NAME: {allow_custom_code: true}}"
            if profile.needs_custom_code
            else "",
            "revision": profile.fingerprint[:16],
        }
        return {name: value for name, value in rows.items() if value}

    def tensors(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        described = signature(self.profile)
        return described.inputs, described.outputs

    def as_json(self) -> str:
        profile, placement = self.profile, self.placement
        served = {
            "runtime": self.choice.runtime,
            "runtime_reason": self.choice.reason,
            "device": placement.device_id if placement else None,
            "device_reason": self.placement_reason,
            "estimated_bytes": placement.footprint.estimated_bytes if placement else None,
            "max_batch_size": placement.max_batch_size if placement else None,
        }
        return json.dumps({"name": profile.name, "path": str(profile.path), **profile_view(profile), **served}, indent=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """An entry that was written: where, from what, and the files in it."""

    entry: Path
    inspection: Inspection

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.entry)) for path in self.entry.rglob("*") if path.is_file())

    def as_json(self) -> str:
        return json.dumps({"entry": str(self.entry), "name": self.inspection.profile.name, "files": self.files()}, indent=2)


def inspect(path: Path, settings: Settings) -> Inspection:
    """Analyze ``path`` and decide how it would be served on this machine when nothing else is loaded."""
    candidate = candidate_at(path)
    override = settings.overrides().get(candidate.name, ModelOverride())
    match analyze(candidate, override):
        case ModelProfile() as profile:
            pass
        case Incomplete(why=why):
            raise NotAModel(f"{path} is not complete: {why}")
        case Unsupported(why=why, hint=hint):
            raise NotAModel(f"{path} cannot be served: {why}" + (f" ({hint})" if hint else ""))
    backends = (frozenset(settings.triton.backends) or _EMBEDDED_BACKENDS) & repository.writable_runtimes()
    choice = choose_runtime(profile, settings.capabilities(backends), override)
    if choice.runtime is None:
        return Inspection(profile=profile, choice=choice, placement=None, placement_reason="no runtime serves it")
    fleet = Devices(host_memory=settings.devices.host_memory, gpu_memory_fraction=settings.devices.gpu_memory_fraction).fleet()
    view = ModelView(name=candidate.name, state=State.UNLOADED, profile=profile, footprint=Footprint(estimated_bytes=0))
    placements = options(view, profile, choice.runtime, rooms_of(fleet.devices, ()).values(), override)
    if not placements:
        return Inspection(
            profile=profile, choice=choice, placement=None, placement_reason=f"it fits on no device: {_budgets(fleet)}"
        )
    room, placement = placements[0]
    reason = f"{human_bytes(room.free)} free of {human_bytes(room.device.budget_bytes)} for models on {room.device.name}"
    parts = estimate(
        profile,
        choice.runtime,
        device=placement.device_kind,
        max_batch_size=max(placement.max_batch_size, 1),
        instances=placement.instance_count,
    )
    return Inspection(profile=profile, choice=choice, placement=placement, placement_reason=reason, estimate=parts)


def render(path: Path, out: Path, settings: Settings) -> Rendering:
    """Write the entry of ``path`` into ``out/NAME``."""
    inspection = inspect(path, settings)
    if inspection.placement is None:
        raise NotAModel(f"{path} cannot be served: {inspection.choice.reason}; {inspection.placement_reason}")
    profile = inspection.profile
    override = settings.overrides().get(profile.name, ModelOverride())
    entry = repository.render(profile, inspection.placement, out, path_mapping=settings.triton.path_mapping, override=override)
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

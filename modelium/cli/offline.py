"""Verbs that need no server: a path enters, what it is and how it would be served leaves, by the controller's own functions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelium import repository, views
from modelium.analysis import analyze_apart
from modelium.brain.engine.devices import why_too_big
from modelium.brain.placement.candidates import choose
from modelium.brain.placement.memory import Estimate, estimate
from modelium.brain.placement.rooms import Room, rooms_of
from modelium.brain.plan_words import needs
from modelium.brain.runtimes.choice import RuntimeChoice
from modelium.cli import replies
from modelium.cli.abilities import likely_capabilities
from modelium.cli.engine import language_rows
from modelium.cli.machine import fleet_of, with_cluster
from modelium.config import Settings
from modelium.errors import ModeliumError
from modelium.names import served_name
from modelium.signatures import signature
from modelium.sizes import human_bytes
from modelium.values import (
    AdapterProfile,
    Candidate,
    Device,
    Fleet,
    Footprint,
    Incomplete,
    ModelOverride,
    ModelProfile,
    ModelView,
    Placement,
    PlanLine,
    RayState,
    State,
    TabularModel,
    Tensor,
    Unsupported,
    WeightFormat,
    override_of,
)
from modelium.watcher.survey import Surveyor


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
    ray_address: str = ""  # of what only Ray is to serve
    note: str = ""  # what its user should know about where it was found

    @property
    def servable(self) -> bool:
        """Would it be loaded on this machine?"""
        return self.placement is not None

    def facts(self) -> dict[str, str]:
        """The profile as rows of a table: only what is known."""
        profile = self.profile
        pooling = profile.pooling
        kind = "its code" if profile.weight_format is WeightFormat.NONE else f"{profile.dtype}, {profile.weight_format}"
        if 0 < profile.loaded_bytes < profile.weight_bytes:
            kind += f"; {human_bytes(profile.loaded_bytes)} of them are loaded"
        rows = {
            "path": str(profile.path),
            "note": self.note,
            "task": f"{profile.task} ({profile.task_source})" if profile.task_source else str(profile.task),
            "architecture": profile.architecture + (f" ({profile.model_type})" if profile.model_type else ""),
            "library": profile.library,
            "parameters": f"{profile.parameters:,}" if profile.parameters else "",
            "weights": f"{profile.weight_bytes:,} bytes ({human_bytes(profile.weight_bytes)}), {kind}",
            "quantization": profile.quantization or "",
            "longest input": f"{profile.max_length:,} tokens" if profile.max_length and not profile.language else "",
            "labels": _labels(profile.labels),
            "embedding": f"{profile.embedding_width} wide" if profile.embedding_width else "",
            "columns": _columns(profile.tabular) if profile.tabular else "",
            "pooling": f"{pooling.mode}{', normalised' if pooling.normalize else ''}" if pooling else "",
            "custom code": "needed: allow it by name with models: {NAME: {allow_custom_code: true}}"
            if profile.needs_custom_code
            else "",
            "revision": profile.fingerprint[:16],
        }
        if profile.language is not None:
            rows |= language_rows(replies.told(views.Language, profile.language))
        return {name: value for name, value in rows.items() if value}

    def tensors(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Inputs and outputs."""
        described = signature(self.profile, by_vllm=self.choice.engine)
        return described.inputs, described.outputs

    def as_json(self) -> str:
        """For programs."""
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
            "engine": views.written(views.Engine, placement.engine) if placement and placement.engine else None,
            "plan": [views.written(views.PlanLine, line) for line in self.plan],
            "ray_address": self.ray_address or None,
            "replicas": views.written(views.Replicas, placement.replicas) if placement and placement.replicas else None,
        }
        described = views.written(views.FullProfile, views.Described(profile=profile, by_vllm=self.choice.engine))
        found = {"name": profile.name, "path": str(profile.path), "note": self.note or None}
        return json.dumps({**found, **described, **served}, indent=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """An entry that was written: where, from what, and the files in it."""

    entry: Path
    inspection: Inspection

    def files(self) -> list[str]:
        """Of the entry, relative to it, sorted."""
        return sorted(str(path.relative_to(self.entry)) for path in self.entry.rglob("*") if path.is_file())

    def as_json(self) -> str:
        """For programs."""
        return json.dumps({"entry": str(self.entry), "name": self.inspection.profile.name, "files": self.files()}, indent=2)


def inspect(path: Path, settings: Settings, *, gpus: Sequence[int] = ()) -> Inspection:
    """Analyze ``path`` and decide how it would be served on this machine when nothing else is loaded.

    ``gpus``: the memory of GPUs that this machine is to be thought to have, instead of its own.
    """
    candidate = candidate_at(path)
    profile, override = _analyzed(candidate, settings)
    return replace(_decide(profile, settings, override, gpus), note=candidate.note)


def analyze(path: Path, settings: Settings) -> ModelProfile:
    """What ``path`` is. Raises ``NotAModel``."""
    return _analyzed(candidate_at(path), settings)[0]


def _analyzed(candidate: Candidate, settings: Settings) -> tuple[ModelProfile, ModelOverride]:
    path, override = candidate.path, override_of(settings.overrides(), candidate.name)
    match analyze_apart(candidate, override):
        case ModelProfile() as profile:
            return profile, override
        case AdapterProfile(adapter=adapter):
            base = f" for {adapter.base}" if adapter.base else ""
            raise NotAModel(
                f"{path} is a LoRA adapter{base}, of rank {adapter.rank}: drop it beside its base model, which serves it"
            )
        case Incomplete(why=why):
            raise NotAModel(f"{path} is not complete: {why}")
        case Unsupported(why=why, hint=hint):
            raise NotAModel(f"{path} cannot be served: {why}" + (f" ({hint})" if hint else ""))


def _decide(profile: ModelProfile, settings: Settings, override: ModelOverride, gpus: Sequence[int]) -> Inspection:
    """As a plan does (``brain.plan``, rules 1 and 2); a Ray cluster is only asked where the model may go there."""
    fleet = fleet_of(settings, gpus)
    choice, places = _choose(profile, settings, override, fleet, for_cuda=bool(gpus))
    if choice.by_ray or (choice.runtime is not None and not places):
        fleet = with_cluster(fleet, settings)
        choice, places = _choose(profile, settings, override, fleet, for_cuda=bool(gpus))
    if choice.runtime is None:
        return Inspection(profile=profile, choice=choice, placement=None, placement_reason="no runtime serves it")
    if choice.by_ray and fleet.ray.state is RayState.DOWN:
        return Inspection(profile=profile, choice=choice, placement=None, placement_reason=f"Ray is down: {fleet.ray.detail}")
    if not places:
        return _too_big(profile, choice, fleet, override, settings)
    return _placed(profile, choice, rooms_of(fleet.devices, ())[places[0].device_id], places[0], settings)


def _choose(
    profile: ModelProfile, settings: Settings, override: ModelOverride, fleet: Fleet, *, for_cuda: bool
) -> tuple[RuntimeChoice, list[Placement]]:
    rooms, capabilities = rooms_of(fleet.devices, ()), likely_capabilities(settings, fleet, for_cuda=for_cuda)
    return choose(_view(profile), profile, rooms.values(), override, capabilities, settings.policies(), fleet.ray)


def _view(profile: ModelProfile) -> ModelView:
    return ModelView(name=profile.name, state=State.UNLOADED, profile=profile, footprint=Footprint(estimated_bytes=0))


def _placed(profile: ModelProfile, choice: RuntimeChoice, room: Room, placement: Placement, settings: Settings) -> Inspection:
    parts, engine = None, placement.engine
    if engine is None:
        parts = estimate(
            profile,
            placement.runtime,
            device=placement.device_kind,
            max_batch_size=max(placement.max_batch_size, 1),
            instances=placement.instance_count,
            born=placement.born,
        )
    free, budget = human_bytes(room.free), human_bytes(room.device.budget_bytes)
    return Inspection(
        profile=profile,
        choice=choice,
        placement=placement,
        placement_reason=f"{free} free of {budget} for models on {room.device.name}",
        estimate=parts,
        plan=engine.lines if engine is not None else (),
        ray_address=settings.ray.address if placement.by_ray else "",
    )


def _too_big(
    profile: ModelProfile, choice: RuntimeChoice, fleet: Fleet, override: ModelOverride, settings: Settings
) -> Inspection:
    reason, lines = "", tuple[PlanLine, ...]()
    if choice.by_ray and not fleet.ray.here:
        there = _budgets(device for device in fleet.devices if device.cluster)
        reason = f"too big for any node of the Ray cluster: {there or 'it has none'}"
    elif choice.engine and profile.language is not None:
        found = why_too_big(profile, fleet.devices, override, settings.policies(), born=choice.born)
        if found is not None:
            reason, lines = found.reason, found.lines
    if not reason:
        rooms, policies = rooms_of(fleet.devices, ()), settings.policies()
        needed = needs(_view(profile), profile, choice, rooms, override, policies, fleet.ray)
        reason = f"it fits on no device: it needs {needed or 'one that its configuration names and that is not there'}"
        reason += "" if needed else f"; there are: {_budgets(fleet.devices)}"
    return Inspection(profile=profile, choice=choice, placement=None, placement_reason=reason, plan=lines)


def render(path: Path, out: Path, settings: Settings, *, gpus: Sequence[int] = ()) -> Rendering:
    """Write the entry of ``path`` into ``out/NAME``."""
    inspection = inspect(path, settings, gpus=gpus)
    if inspection.placement is None:
        raise NotAModel(f"{path} cannot be served: {inspection.choice.reason}; {inspection.placement_reason}")
    profile = inspection.profile
    override = override_of(settings.overrides(), profile.name)
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
    if path.is_dir() and (cached := Surveyor(path.parent).cached(str(path))) is not None:
        return cached
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


def _budgets(devices: Iterable[Device]) -> str:
    return ", ".join(f"{device.id} has {human_bytes(device.budget_bytes)} for models" for device in devices)


def _columns(tabular: TabularModel) -> str:
    """Their names where the file has them, else how many there are."""
    shown = ", ".join(tabular.columns[:6]) + (" …" if len(tabular.columns) > 6 else "")
    count = len(tabular.columns) or tabular.features or 0
    return f"{count} ({shown})" if shown else f"{count}" if count else ""


def _labels(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:6]) + (" …" if len(labels) > 6 else "")
    return f"{len(labels)} ({shown})" if labels else ""

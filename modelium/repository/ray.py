"""What an entry of the ray runtime holds besides its template: a profile and its placement enter, parameters and code leave.

An entry is whole: it carries the code of the python runtime's tasks and of the vLLM backend, which its replicas run, because
a Ray worker may be on another machine and in a Triton container that has neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modelium.brain.runtimes.ray import RayWay, way_of
from modelium.config import RaySettings
from modelium.errors import EntryError
from modelium.repository.engine import MODEL_JSON, engine_files
from modelium.resources import templates_directory, triton_directory
from modelium.signatures import signature
from modelium.values import Capabilities, DeviceKind, ModelProfile, Placement

# The way depends on the profile alone, once it is known whether vLLM serves it.
_EVERYTHING = Capabilities(backends=frozenset({"vllm", "python", "ray"}), ray_enabled=True)


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


def entry_way(profile: ModelProfile, placement: Placement) -> RayWay:
    """What the replicas of this entry run."""
    if placement.engine is not None:
        return RayWay.ENGINE
    found = way_of(profile, _EVERYTHING, by_hand=True)
    if not isinstance(found, RayWay):
        raise EntryError(f"{profile.name}: Ray cannot serve it: {found}")
    return RayWay.TASK if found is RayWay.ENGINE else found


def ray_parameters(
    profile: ModelProfile,
    placement: Placement,
    *,
    model_path: str,
    place: RayPlace,
    task_parameters: dict[str, str],
    seen_by_triton: Callable[[Path], str],
) -> dict[str, str]:
    """``parameters`` of config.pbtxt; ``task_parameters`` are those of the python runtime."""
    replicas = placement.replicas
    if replicas is None:
        raise EntryError(f"{profile.name}: nothing was planned for its replicas; Ray cannot serve it")
    way = entry_way(profile, placement)
    parameters = {
        "way": way.value,
        "ray_address": place.address,
        "ray_dashboard": place.dashboard,
        "owner": place.owner,
        "replicas": json.dumps(
            {
                "min": replicas.minimum,
                "max": replicas.maximum,
                "target_ongoing_requests": replicas.target_ongoing_requests,
                "bundles": [
                    {"cpus": bundle.cpus, "gpus": bundle.gpus, "memory_bytes": bundle.memory_bytes}
                    for bundle in replicas.bundles
                ],
                "visible_devices": replicas.visible_devices,
                "device": "cuda" if placement.device_kind is DeviceKind.CUDA else "cpu",
            }
        ),
        **task_parameters,
        "model_path": model_path,
        "name": profile.name,
    }
    match way:
        case RayWay.APP:
            assert profile.app is not None
            parameters |= {"import_path": profile.app.import_path, "args": json.dumps(dict(profile.app.args))}
        case RayWay.ENGINE:
            assert placement.engine is not None
            files = engine_files(profile, placement.engine, seen_by_triton=seen_by_triton)
            parameters["engine"] = json.dumps(json.loads(files[MODEL_JSON]))
        case RayWay.TASK:
            tensors = signature(profile, placement.runtime)
            required = [one.name for one in tensors.inputs if not one.optional or one.name == "IMAGE"]
            parameters["required"] = json.dumps(required)
        case RayWay.SKLEARN | RayWay.XGBOOST | RayWay.LIGHTGBM:
            assert profile.tabular is not None
            parameters["tabular"] = json.dumps({"file": profile.tabular.file, "columns": list(profile.tabular.columns)})
        case RayWay.CROSS_ENCODER | RayWay.DIFFUSERS:
            pass
    return parameters


def borrowed_code() -> Iterator[tuple[str, Path]]:
    """Where below ``1/`` each file goes, and where it is from."""
    tasks = templates_directory() / "python" / "1"
    backend = triton_directory() / "backends" / "vllm" / "vllm_backend"
    for package, source in (("modelium_tasks", tasks), ("vllm_backend", backend)):
        for path in sorted(source.glob("*.py")):
            if path.name != "model.py":
                yield f"{package}/{path.name}", path

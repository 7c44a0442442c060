"""Values as JSON: what enters are the frozen values of ``modelium.values``, what leaves are plain dictionaries.

Names and units are part of the interface (``modelium list --json`` prints the same): sizes in bytes, durations in seconds.
Instants of the monotonic clock mean nothing outside, so they leave as ``age_s``.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from modelium.gateway.status.language_views import engine_view, language_view
from modelium.names import printable
from modelium.pace import in_pieces
from modelium.signatures import signature
from modelium.values import (
    Decision,
    Device,
    ModelProfile,
    ModelStatus,
    Placement,
    Plan,
    Replicas,
    ServerStatus,
    Snapshot,
    Tensor,
)

log = logging.getLogger(__name__)

Json = dict[str, object]

_LONGEST_REASON = 2_000


async def snapshot_view(snapshot: Snapshot) -> Json:
    """``GET /models``: a summary of each model, the devices, Triton and Ray. Others have their turn between two models."""
    return {
        "models": [_row(status) async for status in in_pieces(snapshot.models)],
        "devices": [device_view(device) for device in snapshot.fleet.devices],
        "triton": server_view(snapshot.server),
        "ray": ray_view(snapshot),
        "scanned": snapshot.scanned,
        "directories": [{"path": _shown(one.path), "suspended": one.suspended} for one in snapshot.directories],
        "unclaimed": [{"path": _shown(one.path), "advice": one.advice} for one in snapshot.unclaimed],
    }


def _shown(path: Path) -> str:
    """A name on a disk need not be text."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def ray_view(snapshot: Snapshot) -> Json:
    """Ray's state (off, asleep, up, down), and what its nodes have left."""
    ray = snapshot.fleet.ray
    return {
        "state": ray.state.value,
        "detail": ray.detail,
        "version": ray.version,
        "here": ray.here,
        "restarts": snapshot.ray_restarts,
        "nodes": [
            {
                "address": node.address,
                "cpus": node.total.cpus,
                "free_cpus": node.free.cpus,
                "gpus": node.total.gpus,
                "free_gpus": node.free.gpus,
                "memory_bytes": node.total.memory_bytes,
                "used_bytes": node.used_bytes,
            }
            for node in ray.nodes
        ],
    }


def _row(status: ModelStatus) -> Json:
    """``summary_view``; of a model that cannot be shown its name, its state and why: the others are shown all the same."""
    try:
        return summary_view(status)
    except Exception as error:
        log.exception("%s cannot be shown, a defect of Modelium", status.name)
        why = printable(f"it cannot be shown ({type(error).__name__}: {error}); {status.reason}")
        bare = ModelStatus(name=status.name, label=status.label, path=status.path, state=status.state, reason=why)
        return summary_view(bare)


def summary_view(status: ModelStatus) -> Json:
    """One line of ``modelium list``."""
    profile, placement, footprint = status.profile, status.placement, status.footprint
    return {
        "name": status.name,
        "label": printable(status.label),
        "state": status.state.value,
        "reason": printable(status.reason, longest=_LONGEST_REASON),
        "profile": short_profile_view(profile) if profile is not None else None,
        "runtime": placement.runtime.value if placement is not None else None,
        "device": placement.device_id if placement is not None else None,
        "devices": list(placement.devices) if placement is not None else [],
        "estimated_bytes": footprint.estimated_bytes if footprint is not None else None,
        "measured_bytes": footprint.measured_bytes if footprint is not None else None,
        "replicas": status.replicas,
        "qps": status.qps,
        "idle_s": status.idle_s,
        "leases": status.leases,
        "waiting": status.waiting,
        "requests": status.requests,
        "pinned": status.pinned,
        "adapters": [adapter.name for adapter in profile.language.adapters] if profile is not None and profile.language else [],
        "base": status.base or None,  # of a LoRA adapter that is attached
    }


def status_view(status: ModelStatus, now: float) -> Json:
    """``GET /models/{name}``: everything that is known about one model."""
    by_vllm = status.placement is not None and status.placement.by_vllm
    return {
        **summary_view(status),
        "path": printable(str(status.path), longest=None),
        "missing": [
            {
                "file": part.file,
                "present_bytes": part.present_bytes,
                "expected_bytes": part.expected_bytes,
                "detail": part.detail,
            }
            for part in status.missing
        ],
        "failures": status.failures,
        "retry_in_s": status.retry_in_s,
        "quarantined": status.quarantined,
        "revision_error": printable(status.revision_error, longest=_LONGEST_REASON),
        "load_seconds": status.load_seconds,
        "loads": status.loads,
        "unloads": status.unloads,
        "profile": profile_view(status.profile, by_vllm=by_vllm) if status.profile is not None else None,
        "placement": placement_view(status.placement) if status.placement is not None else None,
        "decisions": [decision_view(decision, now) for decision in status.decisions],
    }


def short_profile_view(profile: ModelProfile) -> Json:
    """The part of a profile that a list of models has room for."""
    return {
        "task": profile.task.value,
        "library": profile.library,
        "architecture": profile.architecture,
        "parameters": profile.parameters,
        "weight_bytes": profile.weight_bytes,
        "dtype": profile.dtype,
    }


def profile_view(profile: ModelProfile, *, by_vllm: bool = False) -> Json:
    """``by_vllm``: its ``inputs`` and ``outputs`` are vLLM's."""
    tensors = signature(profile, by_vllm=by_vllm)
    return {
        **short_profile_view(profile),
        "task_source": profile.task_source,
        "model_type": profile.model_type,
        "weight_format": profile.weight_format.value,
        "quantization": profile.quantization,
        "max_length": profile.max_length,
        "labels": list(profile.labels),
        "embedding_width": profile.embedding_width,
        "pooling": {"mode": profile.pooling.mode.value, "normalize": profile.pooling.normalize} if profile.pooling else None,
        "is_llm": profile.is_llm,
        "needs_custom_code": profile.needs_custom_code,
        "pickled": profile.pickled,
        "opset": profile.onnx.opset if profile.onnx is not None else None,
        "fingerprint": profile.fingerprint,
        "language": language_view(profile.language) if profile.language is not None else None,
        "columns": list(profile.tabular.columns) if profile.tabular is not None else [],
        "import_path": profile.app.import_path if profile.app is not None else None,
        "batches": tensors.batches,
        "decoupled": tensors.decoupled,
        "inputs": [tensor_view(tensor) for tensor in tensors.inputs],
        "outputs": [tensor_view(tensor) for tensor in tensors.outputs],
    }


def tensor_view(tensor: Tensor) -> Json:
    return {"name": tensor.name, "datatype": tensor.datatype, "dims": list(tensor.dims), "optional": tensor.optional}


def placement_view(placement: Placement) -> Json:
    return {
        "runtime": placement.runtime.value,
        "device": placement.device_id,
        "devices": list(placement.devices),
        "max_batch_size": placement.max_batch_size,
        "instance_count": placement.instance_count,
        "estimated_bytes": placement.footprint.estimated_bytes,
        "measured_bytes": placement.footprint.measured_bytes,
        "reason": placement.reason,
        "engine": engine_view(placement.engine) if placement.engine is not None else None,
        "replicas": replicas_view(placement.replicas) if placement.replicas is not None else None,
    }


def replicas_view(replicas: Replicas) -> Json:
    """Of a model that Ray serves: how many copies, and what each asks of its node."""
    bundle = replicas.bundles[0]
    return {
        "min": replicas.minimum,
        "max": replicas.maximum,
        "target_ongoing_requests": replicas.target_ongoing_requests,
        "cpus": bundle.cpus,
        "gpus": bundle.gpus,
        "memory_bytes": bundle.memory_bytes,
        "ranks": len(replicas.bundles),
    }


def decision_view(decision: Decision, now: float) -> Json:
    return {
        "model": decision.model,
        "verb": decision.verb.value,
        "rule": decision.rule,
        "reason": decision.reason,
        "device": decision.placement.device_id if decision.placement is not None else None,
        "age_s": max(0.0, now - decision.at),
    }


def plan_view(plan: Plan, now: float) -> Json:
    """``GET /plan``: what the next pass would do, and why nothing else."""
    return {
        "actions": [decision_view(action, now) for action in plan.actions],
        "decisions": [decision_view(decision, now) for decision in plan.decisions],
        "pressure": dict(plan.pressure),
    }


def device_view(device: Device) -> Json:
    return {
        "id": device.id,
        "kind": device.kind.value,
        "name": device.name,
        "total_bytes": device.total_bytes,
        "used_bytes": device.used_bytes,
        "budget_bytes": device.budget_bytes,
    }


def server_view(server: ServerStatus) -> Json:
    return {"up": server.up, "version": server.version, "restarts": server.restarts, "detail": server.detail}

"""Ray clusters for the brain's tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from modelium.brain.placement.cluster import cluster_devices
from modelium.values import (
    Bundle,
    Capabilities,
    Fleet,
    ModelProfile,
    Observed,
    Ray,
    RayNode,
    RayState,
    ServeApp,
    Task,
    WeightFormat,
)
from tests.unit.brain.worlds import GIB, host, profile, world

PACKAGES = frozenset({"ray", "scikit-learn", "skops", "joblib", "xgboost-cpu", "lightgbm", "sentence-transformers"})
WITH_RAY = Capabilities(
    backends=frozenset({"python", "onnxruntime", "vllm", "ray"}), ray_enabled=True, ray_packages=PACKAGES, gpu=True
)
HERE = Ray(state=RayState.ASLEEP, version="2.60.0")

IRIS = replace(
    profile("iris", task=Task.TABULAR_CLASSIFICATION),
    library="scikit-learn",
    architecture="RandomForestClassifier",
    weight_format=WeightFormat.SKOPS,
    weight_bytes=10**6,
)
APP = ModelProfile(
    name="greeter",
    path=Path("/incoming/greeter"),
    task=Task.SERVE_APP,
    library="ray-serve",
    architecture="serve_app:app",
    weight_format=WeightFormat.NONE,
    weight_bytes=1000,
    app=ServeApp(import_path="serve_app:app"),
    needs_custom_code=True,
    fingerprint="f1",
)


def node(
    name: str,
    *,
    gpus: int = 0,
    gpu_gib: int = 80,
    cpus: float = 16,
    gib: int = 64,
    free: Bundle | None = None,
    held: Mapping[str, tuple[Bundle, ...]] | None = None,
) -> RayNode:
    """``held`` by our own models, which leaves the rest of it free, unless that is said."""
    total, of_ours = Bundle(cpus=cpus, gpus=gpus, memory_bytes=gib * GIB), held or {}
    bundles = [bundle for each in of_ours.values() for bundle in each]
    rest = Bundle(
        cpus=total.cpus - sum(bundle.cpus for bundle in bundles),
        gpus=total.gpus - sum(bundle.gpus for bundle in bundles),
        memory_bytes=total.memory_bytes - sum(bundle.memory_bytes for bundle in bundles),
    )
    return RayNode(id=name, address=name, total=total, free=free or rest, held=of_ours, gpu_bytes=gpu_gib * GIB if gpus else 0)


def cluster(*nodes: RayNode) -> Ray:
    return Ray(state=RayState.UP, version="2.60.0", here=False, nodes=nodes)


def world_with(ray: Ray, *models: object, **changes: object) -> Observed:
    """This machine with 8 GiB for models, and a cluster."""
    fleet = Fleet(devices=(host(), *cluster_devices(ray)), ray=ray)
    return world(*models, **({"fleet": fleet, "capabilities": WITH_RAY} | changes))  # type: ignore[arg-type]

"""What an entry of the ray runtime holds besides its template: a profile and its placement enter, parameters and code leave.

An entry is whole: it carries the code of the python runtime's tasks and of the vLLM backend, which its replicas run, because
a Ray worker may be on another machine and in a Triton container that has neither.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from modelium.errors import EntryError
from modelium.repository import python
from modelium.repository.staging import write_file
from modelium.repository.vllm import MODEL_JSON, engine_files, plan_of
from modelium.repository.writing import Order, Writer
from modelium.resources import templates_directory, triton_directory
from modelium.signatures import signature
from modelium.values import DeviceKind, Placement, RayWay


def _parameters(order: Order) -> dict[str, str]:
    """``parameters`` of config.pbtxt; those of the python runtime among them."""
    profile, placement, place = order.profile, order.placement, order.ray
    replicas, way = placement.replicas, placement.way
    if replicas is None or way is None:
        raise EntryError(f"{profile.name}: nothing was planned for its replicas; Ray cannot serve it")
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
        **python.parameters(order),
        "name": profile.name,
    }
    match way:
        case RayWay.APP:
            assert profile.app is not None
            parameters |= {"import_path": profile.app.import_path, "args": json.dumps(dict(profile.app.args))}
        case RayWay.ENGINE:
            files = engine_files(profile, plan_of(profile, placement), seen_by_triton=order.seen_by_triton)
            parameters["engine"] = json.dumps(json.loads(files[MODEL_JSON]))
        case RayWay.TASK:
            tensors = signature(profile)
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


def _only_forwards(placement: Placement) -> pb.ModelInstanceGroup:
    """One process, wherever the replicas are."""
    return pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)


def _fill(order: Order, version: Path) -> None:
    for name, code in borrowed_code():
        (version / name).parent.mkdir(exist_ok=True)
        write_file(version / name, code.read_bytes())


WRITER = Writer(parameters=_parameters, instances=_only_forwards, fill=_fill)

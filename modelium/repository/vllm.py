"""Entries of vLLM: a profile and its planned engine enter, the files of ``1/`` leave, and which GPUs the engine is pinned to.

``model.json`` becomes the keyword arguments of vLLM's ``AsyncEngineArgs``, so its values are real JSON types: a boolean that
is written as a string would be true whatever it says. ``multi_lora.json`` says where the LoRA adapters are; Triton's backend
wants it exactly when LoRA is switched on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from modelium.errors import EntryError
from modelium.repository.staging import write_file
from modelium.repository.writing import Order, Writer
from modelium.values import DeviceKind, EnginePlan, JsonValue, ModelProfile, Placement

MODEL_JSON = "model.json"
MULTI_LORA_JSON = "multi_lora.json"


def plan_of(profile: ModelProfile, placement: Placement) -> EnginePlan:
    """The engine's plan; raises ``EntryError`` when the placement has none."""
    if placement.engine is None:
        raise EntryError(f"{profile.name}: nothing was planned for its engine; vllm cannot serve it")
    return placement.engine


def engine_files(profile: ModelProfile, plan: EnginePlan, *, seen_by_triton: Callable[[Path], str]) -> dict[str, bytes]:
    """The content of ``1/``, by file name; paths are written as Triton sees them. A GGUF model's path is its (first) file."""
    model: dict[str, JsonValue] = {"model": "", **plan.engine_args}
    model["model"] = seen_by_triton(profile.path)
    files = {MODEL_JSON: _json(profile, model)}
    if plan.adapters or plan.engine_args.get("enable_lora"):
        files[MULTI_LORA_JSON] = _json(profile, {adapter.name: seen_by_triton(adapter.path) for adapter in plan.adapters})
    return files


def _json(profile: ModelProfile, content: Mapping[str, JsonValue]) -> bytes:
    try:
        return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError as error:
        raise EntryError(f"{profile.name}: vLLM takes UTF-8 only: rename {str(profile.path)!a} ({error})") from error
    except ValueError as error:
        raise EntryError(f"{profile.name}: an engine argument is no JSON: {error}") from error


def _engine_group(placement: Placement) -> pb.ModelInstanceGroup:
    """One engine. The vLLM backend takes KIND_GPU for exactly one GPU, and refuses it for an engine that spans several."""
    if placement.device_kind is DeviceKind.CUDA and not _pinned_gpus(placement):
        return pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.KIND_GPU, gpus=[placement.device_index])
    return pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.KIND_MODEL)


def _pinned_gpus(placement: Placement) -> str:
    """``2,3`` for an engine on several GPUs, else empty."""
    return ",".join(map(str, placement.gpus)) if len(placement.gpus) > 1 else ""


def _parameters(order: Order) -> dict[str, str]:
    gpus = _pinned_gpus(order.placement)
    pinned = {"GPU_DEVICE_IDS": gpus} if gpus else {}  # Triton's own backend reads it too (vllm_backend PR 125)
    return {"REPORT_CUSTOM_METRICS": "true"} | pinned


def _fill(order: Order, version: Path) -> None:
    plan = plan_of(order.profile, order.placement)
    for name, content in engine_files(order.profile, plan, seen_by_triton=order.seen_by_triton).items():
        write_file(version / name, content)


WRITER = Writer(parameters=_parameters, instances=_engine_group, fill=_fill)

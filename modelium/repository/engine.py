"""What vLLM reads in an entry: a profile and its planned engine enter, the files of ``1/`` leave.

``model.json`` becomes the keyword arguments of vLLM's ``AsyncEngineArgs``, so its values are real JSON types: a boolean that
is written as a string would be true whatever it says. ``multi_lora.json`` says where the LoRA adapters are; Triton's backend
wants it exactly when LoRA is switched on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from modelium.errors import EntryError
from modelium.values import EnginePlan, JsonValue, ModelProfile, Placement

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

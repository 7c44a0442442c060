"""The files of an entry: what enters is its version's directory, what leaves are the engine's arguments and the adapters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_engine_args(directory: Path) -> dict[str, Any]:
    """``model.json``."""
    path = directory / "model.json"
    if not path.is_file():
        raise FileNotFoundError(f"'{path.name}' containing vllm engine args must be provided in '{directory}'")
    return _read_object(path)


def read_adapters(directory: Path, engine_args: Mapping[str, Any]) -> dict[str, str] | None:
    """``multi_lora.json``: name → folder; None when the engine has no LoRA."""
    if str(engine_args.get("enable_lora", "")).lower() != "true":
        return None
    path = directory / "multi_lora.json"
    if not path.is_file():
        raise FileNotFoundError(f"Triton backend cannot find {path}.")
    return _read_object(path)


def _read_object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"'{path}' has to be a JSON object")
    return value

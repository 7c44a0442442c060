"""``modelium.yaml``: what enters is YAML and ``MODELIUM__…`` environment variables, what leaves is a checked ``Settings``.

An unknown key is an error that names its place and the nearest known key. ``modelium.example.yaml`` documents every key
and a test holds the two together.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from modelium.config.fields import lacks_unit, parse_bytes
from modelium.config.finding import Found, find_config
from modelium.config.sections import GatewaySettings, ModelSettings, PolicySettings, RaySettings, ToolParser, TritonSettings
from modelium.config.settings import Settings
from modelium.errors import ConfigError

__all__ = [
    "Found",
    "GatewaySettings",
    "ModelSettings",
    "PolicySettings",
    "RaySettings",
    "Settings",
    "ToolParser",
    "TritonSettings",
    "find_config",
    "lacks_unit",
    "load_settings",
    "parse_bytes",
]


def load_settings(path: Path | None = None) -> Settings:
    """Read ``path`` (default: what ``find_config`` finds, else the defaults) and the environment.

    Raises ``ConfigError`` with the place of each fault and the nearest known key.
    """
    if path is None:
        path = find_config(None, variables=os.environ, directory=Path.cwd()).path
    data: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        if loaded is not None and not isinstance(loaded, dict):
            raise ConfigError(f"{path}: expected a mapping at the top, found {type(loaded).__name__}")
        data = loaded or {}
    _refuse_unknown_environment()
    try:
        return Settings(**data)
    except ValidationError as error:
        where = str(path) if path is not None else "environment"
        raise ConfigError("\n".join(f"{where}: {_explain(fault)}" for fault in error.errors())) from error


def _refuse_unknown_environment() -> None:
    known = {f"MODELIUM__{name.upper()}" for name in Settings.model_fields}
    for variable in os.environ:
        if variable.startswith("MODELIUM__"):
            head = "__".join(variable.split("__")[:2])
            if head not in known:
                near = difflib.get_close_matches(head, known, n=1)
                raise ConfigError(
                    f"environment variable {variable}: no such section" + (f"; did you mean {near[0]}?" if near else "")
                )


def _explain(fault: Any) -> str:
    location = [str(part) for part in fault["loc"]]
    place = ".".join(location)
    if fault["type"] == "extra_forbidden":
        known = _keys_at(location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(sorted(known))}"
        return f"{place}: unknown key; {hint}"
    if fault["type"] == "engine_arg":
        return f"{place}: {fault['msg']}"
    return f"{place}: {fault['msg'].removeprefix('Value error, ')}" + (
        f" (found {fault['input']!r})" if not isinstance(fault["input"], dict) else ""
    )


def _keys_at(location: list[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in location:
        if model is Settings and part == "models":
            model = ModelSettings
            continue
        field = model.model_fields.get(part)
        if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return list(model.model_fields)

"""How long the end of an engine may take: a model's configuration enters, seconds leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OVERDUE_S = 5.0  # that an unload may be late before its process ends, wherever it hangs
_UNLOAD_TIMEOUT_S = 15.0


def parameter(config: Mapping[str, Any], name: str) -> str:
    """Of config.pbtxt; empty where it has none of that name."""
    return str(config.get("parameters", {}).get(name, {}).get("string_value", ""))


def unload_timeout_s(config: Mapping[str, Any]) -> float:
    """With what is under way and the engine's own shutdown."""
    return float(parameter(config, "modelium_unload_timeout_s") or _UNLOAD_TIMEOUT_S)

"""Libraries that the python runtime does not have: an adapter's name and the entry's parameters enter, a loaded model leaves.

An adapter answers rows like a task of the python runtime (``modelium_tasks.contract.TaskModel``). Each is imported when a
model needs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

_ADAPTERS = {
    "sklearn": "sklearn_table",
    "xgboost": "xgboost_table",
    "lightgbm": "lightgbm_table",
    "cross_encoder": "cross_encoder",
    "diffusers": "text_to_image",
}

TABLES = frozenset({"sklearn", "xgboost", "lightgbm"})  # without torch


def load_adapter(way: str, given: Mapping[str, str], device: str) -> Any:
    """Load the model; seconds."""
    module = importlib.import_module(f".{_ADAPTERS[way]}", __package__)
    return module.load(given, device)

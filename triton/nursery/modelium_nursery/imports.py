"""What a nursery imports before it forks: files and names of modules enter, modules in ``sys.modules`` leave.

The names that children had to import themselves are kept in ``KIND.modules`` for the next run.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path

from . import orders

MOST_MODULES = 5_000
_ARCHITECTURES = "transformers.models."
_SERVING = ("configuration_", "feature_extraction_", "image_processing_", "modeling_", "processing_", "tokenization_")


def remembered(directory: Path, kind: str) -> list[str]:
    """Modules that models of this kind needed in earlier runs."""
    try:
        names = json.loads((directory / f"{kind}.modules").read_text())
    except (OSError, ValueError):
        return []
    return orders.importable(names)[:MOST_MODULES] if isinstance(names, list) else []


def remember(directory: Path, kind: str, modules: list[str]) -> None:
    """Keep them for the next run."""
    names = dict.fromkeys([*remembered(directory, kind), *modules])
    fresh = directory / f".{kind}.modules"
    fresh.write_text(json.dumps(list(names)))
    fresh.replace(directory / f"{kind}.modules")


def run_file(path: str) -> None:
    """Run a file of Python as a module; whatever it defines stays."""
    spec = importlib.util.spec_from_file_location("modelium_warm", path)
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def import_all(modules: Iterable[str]) -> None:
    """Those that can be."""
    for module in modules:
        imported(module)


def imported(module: str) -> bool:
    """Import a module; an architecture's package of transformers with all that serves. Whether it could be."""
    try:
        found = importlib.import_module(module)
    except BaseException:  # foreign code: its trouble may be of any kind
        return False
    if module.startswith(_ARCHITECTURES) and hasattr(found, "__path__"):
        import_all(f"{module}.{one.name}" for one in pkgutil.iter_modules(found.__path__) if one.name.startswith(_SERVING))
    return True

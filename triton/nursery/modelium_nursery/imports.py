"""What a nursery imports before it forks: files and names of modules enter, modules in ``sys.modules`` leave.

Three files in its directory say what the next one imports. ``KIND.expected`` is Modelium's: what the models that have come
need. ``KIND.modules`` is the nursery's: what children had to import themselves. So is ``KIND.refused``: what must not be
imported, because no children could be forked then.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pkgutil
import site
import sys
from pathlib import Path
from typing import Any

from . import orders

MOST_MODULES = 5_000
_ARCHITECTURES = "transformers.models."
_SERVING = ("configuration_", "feature_extraction_", "image_processing_", "modeling_", "processing_", "tokenization_")


def remembered(directory: Path, kind: str) -> list[str]:
    """Modules that models of this kind need, or needed in earlier runs; without those that are refused."""
    known = dict.fromkeys(name for what in ("expected", "modules") for name in _names(_read(directory / f"{kind}.{what}")))
    unwanted = refused(directory, kind)
    return [name for name in orders.importable(list(known)) if name not in unwanted][:MOST_MODULES]


def remember(directory: Path, kind: str, modules: list[str]) -> None:
    """Keep them for the next run."""
    path = directory / f"{kind}.modules"
    _write(path, list(dict.fromkeys([*_names(_read(path)), *modules])))


def refused(directory: Path, kind: str) -> frozenset[str]:
    """Modules that must not be imported, as long as the same libraries are installed."""
    match _read(directory / f"{kind}.refused"):
        case {"libraries": libraries, "modules": list(names)} if libraries == _libraries():
            return frozenset(_names(names))
    return frozenset()


def refuse(directory: Path, kind: str, module: str) -> None:
    """Never import that one again."""
    names = sorted({*refused(directory, kind), module})
    _write(directory / f"{kind}.refused", {"libraries": _libraries(), "modules": names})


def run_file(path: str) -> None:
    """Run a file of Python as a module; whatever it defines stays."""
    spec = importlib.util.spec_from_file_location("modelium_warm", path)
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def imported(module: str) -> bool:
    """Import a module of an installed library; an architecture's package of transformers with all that serves. Whether it could
    be.

    A child may name what it likes. What lies beside a model's own code, or anywhere else, is not imported here.
    """
    try:
        if not _is_installed(module.partition(".")[0]):
            return False
        found = importlib.import_module(module)
    except BaseException:  # foreign code: its trouble may be of any kind
        return False
    if module.startswith(_ARCHITECTURES) and hasattr(found, "__path__"):
        for one in pkgutil.iter_modules(found.__path__):
            if one.name.startswith(_SERVING):
                imported(f"{module}.{one.name}")
    return True


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return False
    return any(Path(spec.origin).is_relative_to(place) for place in site.getsitepackages())


def _libraries() -> list[Any]:
    """What tells the installed libraries from others: an installer adds and removes names here."""
    places = [place for place in site.getsitepackages() if Path(place).is_dir()]
    return [sys.version, *([place, Path(place).stat().st_mtime_ns] for place in places)]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def _names(given: Any) -> list[str]:
    return [name for name in given if isinstance(name, str)] if isinstance(given, list) else []


def _write(path: Path, value: Any) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(value))
    fresh.replace(path)

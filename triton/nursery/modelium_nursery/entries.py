"""The code of entries: a directory of it enters, the module with the model leaves.

Modelium writes the same files into each entry of a runtime. So a nursery imports those beside its ``warm.py`` once, and a child
uses what was imported where its own entry has the same files, byte for byte. Any other entry is imported by its child.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

PACKAGE = "modelium_entry"
UTILS = "triton_python_backend_utils"  # Triton's; a child has it filled before a model uses it
_NOT_A_MODELS = frozenset({"model", "warm"})
_MOST_BYTES = 1 << 20

_imported: dict[str, bytes] = {}  # files and what they said when they were imported


def begin(directory: str | Path) -> None:
    """Let the entry's code in ``directory`` be imported as a package, as in a stub."""
    sys.modules[PACKAGE] = package = ModuleType(PACKAGE)
    package.__path__ = [str(directory)]
    sys.modules.setdefault(UTILS, ModuleType(UTILS))


def import_all(directory: Path) -> None:
    """Import all code there, after ``begin``. What cannot be imported without a model is left to children."""
    for path in sorted(directory.glob("*.py")):
        if path.stem in _NOT_A_MODELS:
            continue
        try:
            importlib.import_module(f"{PACKAGE}.{path.stem}")
        except Exception:  # a library is missing, which only some models need
            continue
        _imported[path.name] = path.read_bytes()


def load(directory: str, module: str) -> ModuleType:
    """A module of the entry in ``directory``, which is a package, and on the path, as in a stub."""
    if not _imported or not all(_says(directory, name, said) for name, said in _imported.items()):
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
        begin(directory)
    sys.modules[PACKAGE].__path__ = [directory]
    sys.path.insert(0, directory)
    return importlib.import_module(f"{PACKAGE}.{module}")


def _says(directory: str, name: str, said: bytes) -> bool:
    try:
        file = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.read(file, _MOST_BYTES) == said
    except OSError:
        return False
    finally:
        os.close(file)

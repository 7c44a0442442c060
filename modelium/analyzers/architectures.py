"""What transformers itself knows of an architecture's purpose: its auto-mappings, read without importing transformers.

What enters: the source file of ``transformers.models.auto.modeling_auto``. What leaves: ``Mappings``, once a process.
Importing that module takes two seconds; its tables are literals, and parsing them takes 30 ms. Where a later version
builds a table differently, that module is imported after all.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_SUFFIX = "_MAPPING_NAMES"
# The tables without which no task can be told: if one of them is not a literal any more, parsing has failed.
_NEEDED = {
    "MODEL_MAPPING_NAMES",
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_CTC_MAPPING_NAMES",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mappings:
    """``tables``: mapping ("CAUSAL_LM", "" for the base models) → model type → class. ``families``: class → its mappings."""

    tables: Mapping[str, Mapping[str, str]]
    families: Mapping[str, frozenset[str]]
    model_types: frozenset[str]

    def knows(self, architecture: str, model_type: str) -> bool:
        """Whether transformers has this class, so that no code from the folder is needed."""
        return architecture in self.families and model_type in self.model_types


@functools.cache
def mappings() -> Mappings:
    """transformers' auto-mappings. Thread-safe in that a second thread at worst reads them too."""
    tables = dict(_parse_tables())
    if not tables.keys() >= {_short(name) for name in _NEEDED}:
        tables = dict(_import_tables())
    families: dict[str, set[str]] = {}
    for family, table in tables.items():
        for architectures in table.values():
            for architecture in architectures:
                families.setdefault(architecture, set()).add(family)
    return Mappings(
        tables={family: {kind: classes[0] for kind, classes in table.items()} for family, table in tables.items()},
        families={architecture: frozenset(names) for architecture, names in families.items()},
        model_types=frozenset(kind for table in tables.values() for kind in table),
    )


def _short(name: str) -> str:
    """``MODEL_FOR_CAUSAL_LM_MAPPING_NAMES`` → ``CAUSAL_LM``; the base models' table → ``""``."""
    return name.removesuffix(_SUFFIX).removeprefix("MODEL_FOR_").removeprefix("MODEL")


def _parse_tables() -> Iterator[tuple[str, dict[str, tuple[str, ...]]]]:
    spec = importlib.util.find_spec("transformers")  # finds, does not import
    if spec is None or spec.origin is None:
        return
    source = Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py"
    if not source.is_file():
        return
    for statement in ast.parse(source.read_text(encoding="utf-8")).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(args=[ast.List() as pairs])) if name.endswith(_SUFFIX):
                try:
                    yield _short(name), _table(ast.literal_eval(pairs))
                except ValueError:  # computed from other tables: none of those that are needed
                    continue


def _import_tables() -> Iterator[tuple[str, dict[str, tuple[str, ...]]]]:
    module = importlib.import_module("transformers.models.auto.modeling_auto")
    for name, value in vars(module).items():
        if name.endswith(_SUFFIX) and isinstance(value, dict):
            yield _short(name), _table(list(value.items()))


def _table(pairs: list[tuple[str, object]]) -> dict[str, tuple[str, ...]]:
    table = {}
    for model_type, classes in pairs:
        names = classes if isinstance(classes, tuple | list) else (classes,)
        table[model_type] = tuple(name for name in names if isinstance(name, str))
    return {model_type: names for model_type, names in table.items() if names}

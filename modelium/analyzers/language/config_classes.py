"""What transformers' configuration classes know that a ``config.json`` leaves out, read without importing transformers.

What enters: a model type. What leaves: ``ConfigClass``, once a process. A ``config.json`` says only what differs from its
class (the nested text configs of multimodal models leave out most of it), and each class has its own names for things:
``attribute_map`` says which. Both are literals in ``configuration_*.py``. Importing all that takes seconds, parsing one file
a few milliseconds; what a class computes in ``__post_init__`` is not seen here.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_TABLES = ("CONFIG_MAPPING_NAMES", "SPECIAL_MODEL_TYPE_TO_MODULE_NAME")
_DEEPEST_BASE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigClass:
    """``aliases``: transformers' general name → the name in this class. ``parts``: key of a nested config → its class.

    ``assumed_types``: key of a nested config → the model type that is taken where it names none.
    """

    name: str = ""
    model_type: str = ""
    defaults: Mapping[str, object] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, ConfigReference] = field(default_factory=dict)
    assumed_types: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReference:
    """A class by name, and the file that uses the name. ``AutoConfig`` is whatever the nested ``model_type`` says."""

    name: str
    file: Path


UNKNOWN = ConfigClass()


def class_of_type(model_type: str) -> ConfigClass:
    """The configuration class of ``model_type``; ``UNKNOWN`` where transformers has none."""
    name, file = _place_of_type(model_type)
    return _read_class(file, name) if file is not None else UNKNOWN


def class_of_part(parent: ConfigClass, key: str) -> ConfigClass:
    """The class of the nested config ``key``, for a part that does not name its own ``model_type``."""
    reference = parent.parts.get(key)
    if reference is None or reference.name == "AutoConfig":
        return class_of_type(parent.assumed_types[key]) if key in parent.assumed_types else UNKNOWN
    return _read_class(reference.file, reference.name)


@functools.cache
def _models() -> Path | None:
    found = importlib.util.find_spec("transformers")  # finds, does not import
    return Path(found.origin).parent / "models" if found is not None and found.origin is not None else None


@functools.cache
def _tables() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Model type → class name, and model type → module where the two differ."""
    models, tables = _models(), {name: dict[str, str]() for name in _TABLES}
    source = models / "auto" / "auto_mappings.py" if models is not None else None
    for statement in _parse(source).body if source is not None else ():
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(args=[ast.List() as pairs])) if name in tables:
                value = _literal(pairs)
                tables[name] = dict(value) if isinstance(value, list) else {}
    return tables[_TABLES[0]], tables[_TABLES[1]]


def _place_of_type(model_type: str) -> tuple[str, Path | None]:
    models, (classes, modules) = _models(), _tables()
    name = classes.get(model_type)
    if models is None or name is None:
        return "", None
    module = modules.get(model_type, model_type).replace("-", "_")
    own = models / module / f"configuration_{model_type.replace('-', '_')}.py"  # data2vec has one for each of its three
    return name, own if own.is_file() else models / module / f"configuration_{module}.py"


@functools.lru_cache(maxsize=8)
def _parse(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])


@functools.cache
def _read_class(file: Path, name: str, depth: int = 0) -> ConfigClass:
    """Class ``name`` as ``file`` sees it, what it inherits included."""
    tree = _parse(file)
    for statement in tree.body:
        match statement:
            case ast.ClassDef(name=found) if found == name:
                return _assemble(statement, file, depth)
            case ast.ImportFrom(module=str(module), level=2, names=names) if any(item.name == name for item in names):
                return _follow(file, module, name, depth)
    return UNKNOWN


def _follow(file: Path, module: str, name: str, depth: int) -> ConfigClass:
    """``from ..siglip import SiglipConfig`` or ``from ..siglip.configuration_siglip import SiglipConfig``."""
    package = module.split(".")[0]
    if package == "auto" or depth >= _DEEPEST_BASE:
        return UNKNOWN
    return _read_class(file.parent.parent / package / f"configuration_{package}.py", name, depth + 1)


def _assemble(source: ast.ClassDef, file: Path, depth: int) -> ConfigClass:
    defaults: dict[str, object] = {}
    aliases: dict[str, str] = {}
    parts: dict[str, ConfigReference] = {}
    assumed_types: dict[str, str] = {}
    model_type = ""
    for base in source.bases:
        if isinstance(base, ast.Name) and base.id != "PreTrainedConfig" and depth < _DEEPEST_BASE:
            parent = _read_class(file, base.id, depth + 1)
            defaults |= parent.defaults
            aliases |= parent.aliases
            parts |= parent.parts
            assumed_types |= parent.assumed_types
            model_type = parent.model_type
    for statement in source.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="sub_configs")], value=ast.Dict() as nested):
                parts |= _parts(nested, file)
            case ast.Assign(targets=[ast.Name(id="attribute_map")], value=value):
                found = _literal(value)
                aliases |= found if isinstance(found, dict) else {}
            case ast.Assign(targets=[ast.Name(id="model_type")], value=ast.Constant(value=str(word))):
                model_type = word
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                defaults[name] = _literal(value)
            case ast.FunctionDef(name="__post_init__"):
                assumed_types |= _assumed_types(statement)
    return ConfigClass(
        name=source.name,
        model_type=model_type,
        defaults=defaults,
        aliases=aliases,
        parts=parts,
        assumed_types=assumed_types,
    )


def _assumed_types(method: ast.FunctionDef) -> dict[str, str]:
    """From ``self.text_config = CONFIG_MAPPING["llama"]()`` and ``self.text_config.get("model_type", "llama")``."""
    found: dict[str, str] = {}
    for node in ast.walk(method):
        match node:
            case ast.Assign(
                targets=[ast.Attribute(attr=key)],
                value=ast.Call(func=ast.Subscript(value=ast.Name(id="CONFIG_MAPPING"), slice=ast.Constant(value=str(word)))),
            ):
                found[key] = word
            case ast.Call(
                func=ast.Attribute(attr="get", value=ast.Attribute(attr=key)),
                args=[ast.Constant(value="model_type"), ast.Constant(value=str(word))],
            ):
                found[key] = word
    return found


def _parts(nested: ast.Dict, file: Path) -> dict[str, ConfigReference]:
    return {
        key.value: ConfigReference(name=value.id, file=file)
        for key, value in zip(nested.keys, nested.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(key.value, str) and isinstance(value, ast.Name)
    }


def _literal(value: ast.expr) -> object:
    match value:
        case ast.BinOp(left=ast.Constant(value=int(left)), op=ast.Mult(), right=ast.Constant(value=int(right))):
            return left * right  # 4096 * 32
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError):  # computed: as good as absent
        return None

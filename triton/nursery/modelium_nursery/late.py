"""Modules of which a stub that only relays needs a part: that part now, the rest when somebody asks for it.

Triton's stub imports numpy (for its tensors) and, at its first request, asyncio (to see whether ``execute`` is a coroutine).
Most of both is never used there, and importing it takes longer than all else that such a stub does (measured, seconds of a CPU:
numpy 0.12, its core 0.05; asyncio 0.06).

What enters: nothing; to be called before anything imports them. What leaves: in ``sys.modules``, modules that become whole by
themselves when a name is asked for that they lack.
"""

from __future__ import annotations

import collections.abc
import importlib
import importlib.util
import sys
import types
from importlib.machinery import ModuleSpec
from typing import Any


def come_late() -> None:
    """numpy and asyncio, where nobody has imported them yet."""
    if "asyncio" not in sys.modules:
        asyncio = _begin("asyncio")
        asyncio.iscoroutine = _is_coroutine
        asyncio.__class__ = _Late
    if "numpy" not in sys.modules:
        _begin_numpy()


def come_now() -> None:
    """All of both, for code that is not a relay's."""
    for name in ("numpy", "asyncio"):
        module = sys.modules.get(name)
        if isinstance(module, _Late):
            module.become_whole()


class _Late(types.ModuleType):
    """A module whose own code has not run yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # whoever looks at all modules does not use them
            raise AttributeError(name)
        self.become_whole()
        return getattr(self, name)

    def become_whole(self) -> None:
        """Run its code, in itself: who has it already has the whole of it then."""
        spec: ModuleSpec | None = self.__spec__
        assert spec is not None and spec.loader is not None
        self.__class__ = types.ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)


def _begin(name: str) -> Any:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    module = types.ModuleType(name)
    module.__spec__, module.__loader__, module.__file__ = spec, spec.loader, spec.origin
    module.__path__ = list(spec.submodule_search_locations or ())
    module.__package__ = name
    sys.modules[name] = module
    return module


def _is_coroutine(value: object) -> bool:
    return isinstance(value, collections.abc.Coroutine)


def _begin_numpy() -> None:
    """Its core. Of a version that is made otherwise, all of it."""
    numpy = _begin("numpy")
    try:
        constants, version = (importlib.import_module(f"numpy.{name}") for name in ("_globals", "version"))
        numpy.__version__ = version.version
        numpy._NoValue, numpy._CopyMode = constants._NoValue, constants._CopyMode
        for name, value in vars(importlib.import_module("numpy.core")).items():
            if not name.startswith("_"):
                numpy.__dict__.setdefault(name, value)
    except (ImportError, AttributeError):
        numpy.__spec__.loader.exec_module(numpy)
    else:
        numpy.__class__ = _Late

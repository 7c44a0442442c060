"""Modules of which a stub that only relays needs a part, or needs it later: that part then, the rest when it is asked for.

Triton's stub imports numpy (for its tensors) and, at its first request, asyncio (to see whether ``execute`` is a coroutine).
Most of both is never used there, and importing it takes longer than all else that such a stub does (measured, seconds of a CPU:
numpy 0.12, its core 0.05; asyncio 0.06). numpy's core is imported by a thread while the child loads the model.

What enters: nothing; to be called before anything imports them. What leaves: in ``sys.modules``, modules that become whole by
themselves when a name is asked for that they lack, and Triton's ``triton_python_backend_utils``.
"""

from __future__ import annotations

import collections.abc
import importlib
import importlib.util
import os
import sys
import threading
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any

_UTILS = "triton_python_backend_utils"
# The types that Triton's module has in a table, and with it before anybody uses them.
_TYPES = "int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 object_".split()  # noqa: SIM905


def come_late() -> None:
    """numpy and asyncio, where nobody has imported them yet."""
    if "asyncio" not in sys.modules:
        asyncio = _begin("asyncio")
        asyncio.iscoroutine = _is_coroutine
        asyncio.__class__ = _Late
    if "numpy" not in sys.modules:
        _begin_numpy()


def come_soon() -> threading.Thread:
    """What the first request needs, imported by a thread beside whatever else goes on. To be joined before that request: the
    stub itself does not wait for it, and dies."""
    thread = threading.Thread(target=_import_core, name="numpy", daemon=True)
    thread.start()
    return thread


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


class _Coreless(_Late):
    """numpy without its core. With it, it is one whose own code has not run."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.take_core()
        return getattr(self, name)

    def become_whole(self) -> None:
        self.take_core()
        module: types.ModuleType = self
        if isinstance(module, _Late):
            module.become_whole()

    def take_core(self) -> None:
        """Import the core. Of a version that is made otherwise, all of it."""
        self.__class__ = types.ModuleType  # type: ignore[assignment]
        try:
            constants, version = (importlib.import_module(f"numpy.{name}") for name in ("_globals", "version"))
            self.__version__ = version.version
            self._NoValue, self._CopyMode = constants._NoValue, constants._CopyMode
            for name, value in vars(importlib.import_module("numpy.core")).items():
                if not name.startswith("_"):
                    self.__dict__.setdefault(name, value)
        except (ImportError, AttributeError):
            assert self.__spec__ is not None and self.__spec__.loader is not None
            self.__spec__.loader.exec_module(self)
        else:
            self.__class__ = _Late  # type: ignore[assignment]
        _complete_table(self)


class _Named:
    """Stands for a type of numpy in Triton's table."""

    def __init__(self, name: str) -> None:
        self.name = name


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
    numpy = _begin("numpy")
    numpy.__dict__.update({name: _Named(name) for name in _TYPES})
    try:
        importlib.import_module(_UTILS)
    except (ImportError, AttributeError):  # it is not here, or wants more of numpy: then it is imported by whoever needs it
        sys.modules.pop(_UTILS, None)
    for name in _TYPES:
        del numpy.__dict__[name]
    numpy.__class__ = _Coreless


def _import_core() -> None:
    # OpenBLAS, which comes with it, starts a thread for each core, and these spin for 57 ms (measured) while the child loads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    numpy = sys.modules["numpy"]
    if isinstance(numpy, _Coreless):
        numpy.take_core()


def _complete_table(numpy: Any) -> None:
    for table in vars(sys.modules.get(_UTILS, numpy)).values():
        if type(table) is dict:
            table.update({key: getattr(numpy, value.name) for key, value in table.items() if isinstance(value, _Named)})

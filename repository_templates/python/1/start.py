"""What must happen before torch and transformers are imported, and importing them in a third of the time.

What enters: nothing. What leaves: a process whose locale is UTF-8, that never asks a network for anything, and in which
``import transformers`` does not drag in torch's compiler, scikit-learn and scipy. Import this module first.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import locale
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from . import shortcuts

_COMPILER = "torch._dynamo"
_MASK_HELPER = "torch._dynamo._trace_wrapped_higher_order_op"


def settle() -> None:
    """Set what libraries look at in the environment: once more in a nursery's child, which has its stub's by then."""
    # Every model is a process with threads of its own on the same cores, and OpenMP's threads spin while they wait. One
    # sentence through MiniLM, two models busy on two cores: 24 ms when they sleep instead, 90 to 320 ms when they spin (alone:
    # 15 and 11).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Triton's stub starts in the C locale, where open() reads ascii: importing torch dies with UnicodeDecodeError.
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    os.environ.update(
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        ORT_DISABLE_TELEMETRY="1",  # of onnxruntime, which runs the weights of some folders
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        TOKENIZERS_PARALLELISM="false",  # requests already come in batches; a second thread pool fights torch's
    )


class _LazyCompiler(ModuleType):
    """``torch._dynamo`` until somebody really compiles.

    transformers decorates functions with torch's compiler marks while it is imported; each import of the compiler costs
    1.4 s (it brings sympy, inductor and DTensor with it), and nothing here compiles. The marks mean nothing to code that
    runs eagerly, so they return the function; any other attribute brings the real module.
    """

    @staticmethod
    def _mark(function: Any = None, *_: object, **__: object) -> Any:
        return function if function is not None else lambda decorated: decorated

    disable = allow_in_graph = assume_constant_result = forbid_in_graph = _mark

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # inspect and warnings look at every module's dunders
            raise AttributeError(name)
        return getattr(_real_compiler(), name)


class _LazyMaskContext:
    """``TransformGetItemToIndex``, which transformers.masking_utils imports by name: fetched when it is entered."""

    def __enter__(self) -> object:
        _real_compiler()
        self._real = importlib.import_module(_MASK_HELPER).TransformGetItemToIndex()
        return self._real.__enter__()

    def __exit__(self, *error: object) -> object:
        return self._real.__exit__(*error)


def _real_compiler() -> ModuleType:
    for name in (_COMPILER, _MASK_HELPER):
        if isinstance(sys.modules.get(name), _LazyCompiler) or getattr(sys.modules.get(name), "modelium_stand_in", False):
            del sys.modules[name]
    return importlib.import_module(_COMPILER)


@contextlib.contextmanager
def _without_what_trains() -> Iterator[None]:
    """For transformers' modules that are imported meanwhile, scikit-learn and scipy are not there.

    Losses, and the tuning of a second model that guesses ahead, want one function of each; with these come pandas and some
    thousand files (3.5 s). Whoever else imports the two gets them.
    """
    utils: Any = importlib.import_module("transformers.utils")
    names = [name for name in ("is_sklearn_available", "is_scipy_available") if hasattr(utils, name)]
    real = {name: getattr(utils, name) for name in names}
    try:
        for name in names:
            setattr(utils, name, lambda: False)
        yield
    finally:
        for name, function in real.items():
            setattr(utils, name, function)


def _import_quickly() -> None:
    """Import torch and transformers' model code; where this trick does not fit the versions at hand, import them plainly."""
    import torch

    if _COMPILER in sys.modules:
        return
    shortcuts.fill_no_metas()
    mask_helper = ModuleType(_MASK_HELPER)
    mask_helper.TransformGetItemToIndex = _LazyMaskContext  # type: ignore[attr-defined]
    mask_helper.modelium_stand_in = True  # type: ignore[attr-defined]
    compiler = _LazyCompiler(_COMPILER)
    compiler._trace_wrapped_higher_order_op = mask_helper  # type: ignore[attr-defined]
    is_available = torch.distributed.is_available
    sys.modules[_COMPILER], sys.modules[_MASK_HELPER] = compiler, mask_helper
    torch._dynamo = compiler
    torch.distributed.is_available = lambda: False  # one process: skips DTensor and FSDP (1 s)
    try:
        with _without_what_trains():
            importlib.import_module("transformers.masking_utils")
            importlib.import_module("transformers.modeling_utils")
            importlib.import_module("transformers.generation.candidate_generator")
        shortcuts.compile_no_names()
    except Exception:
        _real_compiler()
        for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
            del sys.modules[name]
    finally:
        torch.distributed.is_available = is_available


settle()
gc.disable()  # each look for cycles passes over all that was imported so far, and finds nothing (1 s)
try:
    _import_quickly()
finally:
    gc.freeze()  # what was imported stays
    gc.enable()

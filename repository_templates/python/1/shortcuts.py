"""What libraries do at each load for nothing, left out: nothing enters, faster loads leave.

Where another version of a library is made otherwise, it does what it did.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable
from typing import Any

# torch.nn's modules fill their weights with these when they are made.
_FILLING = (
    *("constant_", "dirac_", "eye_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_"),
    *("orthogonal_", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_"),
)


def fill_no_metas() -> None:
    """Let torch's functions that fill new weights pass by those on ``meta``, which have no values; before transformers comes.

    transformers makes every model on ``meta`` first, and torch works out in Python what a normal distribution would be there.
    """
    filling: Any = importlib.import_module("torch.nn.init")
    for name in _FILLING:
        if (function := getattr(filling, name, None)) is not None:
            setattr(filling, name, _passing_by(function))


def _passing_by(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def fill(tensor: Any, *arguments: Any, **named: Any) -> Any:
        return tensor if getattr(tensor, "is_meta", False) else function(tensor, *arguments, **named)

    return fill


def compile_no_names() -> None:
    """Let transformers make regular expressions when it uses them, while it loads weights.

    It makes one of each tensor's name, and uses them only to save the model again: of MiniLM's 103 that took a fifth of the
    load.
    """
    try:
        loading: Any = importlib.import_module("transformers.core_model_loading")
    except ImportError:  # transformers before 5
        return
    if getattr(loading, "re", None) is re:
        loading.re = _Expressions()


class _Expressions:
    """The module ``re`` for one user, who gets patterns that are made when they are used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(re, name)

    @staticmethod
    def compile(pattern: Any, flags: int = 0) -> Any:
        return _Pattern(pattern, flags)


class _Pattern:
    """A pattern of ``re`` once any of its methods is asked for."""

    def __init__(self, *made_of: Any) -> None:
        self._made_of = made_of

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(re.compile(*self._made_of), name)

"""Weights that are in memory already, where a nursery has them (``modelium_nursery.weights``).

What enters: nothing. What leaves: transformers, which meanwhile opens files in memory in the place of those of safetensors.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

_SHARES = "modelium_shares"


@contextlib.contextmanager
def weights_from_memory() -> Iterator[None]:
    """What is opened meanwhile stays mapped. Another version of transformers reads the files, as without a nursery."""
    shares = sys.modules.get(_SHARES)
    module: Any = importlib.import_module("transformers.modeling_utils")
    opens = getattr(module, "safe_open", None)
    if shares is None or opens is None:
        yield
        return

    def safe_open(file: Any, *options: Any, **more: Any) -> Any:
        return opens(shares.path_of(os.fspath(file)) or file, *options, **more)

    module.safe_open = safe_open
    try:
        yield
    finally:
        module.safe_open = opens

"""What every model of the python runtime needs: a nursery runs this file before it forks children.

Modules of single architectures are not here: children tell their nursery what they had to import, and it remembers.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path

from modelium_nursery import entries

_MODULES = (
    "numpy",
    "safetensors.torch",
    "tokenizers",
    "torch._refs",  # with sympy: torch works out what some operators do on its device without values, where models are made
    "torch.fx.experimental.symbolic_shapes",
    "transformers.models.auto.configuration_auto",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.tokenization_utils_tokenizers",
)

_HERE = Path(__file__).parent
entries.begin(_HERE)
importlib.import_module(f"{entries.PACKAGE}.start")  # first: the environment, quick imports
for _module in _MODULES:
    try:
        importlib.import_module(_module)
    except ImportError:  # another version of transformers
        continue
with contextlib.suppress(Exception):  # another version of transformers: its table of renamed tensors is made when it is asked
    importlib.import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("")
entries.import_all(_HERE)

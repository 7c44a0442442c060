"""What every model of the python runtime needs: a nursery runs this file before it forks children.

Modules of single architectures are not here: children tell their nursery what they had to import, and it remembers.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from pathlib import Path

from modelium_nursery import entries

_MODULES = (
    "numpy",
    "safetensors.torch",
    "tokenizers",
    "transformers.models.auto.configuration_auto",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.tokenization_utils_tokenizers",
)

_spec = importlib.util.spec_from_file_location("modelium_start", Path(__file__).with_name("start.py"))
assert _spec is not None and _spec.loader is not None
sys.modules[_spec.name] = _start = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_start)
for _module in _MODULES:
    try:
        importlib.import_module(_module)
    except ImportError:  # another version of transformers
        continue
with contextlib.suppress(Exception):  # another version of transformers: its table of renamed tensors is made when it is asked
    importlib.import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("")
entries.import_all(Path(__file__).parent)

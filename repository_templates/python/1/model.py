"""A transformers model behind Triton's python backend: this file is what Triton starts, ``instance`` is the model.

The model lives in a child of a process that has imported torch and transformers already (``modelium_nursery``), so this file
imports neither. Without such a process it lives here.
"""

from __future__ import annotations

# isort: off
from modelium_nursery import late

late.come_late()
# isort: on

from modelium_nursery.relay import Relay  # noqa: E402


class TritonPythonModel(Relay):
    """What Triton calls."""

    kind, file, package = "python", __file__, __package__

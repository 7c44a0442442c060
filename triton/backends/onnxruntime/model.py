"""Triton's onnxruntime backend, for a server that comes without the C++ one: this file is what Triton starts, ``instance`` is
the model.

The model lives in a child of a process that has imported onnxruntime already (``modelium_nursery``), so this file does not.
Without such a process it lives here.
"""

from modelium_nursery import late

late.come_late()

from typing import Any  # noqa: E402

from modelium_nursery.relay import Relay  # noqa: E402


class TritonPythonModel(Relay):
    """What Triton calls."""

    kind, file, package = "onnxruntime", __file__, None

    @classmethod
    def auto_complete_config(cls, auto_complete_model_config: Any) -> Any:
        """As ``instance`` does it."""
        return cls._import().TritonPythonModel.auto_complete_config(auto_complete_model_config)

"""Triton's vLLM backend, for a server that comes without it: this file is what Triton starts, ``instance`` is the model.

The model lives in a child of a process that has imported vLLM already (``modelium_nursery``), so this file does not. Without
such a process it lives here.
"""

from modelium_nursery import late

late.come_late()

import json  # noqa: E402
from typing import Any  # noqa: E402

from modelium_nursery.relay import Relay  # noqa: E402
from vllm_backend.unloading import OVERDUE_S, unload_timeout_s  # noqa: E402

_FAREWELL_S = 1.0


class TritonPythonModel(Relay):
    """What Triton calls."""

    kind, file, package = "vllm", __file__, None

    @classmethod
    def auto_complete_config(cls, auto_complete_model_config: Any) -> Any:
        """As ``instance`` does it."""
        return cls._import().TritonPythonModel.auto_complete_config(auto_complete_model_config)

    def initialize(self, args: dict[str, str]) -> None:
        # The child ends by itself before that, whatever hangs in it.
        self.finalize_within_s = unload_timeout_s(json.loads(args["model_config"])) + OVERDUE_S + _FAREWELL_S
        super().initialize(args)

"""What a simulation is made of: models, devices, and the error for what cannot be read. Values."""

from __future__ import annotations

from dataclasses import dataclass

from modelium.errors import ModeliumError
from modelium.sizes import GIB


class BadInput(ModeliumError):
    """A trace or a specification that cannot be used; the message says where and what to write instead."""

    type = "bad_input"


HEADS = 240
"""Of a simulated model on several GPUs: so many as the usual numbers of GPUs divide."""

SMALLEST_PART = 2 * GIB
"""Of a model on several GPUs, on each: an engine takes nearly so much however small the model is."""

UNLOAD_S = 1.0
"""Of a model that was never unloaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedModel:
    """A model as a simulation knows it. ``bytes``: of all of it while it is loaded; ``device``: the only one it may be on;
    ``devices``: those it may be on, any where there are none.
    ``tensor_parallel``: on so many equal GPUs, the same part of it on each; then it is an engine, which starts alone on each.
    """

    name: str
    bytes: int
    load_seconds: float
    unload_seconds: float = UNLOAD_S
    device: str | None = None
    devices: frozenset[str] = frozenset()
    pinned: bool = False
    always_loaded: bool = False
    tensor_parallel: int = 1

    def may_be_on(self, device: str) -> bool:
        """Did its user allow that?"""
        return device == self.device if self.device is not None else not self.devices or device in self.devices

    @property
    def bytes_each(self) -> int:
        """On each of its devices."""
        return -(-self.bytes // self.tensor_parallel)

"""What a simulation is made of: models, devices, and the error for what cannot be read. Values."""

from __future__ import annotations

from dataclasses import dataclass

from modelium.errors import ModeliumError


class BadInput(ModeliumError):
    """A trace or a specification that cannot be used; the message says where and what to write instead."""

    type = "bad_input"


UNLOAD_S = 1.0
"""Of a model that was never unloaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedModel:
    """A model as a simulation knows it. ``bytes``: on its device while it is loaded; ``device``: the only one it may be on."""

    name: str
    bytes: int
    load_seconds: float
    unload_seconds: float = UNLOAD_S
    device: str | None = None
    pinned: bool = False
    always_loaded: bool = False

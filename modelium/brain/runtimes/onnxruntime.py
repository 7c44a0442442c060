"""Whether onnxruntime serves a model: a profile and the capabilities enter, an obstacle in words leaves, "" for none."""

from __future__ import annotations

from modelium.brain.runtimes.support import Ending, Support, no_backend
from modelium.sizes import MIB
from modelium.values import Capabilities, DeviceKind, ModelProfile, Runtime


def find_obstacle(profile: ModelProfile, capabilities: Capabilities, by_hand: bool = False) -> str:
    """It is switched off, it is no graph, or the server has no such backend."""
    if not capabilities.onnx_enabled:
        return "onnx.enabled is false in the configuration"
    return no_backend(Runtime.ONNXRUNTIME, capabilities) if profile.onnx is not None else "it is not an ONNX graph"


def _weight_bytes(profile: ModelProfile, device: DeviceKind) -> int:
    """onnxruntime keeps the initializers and a prepacked copy of the large ones."""
    return int(profile.weight_bytes * 1.3)


SUPPORT = Support(
    find_obstacle=find_obstacle,
    process_bytes=60 * MIB,
    born_bytes=24 * MIB,
    weight_bytes=_weight_bytes,
    is_born=True,
    ending=Ending.KILLED,
)

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
    """The initializers, a prepacked copy of the large ones, and what reading the file leaves until requests pause.

    Of a MiniLM's graph (86 MiB) 1.2 times its size at rest, and 1.7 times in its first second (PSS, onnxruntime 1.32).
    """
    return int(profile.weight_bytes * 1.6)


SUPPORT = Support(
    find_obstacle=find_obstacle,
    process_bytes=60 * MIB,
    born_bytes=24 * MIB,
    weight_bytes=_weight_bytes,
    is_born=True,
    ending=Ending.KILLED,
)

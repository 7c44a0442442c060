"""Which runtime serves a model: profile, capabilities and override enter, a choice or a refusal with its reason leaves."""

from __future__ import annotations

from dataclasses import dataclass

from modelium.brain import python_support
from modelium.brain.vllm_support import find_obstacle, generates, name_vllm
from modelium.values import Capabilities, ModelOverride, ModelProfile, Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeChoice:
    """``runtime`` is None when nothing here can serve the model; ``reason`` then says what would change that."""

    runtime: Runtime | None
    rule: str
    reason: str


_NO_OVERRIDE = ModelOverride()


def choose_runtime(profile: ModelProfile, capabilities: Capabilities, override: ModelOverride = _NO_OVERRIDE) -> RuntimeChoice:
    """Choose by the first rule that holds.

    1. The user chose (``models: {NAME: {runtime: …}}``): that one, if this Triton has it and it is enabled.
    2. An ONNX graph: onnxruntime.
    3. A generator of text that vLLM's own registry has, in a quantization that it reads here: vllm, when that backend is there.
    4. Everything else that transformers serves: python. Of a generator the reason says why not vllm.
    5. Nothing fits: refused.
    """
    if override.runtime is not None:  # 1
        obstacle = _obstacle(override.runtime, profile, capabilities, by_hand=True)
        if obstacle:
            return RuntimeChoice(
                runtime=None, rule="runtime.1", reason=f"runtime {override.runtime} was chosen by hand, but {obstacle}"
            )
        return RuntimeChoice(runtime=override.runtime, rule="runtime.1", reason="chosen by hand in models:")
    if profile.onnx is not None:  # 2
        obstacle = _obstacle(Runtime.ONNXRUNTIME, profile, capabilities)
        if not obstacle:
            return RuntimeChoice(runtime=Runtime.ONNXRUNTIME, rule="runtime.2", reason="an ONNX graph")
        return RuntimeChoice(runtime=None, rule="runtime.5", reason=f"an ONNX graph needs onnxruntime, but {obstacle}")
    why_not_vllm = ""
    if generates(profile):  # 3
        why_not_vllm = find_obstacle(profile, capabilities)
        if not why_not_vllm:
            reason = f"{name_vllm(capabilities)} has {profile.architecture}"
            return RuntimeChoice(runtime=Runtime.VLLM, rule="runtime.3", reason=reason)
    obstacle = _obstacle(Runtime.PYTHON, profile, capabilities)
    if not obstacle:  # 4
        reason = f"transformers serves {profile.task} here" + (f"; not vllm: {why_not_vllm}" if why_not_vllm else "")
        return RuntimeChoice(runtime=Runtime.PYTHON, rule="runtime.4", reason=reason)
    reasons = "; ".join(why for why in (why_not_vllm, obstacle) if why)
    return RuntimeChoice(runtime=None, rule="runtime.5", reason=f"no runtime can serve it: {reasons}")  # 5


def _obstacle(runtime: Runtime, profile: ModelProfile, capabilities: Capabilities, *, by_hand: bool = False) -> str:
    """Why ``runtime`` cannot serve ``profile`` here; empty when it can."""
    match runtime:
        case Runtime.RAY:
            if not capabilities.ray_enabled:
                return "ray.enabled is false in the configuration"
            return "" if "ray" in capabilities.backends else "this installation has no ray runtime"
        case Runtime.VLLM:
            return find_obstacle(profile, capabilities, by_hand=by_hand)
        case Runtime.ONNXRUNTIME:
            if not capabilities.onnx_enabled:
                return "onnx.enabled is false in the configuration"
            if profile.onnx is None:
                return "it is not an ONNX graph"
        case Runtime.PYTHON:
            obstacle = python_support.find_obstacle(profile, by_hand=by_hand)
            if obstacle:
                return obstacle
    if runtime.value not in capabilities.backends:
        return f"this Triton has no {runtime} backend (it has {', '.join(sorted(capabilities.backends)) or 'none'})"
    return ""

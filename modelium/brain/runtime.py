"""Which runtime serves a model: profile, capabilities and override enter, a choice or a refusal with its reason leaves."""

from __future__ import annotations

from dataclasses import dataclass

from modelium.values import Capabilities, ModelOverride, ModelProfile, Runtime, Task


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
    3. A text-generating decoder: vllm, when that backend is there.
    4. Everything else that transformers serves: python.
    5. Nothing fits: refused.
    """
    if override.runtime is not None:  # 1
        obstacle = _obstacle(override.runtime, profile, capabilities)
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
    if profile.is_llm:  # 3
        why_not_vllm = _obstacle(Runtime.VLLM, profile, capabilities)
        if not why_not_vllm:
            return RuntimeChoice(runtime=Runtime.VLLM, rule="runtime.3", reason="a text-generating decoder, and vllm is here")
    obstacle = _obstacle(Runtime.PYTHON, profile, capabilities)
    if not obstacle:  # 4
        reason = f"transformers serves {profile.task} here" + (f"; not vllm: {why_not_vllm}" if why_not_vllm else "")
        return RuntimeChoice(runtime=Runtime.PYTHON, rule="runtime.4", reason=reason)
    return RuntimeChoice(runtime=None, rule="runtime.5", reason=f"no runtime can serve it: {obstacle}")  # 5


def _obstacle(runtime: Runtime, profile: ModelProfile, capabilities: Capabilities) -> str:
    """Why ``runtime`` cannot serve ``profile`` here; empty when it can."""
    match runtime:
        case Runtime.RAY:
            if not capabilities.ray_enabled:
                return "ray.enabled is false in the configuration"
            return "" if "ray" in capabilities.backends else "this installation has no ray runtime"
        case Runtime.VLLM:
            if not capabilities.vllm_enabled:
                return "vllm.enabled is false in the configuration"
            if not profile.is_llm:
                return f"vllm serves text-generating models, this is {profile.task}"
        case Runtime.ONNXRUNTIME:
            if not capabilities.onnx_enabled:
                return "onnx.enabled is false in the configuration"
            if profile.onnx is None:
                return "it is not an ONNX graph"
        case Runtime.PYTHON:
            if profile.task is Task.TENSORS:
                return "the python runtime serves transformers' tasks, this is a bare graph"
            if profile.quantization is not None:
                return f"the python runtime does not read {profile.quantization} weights"
    if runtime.value not in capabilities.backends:
        return f"this Triton has no {runtime} backend (it has {', '.join(sorted(capabilities.backends)) or 'none'})"
    return ""

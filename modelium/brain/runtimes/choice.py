"""Which runtime serves a model: profile, capabilities and override enter, a choice or a refusal with its reason leaves."""

from __future__ import annotations

from dataclasses import dataclass

from modelium.brain.runtimes import python as python_support
from modelium.brain.runtimes import ray as ray_support
from modelium.brain.runtimes.vllm import find_obstacle, generates, name_vllm
from modelium.values import Capabilities, ModelOverride, ModelProfile, Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeChoice:
    """``runtime`` is None when nothing here can serve the model; ``reason`` then says what would change that.

    ``engine``: vLLM serves it, in Triton or behind Ray, so its memory is planned as an engine's.
    """

    runtime: Runtime | None
    rule: str
    reason: str
    engine: bool = False


_NO_OVERRIDE = ModelOverride()


def choose_runtime(profile: ModelProfile, capabilities: Capabilities, override: ModelOverride = _NO_OVERRIDE) -> RuntimeChoice:
    """Choose by the first rule that holds.

    1. The user chose (``models: {NAME: {runtime: …}}``): that one, if this Triton has it and it is enabled.
    2. An ONNX graph: onnxruntime.
    3. A generator of text that vLLM's own registry has, in a quantization that it reads here: vllm, when that backend is there.
    4. Everything else that transformers serves: python. Of a generator the reason says why not vllm.
    5. What none of these serves, but Ray Serve does: an application, an adapter's library.
    6. Nothing fits: refused.
    """
    if override.runtime is not None:  # 1
        obstacle = _obstacle(override.runtime, profile, capabilities, by_hand=True)
        if obstacle:
            return RuntimeChoice(
                runtime=None, rule="runtime.1", reason=f"runtime {override.runtime} was chosen by hand, but {obstacle}"
            )
        return _choose(override.runtime, profile, capabilities, "runtime.1", "chosen by hand in models:")
    if profile.onnx is not None:  # 2
        obstacle = _obstacle(Runtime.ONNXRUNTIME, profile, capabilities)
        if not obstacle:
            return RuntimeChoice(runtime=Runtime.ONNXRUNTIME, rule="runtime.2", reason="an ONNX graph")
        return RuntimeChoice(runtime=None, rule="runtime.6", reason=f"an ONNX graph needs onnxruntime, but {obstacle}")
    why_not_vllm = ""
    if generates(profile):  # 3
        why_not_vllm = find_obstacle(profile, capabilities)
        if not why_not_vllm:
            reason = f"{name_vllm(capabilities)} has {profile.architecture}"
            return RuntimeChoice(runtime=Runtime.VLLM, rule="runtime.3", reason=reason, engine=True)
    obstacle = _obstacle(Runtime.PYTHON, profile, capabilities)
    if not obstacle:  # 4
        reason = f"transformers serves {profile.task} here" + (f"; not vllm: {why_not_vllm}" if why_not_vllm else "")
        return RuntimeChoice(runtime=Runtime.PYTHON, rule="runtime.4", reason=reason)
    only_ray = ray_support.is_only_rays(profile)
    why_not_ray = ray_support.find_obstacle(profile, capabilities)
    if only_ray and not why_not_ray:  # 5
        return _choose(Runtime.RAY, profile, capabilities, "runtime.5", "no other runtime serves it")
    reasons = [why_not_ray] if only_ray else [why for why in (why_not_vllm, obstacle) if why]
    return RuntimeChoice(runtime=None, rule="runtime.6", reason=f"no runtime can serve it: {'; '.join(reasons)}")  # 6


def choose_ray(profile: ModelProfile, capabilities: Capabilities, reason: str) -> RuntimeChoice | None:
    """Ray for a model that another runtime would serve, were there room; None where Ray cannot."""
    if ray_support.find_obstacle(profile, capabilities):
        return None
    return _choose(Runtime.RAY, profile, capabilities, "runtime.7", reason)


def _choose(runtime: Runtime, profile: ModelProfile, capabilities: Capabilities, rule: str, reason: str) -> RuntimeChoice:
    engine = runtime is Runtime.VLLM
    if runtime is Runtime.RAY:
        way = ray_support.way_of(profile, capabilities, by_hand=True)
        engine = way is ray_support.RayWay.ENGINE
        if isinstance(way, ray_support.RayWay):
            reason = f"{ray_support.NAMES[way]}; {reason}"
    return RuntimeChoice(runtime=runtime, rule=rule, reason=reason, engine=engine)


def _obstacle(runtime: Runtime, profile: ModelProfile, capabilities: Capabilities, *, by_hand: bool = False) -> str:
    """Why ``runtime`` cannot serve ``profile`` here; empty when it can."""
    match runtime:
        case Runtime.RAY:
            return ray_support.find_obstacle(profile, capabilities, by_hand=by_hand)
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

"""Which runtime serves a model: profile, capabilities and override enter, a choice or a refusal with its reason leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from modelium.brain.runtimes import onnxruntime, python, ray, vllm
from modelium.brain.runtimes.support import Support
from modelium.values import Capabilities, ModelOverride, ModelProfile, RayWay, Runtime

SUPPORTS: Mapping[Runtime, Support] = {
    Runtime.VLLM: vllm.SUPPORT,
    Runtime.ONNXRUNTIME: onnxruntime.SUPPORT,
    Runtime.PYTHON: python.SUPPORT,
    Runtime.RAY: ray.SUPPORT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeChoice:
    """``runtime`` is None when nothing here can serve the model; ``reason`` then says what would change that.

    ``way``: with Ray, what its replicas run. ``born``: a nursery forks its processes.
    """

    runtime: Runtime | None
    rule: str
    reason: str
    way: RayWay | None = None
    born: bool = False

    @property
    def engine(self) -> bool:
        """vLLM serves it, in Triton or behind Ray, so its memory is planned as an engine's."""
        return self.way is RayWay.ENGINE or (self.runtime is not None and SUPPORTS[self.runtime].is_engine)

    @property
    def by_ray(self) -> bool:
        """Ray serves it, with replicas of its own."""
        return self.runtime is Runtime.RAY


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
    choice = _choose_by_rule(profile, capabilities, override)
    born = capabilities.nursery and choice.runtime is not None and SUPPORTS[choice.runtime].is_born
    return replace(choice, born=True) if born else choice


def _choose_by_rule(profile: ModelProfile, capabilities: Capabilities, override: ModelOverride) -> RuntimeChoice:
    if override.runtime is not None:  # 1
        obstacle = SUPPORTS[override.runtime].find_obstacle(profile, capabilities, True)
        if obstacle:
            return RuntimeChoice(
                runtime=None, rule="runtime.1", reason=f"runtime {override.runtime} was chosen by hand, but {obstacle}"
            )
        return _choose(override.runtime, profile, capabilities, "runtime.1", "chosen by hand in models:")
    if profile.onnx is not None:  # 2
        obstacle = onnxruntime.find_obstacle(profile, capabilities)
        if not obstacle:
            return RuntimeChoice(runtime=Runtime.ONNXRUNTIME, rule="runtime.2", reason="an ONNX graph")
        return RuntimeChoice(runtime=None, rule="runtime.6", reason=f"an ONNX graph needs onnxruntime, but {obstacle}")
    why_not_vllm = ""
    if vllm.generates(profile):  # 3
        why_not_vllm = vllm.find_obstacle(profile, capabilities)
        if not why_not_vllm:
            reason = f"{vllm.name_vllm(capabilities)} has {profile.architecture}"
            return RuntimeChoice(runtime=Runtime.VLLM, rule="runtime.3", reason=reason)
    obstacle = python.SUPPORT.find_obstacle(profile, capabilities, False)
    if not obstacle:  # 4
        reason = f"transformers serves {profile.task} here" + (f"; not vllm: {why_not_vllm}" if why_not_vllm else "")
        return RuntimeChoice(runtime=Runtime.PYTHON, rule="runtime.4", reason=reason)
    only_ray = ray.is_only_rays(profile)
    why_not_ray = ray.find_obstacle(profile, capabilities)
    if only_ray and not why_not_ray:  # 5
        return _choose(Runtime.RAY, profile, capabilities, "runtime.5", "no other runtime serves it")
    reasons = [why_not_ray] if only_ray else [why for why in (why_not_vllm, obstacle) if why]
    return RuntimeChoice(runtime=None, rule="runtime.6", reason=f"no runtime can serve it: {'; '.join(reasons)}")  # 6


def likely_runtime(profile: ModelProfile, override: ModelOverride = _NO_OVERRIDE) -> Runtime:
    """What will probably serve it, before anything is known of what this machine has: what it needs is made ready meanwhile."""
    if override.runtime is not None:
        return override.runtime
    if profile.onnx is not None:
        return Runtime.ONNXRUNTIME
    if vllm.generates(profile):
        return Runtime.VLLM
    return Runtime.RAY if ray.is_only_rays(profile) else Runtime.PYTHON


def library_modules(profile: ModelProfile) -> tuple[str, ...]:
    """The package of transformers that has its architecture."""
    name = profile.model_type.replace("-", "_")
    return (f"transformers.models.{name}",) if name.isidentifier() else ()


def choose_ray(profile: ModelProfile, capabilities: Capabilities, reason: str) -> RuntimeChoice | None:
    """Ray for a model that another runtime would serve, were there room; None where Ray cannot."""
    if ray.find_obstacle(profile, capabilities):
        return None
    return _choose(Runtime.RAY, profile, capabilities, "runtime.7", reason)


def _choose(runtime: Runtime, profile: ModelProfile, capabilities: Capabilities, rule: str, reason: str) -> RuntimeChoice:
    way = ray.way_of(profile, capabilities, by_hand=True) if runtime is Runtime.RAY else ""
    if not isinstance(way, RayWay):
        return RuntimeChoice(runtime=runtime, rule=rule, reason=reason)
    return RuntimeChoice(runtime=runtime, rule=rule, reason=f"{ray.NAMES[way]}; {reason}", way=way)

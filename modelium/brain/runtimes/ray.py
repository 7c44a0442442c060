"""Whether Ray Serve serves a model, and how: a profile and the capabilities enter, a way of serving or an obstacle leaves.

What a replica runs is in ``repository_templates/ray/1/modelium_ray``; the ways here are its modules.
"""

from __future__ import annotations

from modelium.brain.runtimes import python as python_support
from modelium.brain.runtimes import vllm
from modelium.brain.runtimes.support import Support, in_float32
from modelium.sizes import MIB
from modelium.values import Capabilities, DeviceKind, ModelProfile, RayWay, Task, WeightFormat

# The classes that diffusers 0.42 takes for text to image (AUTO_TEXT2IMAGE_PIPELINES_MAPPING), but for those that want an image,
# or a second model's, as well.
TEXT_TO_IMAGE = frozenset(
    {
        "AuraFlowPipeline", "ChromaPipeline", "CogView3PlusPipeline", "CogView4Pipeline", "Flux2KleinPipeline", "Flux2Pipeline",
        "FluxPipeline", "GlmImagePipeline", "HunyuanDiTPipeline", "IFPipeline", "Ideogram4Pipeline", "Kandinsky3Pipeline",
        "KandinskyCombinedPipeline", "KandinskyV22CombinedPipeline", "KolorsPipeline", "Krea2Pipeline",
        "LatentConsistencyModelPipeline", "Lumina2Pipeline", "LuminaPipeline", "NucleusMoEImagePipeline", "OvisImagePipeline",
        "PRXPipeline", "PixArtAlphaPipeline", "PixArtSigmaPipeline", "QwenImage21Pipeline", "QwenImagePipeline", "SanaPipeline",
        "StableCascadeCombinedPipeline", "StableDiffusion3Pipeline", "StableDiffusionPipeline", "StableDiffusionXLPipeline",
        "WuerstchenCombinedPipeline", "ZImagePipeline",
    }
)  # fmt: skip

INSTALL = "`modelium runtime install --with ray`"
ENABLE = "ray.enabled is false in the configuration: with `ray: {enabled: true}` Ray Serve would serve it"


# Of each of these lists one package has to be there.
_NEEDS: dict[RayWay, tuple[tuple[str, ...], ...]] = {
    RayWay.SKLEARN: (("scikit-learn",),),
    RayWay.XGBOOST: (("xgboost", "xgboost-cpu"),),
    RayWay.LIGHTGBM: (("lightgbm",),),
    RayWay.CROSS_ENCODER: (("sentence-transformers",),),
    RayWay.DIFFUSERS: (("diffusers",),),
}
_BY_LIBRARY = {
    "ray-serve": RayWay.APP,
    "scikit-learn": RayWay.SKLEARN,
    "xgboost": RayWay.XGBOOST,
    "lightgbm": RayWay.LIGHTGBM,
    "diffusers": RayWay.DIFFUSERS,
}
NAMES = {
    RayWay.APP: "an application of Ray Serve",
    RayWay.ENGINE: "vLLM",
    RayWay.TASK: "transformers",
    RayWay.SKLEARN: "scikit-learn",
    RayWay.XGBOOST: "XGBoost",
    RayWay.LIGHTGBM: "LightGBM",
    RayWay.CROSS_ENCODER: "sentence-transformers' CrossEncoder",
    RayWay.DIFFUSERS: "diffusers",
}


def is_only_rays(profile: ModelProfile) -> bool:
    """Is it a model that no other runtime could ever serve?"""
    return profile.library in _BY_LIBRARY or not python_support.can_rank(profile)


def way_of(profile: ModelProfile, capabilities: Capabilities, *, by_hand: bool = False) -> RayWay | str:
    """How a replica serves ``profile``; or, in words, why none can.

    1. What only Ray serves goes to its application or adapter.
    2. A generator of text that vLLM serves goes to vLLM.
    3. Everything else that the python runtime serves runs the same code as there.
    """
    if profile.library in _BY_LIBRARY:  # 1
        return _BY_LIBRARY[profile.library]
    if profile.task is Task.TEXT_RANKING:
        return RayWay.CROSS_ENCODER
    if vllm.generates(profile) and not vllm.find_obstacle(profile, capabilities):  # 2
        return RayWay.ENGINE
    if profile.onnx is not None:
        return "an ONNX graph is served by onnxruntime, in Triton"
    return python_support.find_obstacle(profile, by_hand=by_hand) or RayWay.TASK  # 3


def find_obstacle(profile: ModelProfile, capabilities: Capabilities, by_hand: bool = False) -> str:
    """What keeps Ray Serve from serving ``profile``, the first of these: it is not enabled, there is no way to serve it, the
    model runtime has no Ray, or not the library that the way needs. "" for none."""
    if not capabilities.ray_enabled:
        return ENABLE
    way = way_of(profile, capabilities, by_hand=by_hand)
    if not isinstance(way, RayWay):
        return way
    if "ray" not in capabilities.backends:
        return capabilities.ray_missing or f"the model runtime has no Ray: {INSTALL}"
    for packages in _needs(way, profile):
        if capabilities.ray_packages is not None and capabilities.ray_packages.isdisjoint(packages):
            install = "`uv pip install diffusers` into it" if way is RayWay.DIFFUSERS else INSTALL
            return f"the model runtime has no {packages[0]}: {install}"
    return ""


def _needs(way: RayWay, profile: ModelProfile) -> tuple[tuple[str, ...], ...]:
    reader = {WeightFormat.SKOPS: (("skops",),), WeightFormat.JOBLIB: (("joblib",),)}.get(profile.weight_format, ())
    return (*_NEEDS.get(way, ()), *(reader if way is RayWay.SKLEARN else ()))


def _weight_bytes(profile: ModelProfile, device: DeviceKind) -> int:
    """The python runtime's code runs in it; a table's file unfolds to some three times its size."""
    return in_float32(profile, device) if profile.tabular is None else 3 * profile.weight_bytes


SUPPORT = Support(find_obstacle=find_obstacle, process_bytes=600 * MIB, weight_bytes=_weight_bytes, replicates=True)

"""The model runtime's vLLM: a runtime report enters, what this very vLLM serves leaves. Its sources are read, not imported."""

from __future__ import annotations

from modelium.brain.runtimes import vllm_architectures as recorded
from modelium.brain.runtimes.vllm_torchvision import WITH_TORCHVISION
from modelium.runtime_env.inspection import RuntimeReport, no_runtime
from modelium.runtime_env.vllm_registry import read_lora, read_registry, vllm_version
from modelium.values import Problem, VllmFacts

_INSTALL = "`modelium runtime install --with vllm`"
# Packages that teach vLLM a quantization which it had itself until 0.23 (gguf) and 0.27 (bitsandbytes).
_PLUGINS = {"vllm-gguf-plugin": "gguf", "vllm-bnb-plugin": "bitsandbytes"}


def read_vllm(report: RuntimeReport, *, for_cuda: bool = False) -> VllmFacts:
    """What the vLLM of this runtime serves: 20 ms where it is the recorded version, some seconds where it is another.
    ``for_cuda``: what it would serve on a machine with an NVIDIA GPU, where the installer takes the build for CUDA.
    """
    version = vllm_version(report.packages)
    if report.site_packages is None:
        return VllmFacts(missing=no_runtime(report, _INSTALL))
    if not version:
        where = report.directory.absolute()
        return VllmFacts(missing=Problem(f"vLLM is not in the model runtime ({where})", _INSTALL))
    package = report.site_packages / "vllm"
    registry = read_registry(package)
    if registry is None:  # written in another way: the recorded table answers, under its own version
        return VllmFacts()
    added = {word for name, word in _PLUGINS.items() if name in report.packages}
    has_torchvision = for_cuda or "torchvision" in report.packages  # vLLM's build for CUDA requires it
    unusable = frozenset[str]() if has_torchvision else WITH_TORCHVISION
    return VllmFacts(
        version=version,
        architectures=registry.generators - unusable,
        lora=recorded.LORA if version == recorded.VLLM_VERSION else read_lora(package, registry),
        quantizations=registry.quantizations | added,
    )

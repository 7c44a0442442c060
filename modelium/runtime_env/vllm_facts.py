"""The model runtime's vLLM: a runtime report enters, what this very vLLM serves leaves. Its sources are read, not imported."""

from __future__ import annotations

from modelium.brain.runtimes import vllm_architectures as recorded
from modelium.brain.runtimes.vllm_torchvision import WITH_TORCHVISION
from modelium.runtime_env.inspection import RuntimeReport
from modelium.runtime_env.vllm_registry import read_lora, read_registry, vllm_version
from modelium.values import Problem, VllmFacts

MISSING = Problem("vLLM is not in the model runtime", "`modelium runtime install --with vllm`")
# Packages that teach vLLM a quantization which it had itself until 0.23 (gguf) and 0.27 (bitsandbytes).
_PLUGINS = {"vllm-gguf-plugin": "gguf", "vllm-bnb-plugin": "bitsandbytes"}


def read_vllm(report: RuntimeReport) -> VllmFacts:
    """What the vLLM of this runtime serves: 20 ms where it is the recorded version, some seconds where it is another."""
    version = vllm_version(report.packages)
    if not version or report.site_packages is None:
        return VllmFacts(missing=MISSING)
    package = report.site_packages / "vllm"
    registry = read_registry(package)
    if registry is None:  # written in another way: the recorded table answers, under its own version
        return VllmFacts()
    added = {word for name, word in _PLUGINS.items() if name in report.packages}
    unusable = WITH_TORCHVISION if "torchvision" not in report.packages else frozenset[str]()
    return VllmFacts(
        version=version,
        architectures=registry.generators - unusable,
        lora=recorded.LORA if version == recorded.VLLM_VERSION else read_lora(package, registry),
        quantizations=registry.quantizations | added,
    )

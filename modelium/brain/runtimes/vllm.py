"""Whether vLLM serves a model: a profile and the server's capabilities enter, an obstacle in words leaves, "" for none.

By vLLM's own registry, never by words in an architecture's name: what the server's vLLM was found to have, else the recorded
table of the version that Modelium installs.
"""

from __future__ import annotations

from modelium.brain.runtimes import vllm_architectures as recorded
from modelium.brain.runtimes.support import Ending, Support, no_backend
from modelium.brain.runtimes.vllm_torchvision import WITH_TORCHVISION
from modelium.sizes import MIB
from modelium.values import AttentionKind, Capabilities, LanguageModel, ModelProfile, Runtime, WeightFormat

_RECORDED = recorded.TEXT | recorded.MULTIMODAL | recorded.TRANSFORMERS | recorded.TRANSFORMERS_MULTIMODAL
# Read from the kernels of vLLM 0.32 (its CPU platform refuses none by name): 4-bit integers and int8 run on any x86-64. fp8 and
# mxfp4 want AMX tiles, everything else a GPU.
_ON_HOST = frozenset({"awq", "auto_awq", "gptq", "auto_gptq", "compressed-tensors", "inc"})
_WITH_AMX = frozenset({"fp8", "mxfp4", "gpt_oss_mxfp4"})
# vllm/v1/attention/backends/cpu_attn.py of 0.32; MLA has kernels of its own.
_HEAD_SIZES_ON_HOST = frozenset({32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512})
_WITH_HEADS = (AttentionKind.FULL, AttentionKind.SLIDING, AttentionKind.CROSS)
_ALSO_CALLED = {"auto-round": "inc"}
# vLLM gave these away: the last version that had them itself, and the package that has them now.
_GIVEN_AWAY = {"gguf": ("0.23", "vllm-gguf-plugin"), "bitsandbytes": ("0.27", "vllm-bnb-plugin")}


def generates(profile: ModelProfile) -> bool:
    """A generator of text, whichever runtime may serve it."""
    return (profile.is_llm or profile.language is not None) and profile.task.row.generates


def takes_adapters(architecture: str, capabilities: Capabilities) -> bool:
    """Does vLLM take LoRA adapters for this architecture?"""
    return architecture in (capabilities.vllm_lora or recorded.LORA)


def name_vllm(capabilities: Capabilities) -> str:
    """``vLLM 0.32.0``; of a server that was not asked, what is known of vLLM at all."""
    return f"vLLM {capabilities.vllm_version or f'(as of {recorded.VLLM_VERSION})'}"


def find_obstacle(profile: ModelProfile, capabilities: Capabilities, by_hand: bool = False) -> str:
    """What keeps vLLM from serving ``profile``, the first of these:

    1. It generates no text, or its configuration lacks what the engine's memory is planned from.
    2. vLLM is not enabled, or not there.
    3. vLLM's registry lacks the architecture.
    4. vLLM does not read the quantization, or not on this machine.
    5. A GGUF file that vLLM cannot make a model of.
    6. Without a GPU: attention heads of a size that vLLM's kernel for processors does not have.

    Who chose vLLM ``by_hand`` may know better than the tables: only 1 and 2 hold then.
    """
    if not generates(profile):  # 1
        return f"vllm serves text-generating models, this is {profile.task}"
    if not capabilities.vllm_enabled:  # 2
        return "vllm.enabled is false in the configuration"
    if missing := no_backend(Runtime.VLLM, capabilities):
        return capabilities.vllm_missing or missing
    if profile.language is None:  # 1
        return "its config.json does not say what the memory of an engine is planned from (layers, heads, their size)"
    if by_hand:
        return ""
    return (
        _unknown_architecture(profile.architecture, capabilities)  # 3
        or _unread_quantization(profile, capabilities)  # 4
        or _lonely_gguf(profile, capabilities)  # 5
        or ("" if capabilities.gpu else _odd_heads(profile.language))  # 6
    )


def _unknown_architecture(architecture: str, capabilities: Capabilities) -> str:
    if architecture in (capabilities.vllm_architectures or _RECORDED):
        return ""
    if architecture in _RECORDED & WITH_TORCHVISION and capabilities.vllm_architectures:
        return f"{name_vllm(capabilities)} needs torchvision for {architecture}, and the model runtime has none"
    words = f"{name_vllm(capabilities)} has no {architecture}"
    if architecture in recorded.DROPPED:
        return f"{words} any more ({recorded.DROPPED[architecture]} was the last that had)"
    if architecture in recorded.PLUGINS:
        return f"{words}, it is in the package {recorded.PLUGINS[architecture]}"
    if architecture in recorded.POOLING:
        return f"{name_vllm(capabilities)} generates no text with {architecture}"
    return words


def _unread_quantization(profile: ModelProfile, capabilities: Capabilities) -> str:
    language = profile.language
    method = (language.quantization if language is not None else "") or profile.quantization or ""
    if not method:
        return ""
    # Which version an external Triton has is not known: what one of them reads may be tried.
    known = capabilities.vllm_quantizations or recorded.QUANTIZATIONS | _GIVEN_AWAY.keys()
    if method not in known:
        method = _ALSO_CALLED.get(method, method)
    if method not in known | _GIVEN_AWAY.keys():
        return f"{name_vllm(capabilities)} does not read {method} weights"
    if not capabilities.gpu and method not in _ON_HOST:
        if method in _WITH_AMX:
            return f"on a processor vLLM reads {method} weights with AMX only (`runtime: vllm` in models: tries it)"
        return f"vLLM reads {method} weights on a GPU only, and there is none here"
    if method not in known:
        last, package = _GIVEN_AWAY[method]
        words = f"{name_vllm(capabilities)} does not read {method} weights by itself, as it did until {last}"
        return f"{words}: that is in the package {package}, which is not in the model runtime"
    return ""


def _lonely_gguf(profile: ModelProfile, capabilities: Capabilities) -> str:
    """Since 0.24 the plugin wants the configuration and the tokenizer as files beside the GGUF file; before, vLLM took both
    from the file itself."""
    lonely = profile.weight_format is WeightFormat.GGUF and profile.library == "gguf"
    if not lonely or (not capabilities.vllm_version or _numbers(capabilities.vllm_version) < (0, 24)):
        return ""
    return "vLLM wants config.json and the tokenizer of its original model beside a GGUF file: drop a folder with all of them"


def _odd_heads(language: LanguageModel) -> str:
    sizes = {group.head_size for group in language.groups if group.kind in _WITH_HEADS}
    if odd := sorted(sizes - _HEAD_SIZES_ON_HOST):
        there = ", ".join(map(str, sorted(_HEAD_SIZES_ON_HOST)))
        return f"vLLM's attention on a processor has no heads of {odd[0]} elements (of {there})"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


# Where an engine is planned, its plan says what it takes.
SUPPORT = Support(
    find_obstacle=find_obstacle,
    process_bytes=3000 * MIB,
    weight_bytes=lambda profile, device: profile.weight_bytes,
    is_born=True,
    ending=Ending.TOLD,
    is_engine=True,
)

"""Which generator goes to vLLM: by its registry, by what it reads here, and with the reason when it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelium.brain.runtimes import vllm_architectures as recorded
from modelium.brain.runtimes.choice import choose_runtime
from modelium.brain.runtimes.vllm import takes_adapters
from modelium.values import Capabilities, ModelOverride, ModelProfile, Runtime, Task, WeightFormat
from tests.unit.brain.languages import FULL, group, language, llm

SPOKEN = language(group(FULL, 2, 4, 64))
LLAMA = llm("llama", 10**8, SPOKEN)
SEEING = replace(LLAMA, architecture="Idefics2ForConditionalGeneration", task=Task.IMAGE_TEXT_TO_TEXT)
SERVER = Capabilities(backends=frozenset({"python", "onnxruntime", "vllm"}))
ON_HOST = replace(SERVER, gpu=False)
NEWER = replace(
    SERVER,
    vllm_version="0.99.0",
    vllm_architectures=frozenset({"FooForCausalLM"}),
    vllm_lora=frozenset({"FooForCausalLM"}),
    vllm_quantizations=frozenset({"foo4"}),
)


def quantized(method: str) -> ModelProfile:
    return replace(LLAMA, quantization=method, language=replace(SPOKEN, quantization=method))


def gguf(library: str = "transformers") -> ModelProfile:
    return replace(quantized("gguf"), weight_format=WeightFormat.GGUF, library=library)


@pytest.mark.parametrize(
    ("model", "capabilities"),
    [
        (LLAMA, SERVER),
        (LLAMA, ON_HOST),
        (replace(LLAMA, architecture="Qwen2_5_VLForConditionalGeneration", task=Task.IMAGE_TEXT_TO_TEXT), SERVER),
        (replace(LLAMA, architecture="Olmo2ForCausalLM"), SERVER),  # through vLLM's transformers backend
        (replace(LLAMA, architecture="FooForCausalLM"), NEWER),
        (quantized("awq"), ON_HOST),
        (quantized("auto-round"), ON_HOST),
        (quantized("fp8"), SERVER),
        (gguf(), SERVER),  # of an external Triton nobody knows the version: it may be tried
        (gguf("gguf"), replace(SERVER, vllm_version="0.19.0", vllm_quantizations=frozenset({"gguf"}))),
    ],
)
def test_what_vllm_has_goes_to_vllm(model: ModelProfile, capabilities: Capabilities) -> None:
    choice = choose_runtime(model, capabilities)
    assert (choice.runtime, choice.rule) == (Runtime.VLLM, "runtime.3")
    assert model.architecture in choice.reason


@pytest.mark.parametrize(
    ("model", "capabilities", "reason"),
    [
        (llm("odd", 10**6, language(group(FULL, 2, 4, 16))), ON_HOST, "no heads of 16 elements"),
        (replace(LLAMA, architecture="FooForCausalLM"), SERVER, f"vLLM (as of {recorded.VLLM_VERSION}) has no FooForCausalLM"),
        (LLAMA, NEWER, "vLLM 0.99.0 has no LlamaForCausalLM"),
        (replace(LLAMA, architecture="MptForCausalLM"), SERVER, "any more (0.28.0 was the last that had)"),
        (
            replace(LLAMA, architecture="BartForConditionalGeneration", task=Task.SUMMARIZATION, is_llm=False),
            SERVER,
            "it is in the package bart-plugin",
        ),
        (
            replace(LLAMA, architecture="T5ForConditionalGeneration", task=Task.TRANSLATION, is_llm=False),
            SERVER,
            "has no T5ForConditionalGeneration",
        ),
        (SEEING, SERVER, "has no Idefics2ForConditionalGeneration"),
        (replace(LLAMA, language=None), SERVER, "what the memory of an engine is planned from"),
        (LLAMA, replace(SERVER, vllm_enabled=False), "vllm.enabled is false"),
        (LLAMA, Capabilities(vllm_missing="vLLM is not in the model runtime"), "not vllm: vLLM is not in the model runtime"),
    ],
)
def test_what_vllm_lacks_goes_to_python_with_the_reason(model: ModelProfile, capabilities: Capabilities, reason: str) -> None:
    choice = choose_runtime(model, capabilities)
    assert (choice.runtime, choice.rule) == (Runtime.PYTHON, "runtime.4")
    assert reason in choice.reason


@pytest.mark.parametrize(
    ("model", "capabilities", "reasons"),
    [
        (
            replace(LLAMA, architecture="FooForVision", task=Task.IMAGE_TEXT_TO_TEXT, library="vllm"),
            NEWER,
            ("has no FooForVision", "transformers does not know FooForVision"),
        ),
        (replace(SEEING, architecture="PI0ForConditionalGeneration"), SERVER, ("has no PI0For", "it generates no text")),
        (replace(SEEING, architecture="Kimi_K25ForConditionalGeneration"), SERVER, ("has no Kimi_K25", "torchvision")),
        (quantized("hqq"), SERVER, ("does not read hqq weights", "python runtime does not read hqq")),
        (quantized("bitsandbytes"), replace(NEWER, vllm_architectures=frozenset()), ("the package vllm-bnb-plugin",)),
        (quantized("fp8"), ON_HOST, ("with AMX only", "runtime: vllm")),
        (quantized("modelopt"), ON_HOST, ("on a GPU only",)),
        (gguf(), ON_HOST, ("reads gguf weights on a GPU only", "does not read GGUF files")),
        (
            gguf(),
            replace(SERVER, vllm_version="0.32.0", vllm_quantizations=recorded.QUANTIZATIONS),
            ("vLLM 0.32.0 does not read gguf", "vllm-gguf-plugin"),
        ),
        (
            gguf("gguf"),
            replace(SERVER, vllm_version="0.32.0", vllm_quantizations=frozenset({"gguf"})),
            ("config.json and the tokenizer",),
        ),
    ],
)
def test_what_nothing_serves_is_refused_with_every_reason(
    model: ModelProfile, capabilities: Capabilities, reasons: tuple[str, ...]
) -> None:
    choice = choose_runtime(model, capabilities)
    assert (choice.runtime, choice.rule) == (None, "runtime.6")
    assert all(reason in choice.reason for reason in reasons), choice.reason


def test_who_chooses_python_by_hand_gets_it_and_may_have_installed_what_is_missing() -> None:
    by_hand = ModelOverride(runtime=Runtime.PYTHON)
    for architecture in ("LlavaForConditionalGeneration", "Kimi_K25ForConditionalGeneration"):
        choice = choose_runtime(replace(SEEING, architecture=architecture), SERVER, by_hand)
        assert (choice.runtime, choice.rule) == (Runtime.PYTHON, "runtime.1")
    refused = choose_runtime(replace(SEEING, library="vllm"), SERVER, by_hand)
    assert refused.runtime is None and "transformers does not know Idefics2" in refused.reason


def test_who_chooses_vllm_by_hand_may_know_better_than_the_tables() -> None:
    by_hand = ModelOverride(runtime=Runtime.VLLM)
    assert choose_runtime(replace(LLAMA, architecture="FooForCausalLM"), SERVER, by_hand).runtime is Runtime.VLLM
    assert choose_runtime(quantized("fp8"), ON_HOST, by_hand).runtime is Runtime.VLLM
    refused = choose_runtime(LLAMA, Capabilities(), by_hand)
    assert refused.runtime is None and "no vllm backend" in refused.reason
    bert = replace(LLAMA, task=Task.FILL_MASK, language=None, is_llm=False)
    assert "serves text-generating models" in choose_runtime(bert, SERVER, by_hand).reason


def test_a_language_model_may_be_given_to_python_by_hand() -> None:
    choice = choose_runtime(LLAMA, SERVER, ModelOverride(runtime=Runtime.PYTHON))
    assert (choice.runtime, choice.rule) == (Runtime.PYTHON, "runtime.1")


def test_adapters_by_the_class_and_the_version() -> None:
    assert takes_adapters("LlamaForCausalLM", SERVER) and not takes_adapters("GPT2LMHeadModel", SERVER)
    assert takes_adapters("FooForCausalLM", NEWER) and not takes_adapters("LlamaForCausalLM", NEWER)

"""One configuration of every architecture in transformers' causal-LM and image-text mappings: its class's own defaults.

The classes need no torch. ``to_json_string`` writes what a user's ``config.json`` would hold: a nested config leaves out what
is its class's default, and that must be found again.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelium.analyzers.language import read_language_model
from modelium.brain.engine.plan import TooBig, plan_engine
from modelium.brain.runtimes.choice import choose_runtime
from modelium.brain.runtimes.python import NEEDS_TORCHVISION, OTHERWISE
from modelium.values import (
    AttentionKind,
    Capabilities,
    Device,
    DeviceKind,
    EnginePlan,
    LanguageModel,
    ModelProfile,
    Runtime,
    Task,
)
from tests.unit.analyzers.folders import drop, look

MAPPINGS = ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT")
GENERATORS = {Task.TEXT_GENERATION, Task.IMAGE_TEXT_TO_TEXT, Task.TEXT2TEXT_GENERATION, Task.TRANSLATION, Task.SUMMARIZATION}
SIDE_FILES = {
    "preprocessor_config.json": json.dumps({"image_processor_type": "X", "image_mean": [0.5], "feature_extractor_type": "X"}),
    "tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"}),
}
# Made of parts that somebody has to choose. MusicGen generates sound.
NO_DEFAULT = {"musicgen", "musicgen_melody", "vision-encoder-decoder"}
# Listed under images although they take none.
NO_IMAGES = {"evolla", "mistral4"}
# Listed under images, but what they write about is none, or only torchvision can prepare it: nothing serves them, with reasons.
NOBODY = {
    "evolla": "it reads proteins",
    "instructblipvideo": "it reads videos",
    "pi0": "it generates no text",
    "udop": "words with their places on a page",
    "kimi_k25": "torchvision",
    "perception_lm": "torchvision",
    "phi4_multimodal": "torchvision",
    "pp_formulanet": "torchvision",
}
# Its class is listed under another task too, which is the better word for it.
OTHER_TASK = {"xlm": Task.FILL_MASK}


@dataclass(frozen=True, slots=True)
class Example:
    name: str
    written: Mapping[str, Any]  # what differs from the class
    whole: Mapping[str, Any]


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return list(_examples())


def _examples() -> Iterator[Example]:
    logger = importlib.import_module("transformers.utils.logging")
    logger.set_verbosity_error()
    modeling_auto = importlib.import_module("transformers.models.auto.modeling_auto")
    config_classes = importlib.import_module("transformers").CONFIG_MAPPING
    for family in MAPPINGS:
        for model_type, classes in getattr(modeling_auto, f"MODEL_FOR_{family}_MAPPING_NAMES").items():
            if model_type in NO_DEFAULT:
                continue
            made = config_classes[model_type]()
            named = {"architectures": [classes if isinstance(classes, str) else classes[0]]}
            written = {**json.loads(made.to_json_string(use_diff=True)), **named}
            whole = {**json.loads(made.to_json_string(use_diff=False)), **named}
            yield Example(f"{family}/{model_type}", written, whole)
    parts = {
        "encoder": config_classes["vit"]().to_dict(),
        "decoder": config_classes["gpt2"](add_cross_attention=True).to_dict(),
    }
    together = {"model_type": "vision-encoder-decoder", "is_encoder_decoder": True, **parts}
    written = {**together, "architectures": ["VisionEncoderDecoderModel"]}
    yield Example("IMAGE_TEXT_TO_TEXT/vision-encoder-decoder", written, written)


def read(config: Mapping[str, Any]) -> LanguageModel | None:
    return read_language_model(config, parameters=0, dtype="bfloat16", tokenizer={}, generation={}, has_chat_template=False)


def test_a_file_that_leaves_out_defaults_says_as_much_as_one_that_does_not(examples: list[Example]) -> None:
    different = {e.name: (read(e.written), read(e.whole)) for e in examples if read(e.written) != read(e.whole)}
    assert different == {}


def test_the_facts_of_every_architecture_make_sense(examples: list[Example]) -> None:
    for example in examples:
        found = read(example.written)
        assert found is not None, example.name
        assert 0 < found.layers <= 200 and 0 < found.hidden_size <= 32_768, example.name
        assert 32 <= found.vocabulary < 2**19, (example.name, found.vocabulary)
        attention = [group for group in found.groups if group.kind in (AttentionKind.FULL, AttentionKind.SLIDING)]
        assert all(group.kv_heads > 0 and 0 < group.head_size <= 1024 for group in attention), example.name
        assert all((group.window or 0) > 0 for group in attention if group.kind is AttentionKind.SLIDING), example.name
        states = [group for group in found.groups if group.kind is AttentionKind.RECURRENT]
        assert all(1024 < group.state_bytes < 64 * 2**20 for group in states), example.name
        others = (AttentionKind.CROSS, AttentionKind.RECURRENT)  # beside attention; so are compressed vectors
        kept = [group.layers for group in found.groups if group.kind not in others and group.compression == 1]
        assert sum(kept) <= found.layers, example.name
        assert found.attention != "none" or not attention, example.name
        if found.experts:
            assert 0 < found.experts_per_token <= found.experts, example.name


def test_every_architecture_is_planned_for_vllm_or_for_python_with_the_reason(examples: list[Example], tmp_path: Path) -> None:
    able = Capabilities(backends=frozenset({"python", "vllm", "onnxruntime"}))
    size = 141 * 10**9
    gpu = Device(id="cuda:0", kind=DeviceKind.CUDA, index=0, name="H200", total_bytes=size, used_bytes=0, budget_bytes=size)
    chosen: dict[Runtime | None, int] = {}
    for number, example in enumerate(examples):
        found = look(drop(tmp_path / f"m{number}", example.written, SIDE_FILES))
        assert isinstance(found, ModelProfile), (example.name, found)
        expected = OTHER_TASK.get(example.name.split("/")[1])
        if expected is not None:
            assert found.task is expected and found.language is None
            continue
        assert found.task in GENERATORS and found.language is not None, (example.name, found.task)
        assert found.language.chat_template
        if example.name.startswith("IMAGE"):
            takes_images = "image" in found.language.modalities or example.name.split("/")[1] in NO_IMAGES
            assert found.task is Task.IMAGE_TEXT_TO_TEXT and takes_images, example.name
        choice = choose_runtime(found, able)
        chosen[choice.runtime] = chosen.get(choice.runtime, 0) + 1
        nobody = NOBODY.get(example.name.split("/")[1])
        if choice.runtime is Runtime.VLLM:
            assert found.architecture in choice.reason, example.name
            plan = plan_engine(found, [gpu])
            assert isinstance(plan, EnginePlan | TooBig), example.name
            assert plan.reason if isinstance(plan, TooBig) else plan.kv_tokens > 0, example.name
        elif nobody is not None:
            assert choice.runtime is None and nobody in choice.reason, (example.name, choice.reason)
        else:
            assert choice.runtime is Runtime.PYTHON, (example.name, choice.reason)
            assert "not vllm: vLLM" in choice.reason and found.architecture in choice.reason, (example.name, choice.reason)
    assert chosen[Runtime.VLLM] > 100 and chosen[Runtime.PYTHON] > 80 and chosen[None] == len(NOBODY)


def test_whose_images_only_torchvision_prepares_is_known() -> None:
    modeling_auto = importlib.import_module("transformers.models.auto.modeling_auto")
    image_processing_auto = importlib.import_module("transformers.models.auto.image_processing_auto")
    without = {
        classes
        for model_type, classes in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items()
        if image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type, {"pil": ""}).keys() == {"torchvision"}
    }
    assert without - OTHERWISE.keys() == NEEDS_TORCHVISION - {"Phi4MultimodalForCausalLM"}  # listed under text only

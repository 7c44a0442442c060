"""The facts that are read from a config.json, against what vLLM reads from the same file: no weights, no engine (10 s)."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from modelium.analyzers.language import read_language_model
from modelium.values import LanguageModel
from tests.models import RUNTIME
from tests.patience import PATIENCE_S
from tests.unit.analyzers import language_configs

pytestmark = pytest.mark.server

VIEW = "tests/models/language/vllm_view.py"
NOT_IN_TRANSFORMERS = {"chatglm", "openelm"}
# What the two see differently, and why ours is what the memory plan needs.
DIFFERENT = {
    "axk2": {"head_size"},  # what its cache keeps is not hidden_size / heads
    "bart": {"layers"},  # vLLM counts the encoder's
    "blenderbot": {"layers"},
    "gemma4": {"head_size"},  # vLLM: the wider of its two kinds of heads; here each group has its own
    "gemma4_text": {"head_size"},
    "gemma4_unified": {"head_size"},
    "gemma4_unified_text": {"head_size"},
    "longcat_flash": {"layers"},  # two attentions, and two caches, in each of what vLLM calls a layer
    "dbrx": {"experts"},  # under ffn_config, where vLLM does not look for the count
    "hunyuan_v1_moe": {"experts"},  # a mixture of one
    "minicpm3": {"head_size"},
    "youtu": {"head_size"},
    "deepseek_v4": {"context"},
    "reformer": {"head_size"},
    "xlnet": {"context"},
    "phi3": {"context"},  # vLLM takes LongRoPE's short length unless it is told the long one, which it accepts
    "phimoe": {"context"},
}
DIFFERENT_WHOLLY = {"blt", "gemma4_assistant", "gemma4_unified_assistant"}  # what vLLM finds are zeros


def read(config: Mapping[str, Any]) -> LanguageModel:
    found = read_language_model(config, parameters=0, dtype="bfloat16", tokenizer={}, generation={}, has_chat_template=False)
    assert found is not None
    return found


def test_vllm_reads_the_same_facts_from_the_same_file() -> None:
    configs = dict(_configs())
    answer = subprocess.run(
        [RUNTIME / "bin" / "python", "-B", VIEW],
        input=json.dumps(configs),
        capture_output=True,
        text=True,
        check=True,
        timeout=2 * PATIENCE_S,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"},
    )
    seen = json.loads(answer.stdout.splitlines()[-1])
    wrong, equal = {}, 0
    for name, config in configs.items():
        model_type, theirs, ours = config["model_type"], seen[name], _view(read(config))
        if "error" in theirs or model_type in DIFFERENT_WHOLLY:
            continue
        different = {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]}
        if set(different) - DIFFERENT.get(model_type, set()):
            wrong[name] = different
        equal += not different
    assert wrong == {}
    assert equal > 150


def _view(found: LanguageModel) -> dict[str, object]:
    return {
        "layers": found.layers,
        "heads": found.heads,
        "kv_heads": found.kv_heads,
        "head_size": found.head_size,
        "vocabulary": found.vocabulary,
        "hidden_size": found.hidden_size,
        "experts": found.experts,
        "quantization": found.quantization,
        "context": found.context_length if found.context_length is not None else 10**9,
    }


def _configs() -> Iterator[tuple[str, dict[str, Any]]]:
    """The well-known ones, and the default of every class in the causal-LM mapping."""
    for name, value in vars(language_configs).items():
        if name.isupper() and value["model_type"] not in NOT_IN_TRANSFORMERS:
            yield name, value
    importlib.import_module("transformers.utils.logging").set_verbosity_error()
    modeling_auto = importlib.import_module("transformers.models.auto.modeling_auto")
    classes = importlib.import_module("transformers").CONFIG_MAPPING
    for model_type, architecture in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        if not model_type.startswith("musicgen"):
            written = json.loads(classes[model_type]().to_json_string(use_diff=True))
            yield model_type, {**written, "architectures": [architecture]}

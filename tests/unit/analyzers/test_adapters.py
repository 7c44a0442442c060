"""LoRA adapter folders: what they are for, when they are whole, and what vLLM cannot do with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelium.values import AdapterProfile, Analysis
from tests.unit.analyzers.folders import HOUR_S, drop, incomplete, lay, look, profile, safetensors, torch_zip, unsupported

CONFIG: dict[str, object] = {
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 16,
    "base_model_name_or_path": "org/llama",
    "target_modules": ["q_proj", "v_proj"],
    "bias": "none",
    "modules_to_save": None,
}
WEIGHTS = safetensors({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": ("F32", [8, 16], 512)})


def adapter(folder: Path, changes: dict[str, object] | None = None, weights: bytes | None = WEIGHTS) -> Path:
    files: dict[str, str | bytes] = {"adapter_config.json": json.dumps({**CONFIG, **(changes or {})})}
    if weights is not None:
        files["adapter_model.safetensors"] = weights
    return lay(folder, files)


def found(analysis: Analysis) -> AdapterProfile:
    assert isinstance(analysis, AdapterProfile), analysis
    return analysis


def test_an_adapter_and_what_it_is_for(tmp_path: Path) -> None:
    seen = found(look(adapter(tmp_path / "poet")))
    assert (seen.name, seen.adapter.name, seen.adapter.base, seen.adapter.rank) == ("poet", "poet", "org/llama", 8)
    assert (seen.adapter.weight_bytes, seen.adapter.target_modules) == (512, ("q_proj", "v_proj"))
    assert seen.fingerprint == seen.adapter.fingerprint != ""


def test_the_rank_is_the_largest_of_any_module(tmp_path: Path) -> None:
    seen = found(look(adapter(tmp_path / "poet", {"rank_pattern": {"q_proj": 32}, "target_modules": "all-linear"})))
    assert (seen.adapter.rank, seen.adapter.target_modules) == (32, ("all-linear",))


def test_a_folder_may_carry_its_bases_name(tmp_path: Path) -> None:
    assert found(look(adapter(tmp_path / "llama:poet"))).adapter.name == "poet"


def test_a_copy_under_way_is_waited_for(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "poet", weights=None)
    assert "adapter_model.safetensors: not there yet" in incomplete(folder).why
    assert "copy adapter_model.safetensors" in unsupported(folder, age_s=HOUR_S).hint
    assert "of " in incomplete(adapter(folder, weights=WEIGHTS[:-100])).why
    assert found(look(adapter(folder)))


def test_weights_may_be_a_torch_file(tmp_path: Path) -> None:
    folder = lay(adapter(tmp_path / "poet", weights=None), {"adapter_model.bin": torch_zip()})
    assert "has no LoRA tensors" in unsupported(folder).why  # it was read: its tensors have other names


def test_a_merged_model_with_the_adapters_config_is_a_model(tmp_path: Path) -> None:
    folder = lay(drop(tmp_path / "m"), {"adapter_config.json": json.dumps(CONFIG)})
    assert profile(folder).name == "m"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"peft_type": "IA3"}, "IA3 adapter; only LoRA"),
        ({"peft_type": None}, "does not say"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"lora_bias": True}, "bias"),
        ({"modules_to_save": ["lm_head", "embed_tokens"]}, "whole modules (lm_head"),
        ({"init_lora_weights": "pissa"}, "began with pissa"),
        ({"layer_replication": [[0, 4]]}, "replicated layers"),
        ({"r": 1024}, "up to 512"),
        ({"r": None}, "no rank"),
    ],
)
def test_what_vllm_does_not_serve_is_refused_with_its_reason(tmp_path: Path, changes: dict[str, object], word: str) -> None:
    refusal = unsupported(adapter(tmp_path / "poet", changes))
    assert word in refusal.why and refusal.hint


def test_harmless_starts_are_no_obstacle(tmp_path: Path) -> None:
    for number, start in enumerate((True, "gaussian", "eva")):
        assert found(look(adapter(tmp_path / f"a{number}", {"init_lora_weights": start})))


def test_a_changed_adapter_is_another_revision(tmp_path: Path) -> None:
    before = found(look(adapter(tmp_path / "poet"))).fingerprint
    assert found(look(adapter(tmp_path / "poet", {"lora_alpha": 32}))).fingerprint != before

"""The plans of published models: what they take and give beside an expert's, who has the whole device for one model."""

from __future__ import annotations

import pytest

from modelium.brain.engine.devices import place_engine
from modelium.brain.engine.kv_cache import kv_bytes
from modelium.sizes import GIB
from modelium.values import EnginePlan, ModelOverride, ModelProfile, Policies
from tests.published import analysis_of
from tests.unit.brain.languages import accelerator

# Plain, sparse and hybrid ones, with one head for keys and many, of 0.1 to 120 billion parameters.
MODELS = (
    "DeepSeek-V2-Lite",
    "falcon-7b",
    "gemma-2-2b",
    "gemma-3-4b-it",
    "gpt-oss-120b",
    "gpt-oss-20b",
    "gpt2",
    "Llama-2-7b-hf",
    "Llama-3.1-8B",
    "mamba-2.8b-hf",
    "Mistral-7B-v0.3",
    "opt-125m",
    "Phi-3.5-mini-instruct",
    "Qwen2-VL-7B-Instruct",
    "Qwen2.5-7B-Instruct-AWQ",
    "Qwen3-0.6B",
    "Qwen3-30B-A3B",
    "Qwen3-8B",
    "SmolLM2-135M",
)


def planned(name: str, gib: int) -> EnginePlan:
    profile = analysis_of(name)
    assert isinstance(profile, ModelProfile)
    found = place_engine(profile, [accelerator(gib=gib)], ModelOverride(), Policies())
    assert found, f"{name} does not fit {gib} GiB"
    assert found[0].engine is not None
    return found[0].engine


@pytest.mark.parametrize("name", MODELS)
def test_no_plan_is_an_order_slower_or_larger_than_an_experts(name: str) -> None:
    plan, profile = planned(name, 80), analysis_of(name)
    assert isinstance(profile, ModelProfile) and profile.language is not None
    tokens = min(2048, plan.max_model_len)
    typical = kv_bytes(profile.language, tokens=tokens, sequences=1, kv_dtype_bytes=2, in_flight_tokens=16_384)
    rest = plan.total_bytes - plan.kv_bytes
    mine = max(1, min(plan.max_num_seqs, plan.kv_bytes // typical))
    experts = max(1, min(256, (72 * GIB - rest) // typical))

    def speed(sequences: int) -> float:
        return sequences / (plan.weight_bytes + 2 * GIB + sequences * typical)

    assert speed(mine) > speed(experts) / 3, f"{mine} sequences, {experts} would fit"
    need = rest + max(plan.max_model_len * plan.kv_bytes_per_token, 32 * typical)
    assert plan.total_bytes < 3 * need + GIB, "what one long or 32 typical requests need"
    assert plan.max_num_seqs >= 32


@pytest.mark.parametrize(
    "name",
    ["Llama-3.1-8B", "Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "Qwen3-8B", "Phi-3.5-mini-instruct", "Qwen3-VL-8B-Instruct"],
)
def test_the_commonest_models_run_on_the_commonest_card(name: str) -> None:
    plan = planned(name, 24)
    assert plan.max_model_len >= 16_384
    assert plan.engine_args["enforce_eager"] is False


def test_gpt_oss_120b_fits_one_card_of_80_gib() -> None:
    plan = planned("gpt-oss-120b", 80)
    assert plan.max_model_len >= 65_536 and plan.devices == ("cuda:0",)


def test_a_small_model_leaves_most_of_a_card_to_others() -> None:
    assert planned("Qwen3-0.6B", 24).total_bytes < 0.65 * 24 * GIB
    assert planned("gpt2", 24).total_bytes < 0.2 * 24 * GIB

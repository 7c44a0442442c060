"""A config.json's facts: those of well-known models, quantizations, lengths, and whatever somebody may write into one."""

from __future__ import annotations

import copy
import json
import tracemalloc
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelium.analyzers.language import read_language_model
from modelium.brain.engine.kv_cache import kv_bytes, kv_bytes_per_token
from modelium.values import AttentionKind, LanguageModel, LayerGroup, Task
from tests.unit.analyzers import language_configs as known
from tests.unit.analyzers.folders import drop, profile

FULL, SLIDING, LATENT = AttentionKind.FULL, AttentionKind.SLIDING, AttentionKind.LATENT
RECURRENT, CROSS, NONE = AttentionKind.RECURRENT, AttentionKind.CROSS, AttentionKind.NONE


def find(config: Mapping[str, Any], *, parameters: int = 0, dtype: str = "float32", **more: Any) -> LanguageModel | None:
    sides: dict[str, Any] = {"tokenizer": {}, "generation": {}, "has_chat_template": False, **more}
    return read_language_model(config, parameters=parameters, dtype=dtype, **sides)


def read(config: Mapping[str, Any], *, parameters: int = 0, dtype: str = "float32", **more: Any) -> LanguageModel:
    found = find(config, parameters=parameters, dtype=dtype, **more)
    assert found is not None
    return found


def full_token_bytes(model: LanguageModel) -> int:
    """What one more token costs in layers that keep all of them, in 2 bytes an element."""
    keys_and_values = (group.layers * group.kv_heads * 2 * group.head_size for group in model.groups if group.kind is FULL)
    latents = (group.layers * group.latent_width for group in model.groups if group.kind is LATENT)
    return 2 * (sum(keys_and_values) + sum(latents))


# -- well-known models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "shape", "attention", "context", "token_bytes"),
    [  # shape: layers, hidden, heads, KV heads, head size, vocabulary
        (known.LLAMA_31_8B, (32, 4096, 32, 8, 128, 128256), "GQA", 131072, 131072),
        (known.MISTRAL_7B_V01, (32, 4096, 32, 8, 128, 32000), "GQA", 32768, 0),
        (known.MISTRAL_7B_V03, (32, 4096, 32, 8, 128, 32768), "GQA", 32768, 131072),
        (known.GEMMA_2_9B, (42, 3584, 16, 8, 256, 256000), "GQA", 8192, 21 * 8192),
        (known.GEMMA_3_4B, (34, 2560, 8, 4, 256, 262208), "GQA", 131072, 5 * 4096),
        (known.QWEN_25_7B, (28, 3584, 28, 4, 128, 152064), "GQA", 32768, 57344),
        (known.QWEN_3_30B_A3B, (48, 2048, 32, 4, 128, 151936), "GQA", 40960, 98304),
        (known.MIXTRAL_8X7B, (32, 4096, 32, 8, 128, 32000), "GQA", 32768, 131072),
        (known.DEEPSEEK_V3, (61, 7168, 128, 1, 576, 129280), "MLA", 163840, 61 * 576 * 2),
        (known.GPT_OSS_20B, (24, 2880, 64, 8, 64, 201088), "GQA", 131072, 24576),
        (known.MAMBA_130M, (24, 768, 0, 0, 0, 50280), "none", None, 0),
        (known.JAMBA, (32, 4096, 32, 8, 128, 65536), "GQA", 262144, 16384),
        (known.FALCON_7B, (32, 4544, 71, 1, 64, 65024), "MQA", 2048, 8192),
        (known.FALCON_40B, (60, 8192, 128, 8, 64, 65024), "GQA", 2048, 122880),
        (known.GPT2, (12, 768, 12, 12, 64, 50257), "MHA", 1024, 36864),
        (known.GPT_NEOX_20B, (44, 6144, 64, 64, 96, 50432), "MHA", 2048, 1081344),
        (known.OPT_125M, (12, 768, 12, 12, 64, 50272), "MHA", 2048, 36864),
        (known.PHI_3_MINI_128K, (32, 3072, 32, 32, 96, 32064), "MHA", 131072, 393216),
        (known.LLAMA_4_SCOUT, (48, 5120, 40, 8, 128, 202048), "GQA", 10485760, 49152),
        (known.QWEN_2_VL_7B, (28, 3584, 28, 4, 128, 152064), "GQA", 32768, 57344),
        (known.LLAVA_15_7B, (32, 4096, 32, 32, 128, 32064), "MHA", 4096, 524288),
        (known.CHATGLM_3, (28, 4096, 32, 2, 128, 65024), "GQA", 8192, 28672),
        (known.OPENELM, (4, 1280, 20, 5, 64, 32000), "GQA", 2048, 15 * 256),
        (known.BART_LARGE, (12, 1024, 16, 16, 64, 50265), "MHA", 1024, 49152),
    ],
)
def test_well_known_models(
    config: known.Config, shape: tuple[int, ...], attention: str, context: int | None, token_bytes: int
) -> None:
    found = read(config)
    assert (found.layers, found.hidden_size, found.heads, found.kv_heads, found.head_size, found.vocabulary) == shape
    assert (found.attention, found.context_length) == (attention, context)
    assert full_token_bytes(found) == token_bytes


def _kept(config: Mapping[str, Any]) -> list[tuple[AttentionKind, int, int | None]]:
    return [(group.kind, group.layers, group.window) for group in read(config).groups]


def test_windows_are_found_layer_by_layer() -> None:
    assert _kept(known.MISTRAL_7B_V01) == [(SLIDING, 32, 4096)]
    assert _kept(known.GEMMA_2_9B) == [(SLIDING, 21, 4096), (FULL, 21, None)]
    assert _kept(known.GEMMA_3_4B) == [(SLIDING, 29, 1024), (FULL, 5, None)]
    assert _kept(known.GPT_OSS_20B) == [(SLIDING, 12, 128), (FULL, 12, None)]
    assert _kept(known.LLAMA_4_SCOUT) == [(SLIDING, 36, 8192), (FULL, 12, None)]  # chunks
    assert _kept(known.PHI_3_MINI_128K) == [(FULL, 32, None)]  # a window longer than its context
    assert _kept(known.QWEN_25_7B) == [(FULL, 28, None)]
    windowed = {**known.QWEN_25_7B, "use_sliding_window": True, "max_window_layers": 20, "sliding_window": 4096}
    assert _kept(windowed) == [(FULL, 20, None), (SLIDING, 8, 4096)]
    letters = {**known.MISTRAL_7B_V01, "model_type": "exaone4", "sliding_window_pattern": "LLLG"}
    assert _kept(letters) == [(SLIDING, 24, 4096), (FULL, 8, None)]
    assert _kept({**known.GPT_OSS_20B, "layer_types": None}) == [(SLIDING, 12, 128), (FULL, 12, None)]


def test_a_pattern_that_is_repeated_ends_with_the_layers() -> None:
    neo = {"model_type": "gpt_neo", "hidden_size": 64, "num_layers": 1000, "num_heads": 4, "vocab_size": 10, "window_size": 8}
    assert _kept({**neo, "attention_types": [[["global", "local"], 500]]}) == [(FULL, 500, None), (SLIDING, 500, 8)]
    endless = {**neo, "attention_types": [[["global", "local"] * 5000, 1000]] * 10 + [[[], 1000]]}
    tracemalloc.start()
    assert _kept(endless) == [(FULL, 500, None), (SLIDING, 500, 8)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_what_is_not_attention_has_a_state_of_its_own() -> None:
    (mamba,) = read(known.MAMBA_130M).groups
    elements = 1536 * 3 + 1536 * 16
    assert mamba == LayerGroup(kind=RECURRENT, layers=24, state_bytes=2 * elements, state_elements=elements)
    jamba = read(known.JAMBA).groups
    assert [(group.kind, group.layers, group.state_bytes) for group in jamba] == [(RECURRENT, 28, 311_296), (FULL, 4, 0)]
    hybrid = {**known.LLAMA_31_8B, "model_type": "nemotron_h", "hybrid_override_pattern": "M-M*-E", "ssm_state_size": 128}
    hybrid |= {"mamba_num_heads": 128, "mamba_head_dim": 64, "n_groups": 8, "conv_kernel": 4, "rope_scaling": None}
    found = [(group.kind, group.layers, group.state_bytes) for group in read(hybrid).groups]
    assert found == [(RECURRENT, 2, 4_255_744), (NONE, 3, 0), (FULL, 1, 0)]  # its matrices are float32


def test_an_encoder_decoder_looks_at_its_encoder_too() -> None:
    found = read(known.BART_LARGE)
    assert found.encoder_decoder
    assert [(group.kind, group.layers) for group in found.groups] == [(FULL, 12), (CROSS, 12)]


def test_a_sparse_attention_keeps_its_indexer_s_keys_too() -> None:
    sparse = {**known.DEEPSEEK_V3, "model_type": "deepseek_v32", "index_head_dim": 128}
    assert [(group.layers, group.latent_width) for group in read(known.DEEPSEEK_V3).groups] == [(61, 576)]
    assert [(group.layers, group.latent_width) for group in read(sparse).groups] == [(61, 576 + 66)]
    full = {**known.DEEPSEEK_V3, "model_type": "minicpm3"}  # low-rank weights, full cache, its values as wide as its keys
    assert [(g.kind, g.kv_heads, g.head_size, g.value_head_size) for g in read(full).groups] == [(FULL, 128, 192, 0)]


def test_layers_that_share_the_cache_of_others_keep_nothing() -> None:
    shared = {"model_type": "gemma3n_text", "num_hidden_layers": 35, "num_kv_shared_layers": 15, "sliding_window": 512}
    assert [(kind, layers) for kind, layers, _ in _kept(shared)] == [(SLIDING, 16), (FULL, 4), (NONE, 15)]


def test_single_layers_may_have_heads_of_their_own() -> None:
    gemma = {"model_type": "gemma4_text", "num_hidden_layers": 6, "head_dim": 256, "num_key_value_heads": 4}
    as_published = {**gemma, "global_head_dim": 512, "num_global_key_value_heads": 2, "attention_k_eq_v": True}
    rewritten = {**gemma, "per_layer_config": {"05": {"head_dim": 512, "num_key_value_heads": 2}, "x": {}, "9": None}}
    for config in (as_published, rewritten):
        found = [(group.kind, group.layers, group.kv_heads, group.head_size) for group in read(config).groups]
        assert found == [(SLIDING, 5, 4, 256), (FULL, 1, 2, 512)]


def test_searched_architectures_have_layers_without_attention() -> None:
    blocks = [{"attention": {"n_heads_in_group": group, "no_op": group is None}} for group in (8, None, 16, None)]
    config = {**known.LLAMA_31_8B, "model_type": "nemotron-nas", "num_hidden_layers": 4, "block_configs": blocks}
    assert [(g.kind, g.layers, g.kv_heads) for g in read(config).groups] == [(FULL, 1, 4), (NONE, 2, 0), (FULL, 1, 2)]


@pytest.mark.parametrize(
    ("config", "parameters", "experts", "active"),
    [
        (known.MIXTRAL_8X7B, 46_702_792_704, (8, 2), 12_879_925_248),
        (known.QWEN_3_30B_A3B, 30_532_122_624, (128, 8), 3_353_032_704),
        (known.DEEPSEEK_V3, 671_026_419_200, (256, 8), 37_552_297_472),
        (known.LLAMA_31_8B, 8_030_261_248, (0, 0), 8_030_261_248),
        (known.MIXTRAL_8X7B, 0, (8, 2), 0),  # nobody has read the weights
        (known.GPT_OSS_20B, 20_914_757_184, (32, 4), 4_193_246_784),
    ],
)
def test_active_parameters_are_the_total_less_what_a_token_does_not_visit(
    config: known.Config, parameters: int, experts: tuple[int, int], active: int
) -> None:
    found = read(config, parameters=parameters)
    assert (found.experts, found.experts_per_token, found.active_parameters) == (*experts, active)


def test_modalities_templates_and_defaults() -> None:
    assert read(known.LLAMA_31_8B).modalities == ()
    assert read(known.LLAVA_15_7B).modalities == ("image",)
    assert read(known.QWEN_2_VL_7B).modalities == ("image", "video")
    assert read({"model_type": "qwen2_audio"}).modalities == ("audio",)
    assert not read(known.GPT2).chat_template
    assert read(known.GPT2, tokenizer={"chat_template": "{{ messages }}"}).chat_template
    assert read(known.GPT2, has_chat_template=True).chat_template
    generation = {"temperature": 0.6, "top_p": 0.9, "top_k": None, "do_sample": True, "eos_token_id": [1, 2], "min_p": "a"}
    assert read(known.GPT2, generation=generation).generation_defaults == {"temperature": 0.6, "top_p": 0.9}
    assert read({**known.GPT2, "repetition_penalty": 1.1}).generation_defaults == {"repetition_penalty": 1.1}
    assert read(known.GPT2).tied_embeddings and not read(known.LLAMA_31_8B).tied_embeddings
    assert read(known.GEMMA_3_4B).tied_embeddings


# -- lengths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rope", "length", "words"),
    [
        (None, 4096, ""),
        ({"type": "linear", "factor": 4.0}, 16384, "linear ×4"),
        ({"rope_type": "dynamic", "factor": 2}, 8192, "dynamic ×2"),
        ({"rope_type": "llama3", "factor": 8, "original_max_position_embeddings": 512}, 4096, "llama3 ×8 of 512"),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}, 4096, "yarn ×4 of 1024"),
        ({"rope_type": "default", "rope_theta": 1e6}, 4096, ""),
        ({"type": "mrope", "mrope_section": [1, 2]}, 4096, ""),
        ({"full_attention": {"type": "linear", "factor": 2.0}, "sliding_attention": {"type": "default"}}, 8192, "linear ×2"),
        ({"type": "linear", "factor": None}, 4096, "linear"),
        ({"type": "linear", "factor": "8"}, 4096, "linear"),
        ({"type": "linear", "factor": -1}, 4096, "linear"),
        ("yarn", 4096, ""),
    ],
)
def test_what_scaling_does_to_the_length(rope: object, length: int, words: str) -> None:
    for key in ("rope_scaling", "rope_parameters"):
        found = read({**known.LLAMA_31_8B, "rope_scaling": None, key: rope, "max_position_embeddings": 4096})
        assert (found.context_length, found.rope_scaling) == (length, words)


def test_the_shortest_of_several_lengths_counts() -> None:
    assert read({**known.LLAMA_31_8B, "max_seq_len": 2048}).context_length == 2048
    cohere = {**known.LLAMA_31_8B, "model_type": "cohere", "max_position_embeddings": 8192, "model_max_length": 131072}
    assert read(cohere).context_length == 131072
    assert read({"model_type": "t5"}).context_length is None


# -- numbers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "weights", "dtype"),
    [
        ("float32", "float32", "bfloat16"),
        (None, "float32", "bfloat16"),
        (None, "float16", "float16"),
        ("float16", "float32", "float16"),
        ("torch.float16", "float32", "float16"),
        ("auto", "bfloat16", "bfloat16"),
        ("float64", "float16", "bfloat16"),
        ("float8_e4m3fn", "float8_e4m3fn", "bfloat16"),
        (7, "float16", "float16"),
    ],
)
def test_what_the_engine_computes_in(said: object, weights: str, dtype: str) -> None:
    for key in ("dtype", "torch_dtype"):
        assert read({**known.LLAMA_31_8B, "torch_dtype": None, key: said}, dtype=weights).dtype == dtype


def test_some_models_are_not_computed_in_float16() -> None:
    assert read({**known.GEMMA_2_9B, "torch_dtype": "float16"}).dtype == "bfloat16"
    assert read({**known.LLAVA_15_7B, "torch_dtype": None}).dtype == "float16"  # its text part says so


def _groups(bits: int) -> dict[str, object]:
    return {"config_groups": {"group_0": {"weights": {"num_bits": bits, "type": "int"}}}}


@pytest.mark.parametrize(
    ("source", "method", "bits"),
    [
        ({"quant_method": "awq", "bits": 4, "version": "gemm"}, "awq", 4),
        ({"quant_method": "awq", "w_bit": 4}, "awq", 4),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "gptq", 8),
        ({"quant_method": "fp8", "fmt": "e4m3"}, "fp8", 8),
        ({"quant_method": "mxfp4"}, "mxfp4", 4),
        ({"quant_method": "compressed-tensors", **_groups(4), "format": "pack-quantized"}, "compressed-tensors", 4),
        ({"quant_method": "compressed_tensors", **_groups(8)}, "compressed-tensors", 8),
        ({**_groups(8), "format": "float-quantized"}, "compressed-tensors", 8),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", 4),
        ({"load_in_8bit": True, "load_in_4bit": False}, "bitsandbytes", 8),
        ({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}, "modelopt_fp4", 4),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "modelopt", 8),
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4}}}, "hqq", 4),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}}, "torchao", 4),
        ({"quant_method": "AutoRound", "bits": 3}, "autoround", 3),
        ({"quant_method": 4, "bits": "four"}, "", 0),
        ({}, "", 0),
    ],
)
def test_quantizations_by_their_names_in_vllm(source: known.Config, method: str, bits: int) -> None:
    places: list[known.Config] = [{"quantization_config": source}, {"compression_config": source}]
    for place in places:
        found = read({**known.LLAMA_31_8B, **place})
        assert (found.quantization, found.quantization_bits) == (method, bits)
    nested = {**known.LLAVA_15_7B, "text_config": {**known.LLAVA_15_7B["text_config"], "quantization_config": source}}
    assert read(nested).quantization == method


# -- folders -------------------------------------------------------------------------------------------------------------


def test_the_files_beside_the_config_count_too(tmp_path: Path) -> None:
    sides = {
        "generation_config.json": json.dumps({"top_k": 20, "max_new_tokens": 64}),
        "chat_template.jinja": "{{ messages }}",
        "hf_quant_config.json": json.dumps({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}),
    }
    plain = profile(drop(tmp_path / "plain", known.LLAMA_31_8B))
    found = profile(drop(tmp_path / "full", known.LLAMA_31_8B, sides))
    assert plain.language is not None and found.language is not None and found.is_llm
    assert (plain.language.chat_template, found.language.chat_template) == (False, True)
    assert found.language.generation_defaults == {"top_k": 20, "max_new_tokens": 64}
    assert (found.language.quantization, found.language.quantization_bits) == ("modelopt", 8)
    assert found.language.active_parameters == found.parameters == 32


def test_only_generators_have_these_facts(tmp_path: Path) -> None:
    bert = {"architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_size": 32, "vocab_size": 9}
    assert profile(drop(tmp_path / "bert", bert)).language is None
    bart = profile(drop(tmp_path / "bart", known.BART_LARGE))
    assert bart.task is Task.TEXT2TEXT_GENERATION and bart.language is not None and not bart.is_llm


# -- whatever somebody may write -----------------------------------------------------------------------------------------

BASES = [value for name, value in vars(known).items() if name.isupper() and isinstance(value, dict)]
NUMBERS = [0, -1, 1, 2, 3, 7, 10**6, 10**12, 10**30, -(10**30), 0.5, 4.0, 1e300, float("inf"), float("nan")]
ITEMS = st.one_of(st.integers(-3, 10**12), st.none(), st.text(max_size=3), st.lists(st.integers(), max_size=2))
INNER_KEYS = st.sampled_from(["rope_type", "type", "factor", "quant_method", "a"])
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.text(max_size=8),
    st.lists(ITEMS, max_size=6),
    st.dictionaries(INNER_KEYS, st.one_of(st.none(), st.integers(), st.text()), max_size=3),
)
KEYS = [
    *sorted({key for base in BASES for key in (*base, *base.get("text_config", {}))}),
    "attention_types",
    "attn_config",
    "attn_layer_indices",
    "attn_type_list",
    "block_configs",
    "block_types",
    "conv_L_cache",
    "cross_attention_layers",
    "ffn_config",
    "full_attention_interval",
    "generation_config",
    "hybrid_override_pattern",
    "linear_attn_config",
    "linear_num_value_heads",
    "mamba_n_heads",
    "mlp_layer_types",
    "model_type",
    "num_kv_shared_layers",
    "per_layer_config",
    "sliding_window_pattern",
    "temperature",
]


@given(base=st.sampled_from(BASES), changes=st.dictionaries(st.sampled_from(KEYS), ODD, min_size=1, max_size=5))
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_no_config_makes_it_fail(base: known.Config, changes: known.Config) -> None:
    config = copy.deepcopy(base)
    text = config.get("text_config")
    for key, value in changes.items():
        (text if isinstance(text, dict) and key in text else config)[key] = value
    found = find(config, parameters=10**9)
    if found is None:
        return
    assert 0 < found.layers <= 10_000 and found.hidden_size > 0 and found.heads >= 0
    assert found.context_length is None or 0 < found.context_length <= 2**31
    assert 0 <= found.active_parameters <= 10**9 or found.quantization
    for group in found.groups:
        assert 0 < group.layers <= found.layers
        assert all(value >= 0 for value in asdict(group).values() if isinstance(value, int))


def test_without_sizes_there_are_no_facts() -> None:
    for config in (
        {},
        {"model_type": "llama-of-tomorrow"},
        {"num_hidden_layers": 2},
        {**known.LLAMA_31_8B, "hidden_size": "x"},
    ):
        assert find(config) is None
    assert find({**known.LLAMA_31_8B, "num_hidden_layers": 10**9}) is None


def test_a_compressed_cache_keeps_one_vector_for_so_many_tokens() -> None:
    config = {
        "architectures": ["DeepseekV4ForCausalLM"],
        "model_type": "deepseek_v4",
        "hidden_size": 4096,
        "num_hidden_layers": 5,
        "num_attention_heads": 64,
        "num_key_value_heads": 1,
        "head_dim": 512,
        "index_head_dim": 128,
        "qk_rope_head_dim": 64,
        "vocab_size": 129280,
        "max_position_embeddings": 1048576,
        "sliding_window": 128,
        "compress_ratios": [0, 4, 128, 4, 128, 0],
    }
    sparse, heavy = "compressed_sparse_attention", "heavily_compressed_attention"
    words = ["sliding_attention", sparse, heavy, sparse, heavy]
    for written in (config, {**config, "compress_ratios": None, "layer_types": words}):
        found = read(written)
        assert sum(group.layers for group in found.groups if group.kind is SLIDING) == 5
        latents = {(group.latent_width, group.compression): group.layers for group in found.groups if group.kind is LATENT}
        assert latents == {(512, 4): 2, (66, 4): 2, (512, 128): 2}, "vectors, and the indexer's keys"
        a_token = kv_bytes_per_token(found, kv_dtype_bytes=2)
        assert a_token == 2 * (512 * 2 // 4 + 66 * 2 // 4 + 512 * 2 // 128)
        one = kv_bytes(found, tokens=2**20, sequences=1, kv_dtype_bytes=2)
        assert one < 1.6 * 2**20 * a_token, "with what is lost between the pages"


def test_a_pattern_of_layers_counts_more_than_the_size_of_a_chunk() -> None:
    pattern = [0, 1, 1, 1, 1, 0, 1, 1]
    config = {
        "model_type": "mimo_v2_flash",
        "hidden_size": 64,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 100,
        "max_position_embeddings": 4096,
        "sliding_window": 128,
        "attention_chunk_size": 128,
        "hybrid_layer_pattern": pattern,
    }
    found = read(config)
    assert {group.kind: group.layers for group in found.groups} == {FULL: 2, SLIDING: 6}

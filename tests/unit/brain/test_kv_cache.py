"""The KV cache's arithmetic, against vLLM's own.

``VLLM_SAYS`` was recorded from vLLM 0.32 (``get_kv_cache_groups``, ``get_kv_cache_config_from_groups``,
``get_kv_cache_capacity`` of its ``kv_cache_utils``), given the same layers and bytes.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.engine.kv_cache import KvSettings, default_block_size, pool_of
from modelium.brain.placement.memory import kv_bytes, kv_bytes_per_token, kv_tokens
from modelium.values import AttentionKind, DeviceKind, LanguageModel
from tests.unit.brain.languages import (
    DEEPSEEK_V3,
    FULL,
    GEMMA_3_4B,
    LANGUAGES,
    LATENT,
    LLAMA_8B,
    LLAMA_70B,
    MAMBA,
    RECURRENT,
    SLIDING,
    group,
    language,
)
from tests.unit.brain.worlds import GIB, MIB

# layers, max_model_len, max_num_batched_tokens, block size, bytes a number, bytes of cache → tokens, bytes of one request
VLLM_SAYS = {
    "GQA": ([group(FULL, 32, 8, 128)], 131_072, 8192, 16, 2, 32 * GIB + 7, 262_144, 17_179_869_184),
    "a length that is no multiple of the block": ([group(FULL, 2, 2, 32)], 200, 2048, 128, 4, 64 * MIB, 51_200, 262_144),
    "MLA": ([group(LATENT, 61, latent_width=576)], 163_840, 8192, 16, 2, 32 * GIB, 488_944, 11_513_364_480),
    "full layers of two widths": (
        [group(FULL, 4, 8, 128), group(FULL, 4, 4, 128)],
        8192,
        2048,
        16,
        2,
        GIB,
        43_680,
        201_326_592,
    ),
    "Gemma 3 4B": (
        [group(FULL, 5, 4, 256), group(SLIDING, 29, 4, 256, window=1024)],
        *(131_072, 2048, 16, 2, 8 * GIB, 339_585, 3_315_466_240),
    ),
    "Gemma 3 27B": (
        [group(FULL, 10, 16, 128), group(SLIDING, 52, 16, 128, window=1024)],
        *(131_072, 2048, 16, 2, 32 * GIB, 339_585, 13_261_864_960),
    ),
    "Gemma 2 9B": (
        [group(FULL, 21, 8, 256), group(SLIDING, 21, 8, 256, window=4096)],
        *(8192, 2048, 16, 2, 4 * GIB, 12_467, 2_821_324_800),
    ),
    "all sliding": ([group(SLIDING, 32, 8, 128, window=4096)], 32_768, 2048, 16, 2, 4 * GIB, 130_816, 1_075_838_976),
    "gpt-oss 20B": (
        [group(FULL, 12, 8, 64), group(SLIDING, 12, 8, 64, window=128)],
        *(131_072, 8192, 16, 2, 4 * GIB, 155_183, 3_627_417_600),
    ),
    "sliding layers with other heads": (
        [group(FULL, 10, 4, 512), group(SLIDING, 50, 16, 256, window=1024)],
        *(131_072, 8192, 16, 2, 32 * GIB, 180_060, 25_011_159_040),
    ),
    "Mamba": ([group(RECURRENT, 24, state_bytes=98_304)], 32_768, 8192, 16, 2, GIB, 14_909_440, 2_359_296),
    "Mamba beside attention": (
        [group(FULL, 3, 8, 128), group(RECURRENT, 29, state_bytes=1_056_768)],
        *(131_072, 8192, 16, 2, 16 * GIB, 1_342_051, 1_677_852_672),
    ),
}


@pytest.mark.parametrize("case", VLLM_SAYS)
def test_tokens_and_bytes_are_what_vllm_computes(case: str) -> None:
    groups, length, batched, block, element, cache, tokens, one_request = VLLM_SAYS[case]
    spoken = language(*groups)
    settings = {"kv_dtype_bytes": element, "block_size": block, "in_flight_tokens": 2 * batched}
    assert kv_tokens(spoken, kv_bytes=cache, max_model_len=length, **settings) == tokens
    assert kv_bytes(spoken, tokens=length, sequences=1, **settings) == one_request


def _spoken(model: object) -> LanguageModel:
    spoken = getattr(model, "language", None)
    assert isinstance(spoken, LanguageModel)
    return spoken


def test_bytes_of_one_more_token() -> None:
    assert kv_bytes_per_token(_spoken(LLAMA_8B), kv_dtype_bytes=2) == 131_072
    assert kv_bytes_per_token(_spoken(LLAMA_8B), kv_dtype_bytes=1) == 65_536
    assert kv_bytes_per_token(_spoken(LLAMA_70B), kv_dtype_bytes=2) == 327_680
    assert kv_bytes_per_token(_spoken(DEEPSEEK_V3), kv_dtype_bytes=2) == 61 * 576 * 2, "MLA: its latent, once"
    assert kv_bytes_per_token(_spoken(GEMMA_3_4B), kv_dtype_bytes=2) == 5 * 4 * 512 * 2, "sliding layers: nothing more"
    assert kv_bytes_per_token(_spoken(MAMBA), kv_dtype_bytes=2) == 0


def test_keys_and_values_may_differ_in_size() -> None:
    odd = language(group(FULL, 1, 2, 192, value_head_size=128))
    assert kv_bytes_per_token(odd, kv_dtype_bytes=2) == 2 * (192 + 128) * 2


@pytest.mark.parametrize(("ranks", "share"), [(1, 1), (2, 2), (8, 8), (16, 8)])
def test_ranks_share_kv_heads_and_repeat_them_where_there_are_more_ranks(ranks: int, share: int) -> None:
    assert kv_bytes_per_token(_spoken(LLAMA_8B), kv_dtype_bytes=2, tensor_parallel=ranks) == 131_072 // share
    latent = kv_bytes_per_token(_spoken(DEEPSEEK_V3), kv_dtype_bytes=2, tensor_parallel=ranks)
    assert latent == 61 * 576 * 2, "every rank has the whole latent"


def test_a_sliding_layer_never_keeps_more_than_its_window_and_what_is_in_flight() -> None:
    sliding = language(group(SLIDING, 1, 1, 64, window=1000))
    at = [kv_bytes(sliding, tokens=n, sequences=1, kv_dtype_bytes=2) for n in (999, 10_000, 1_000_000)]
    assert at[0] == at[1] == at[2] == (63 + 1) * 16 * 128 * 2


def test_a_recurrent_state_is_a_constant_per_sequence() -> None:
    for tokens in (1, 100_000):
        assert kv_bytes(_spoken(MAMBA), tokens=tokens, sequences=3, kv_dtype_bytes=2) == 3 * 24 * 98_304


def test_cross_attention_counts_the_encoders_length() -> None:
    decoder = language(group(FULL, 6, 8, 64), group(AttentionKind.CROSS, 6, 8, 64))
    without = kv_bytes(decoder, tokens=448, sequences=1, kv_dtype_bytes=2)
    assert (
        kv_bytes(decoder, tokens=448, sequences=1, kv_dtype_bytes=2, encoder_tokens=1500) == without + 94 * 16 * 6 * 8 * 128 * 2
    )


def test_what_remembers_nothing_costs_nothing() -> None:
    nothing = language(group(AttentionKind.NONE, 4))
    assert kv_bytes(nothing, tokens=1000, sequences=4, kv_dtype_bytes=2) == 0
    assert kv_tokens(nothing, kv_bytes=GIB, max_model_len=100, kv_dtype_bytes=2) == 0


def test_block_sizes_are_vllms() -> None:
    assert default_block_size(_spoken(LLAMA_8B), DeviceKind.CUDA) == 16
    assert default_block_size(_spoken(LLAMA_8B), DeviceKind.HOST) == 128
    assert default_block_size(_spoken(DEEPSEEK_V3), DeviceKind.HOST) == 16


@given(LANGUAGES, st.integers(1, 200_000), st.integers(0, 100_000), st.integers(1, 9), st.integers(0, 9))
def test_more_tokens_or_sequences_never_cost_less(
    spoken: LanguageModel, tokens: int, more_tokens: int, sequences: int, more: int
) -> None:
    few = kv_bytes(spoken, tokens=tokens, sequences=sequences, kv_dtype_bytes=2, encoder_tokens=500)
    many = kv_bytes(spoken, tokens=tokens + more_tokens, sequences=sequences + more, kv_dtype_bytes=2, encoder_tokens=500)
    assert few <= many
    assert kv_bytes(spoken, tokens=tokens, sequences=sequences, kv_dtype_bytes=4, encoder_tokens=500) >= few


@given(LANGUAGES, st.integers(1, 200_000), st.integers(1, 9))
def test_a_cache_of_n_requests_holds_their_tokens(spoken: LanguageModel, length: int, requests: int) -> None:
    pool = pool_of(spoken, KvSettings(dtype_bytes=2, in_flight_tokens=4096, encoder_tokens=500))
    size = requests * pool.bytes(length)
    assert pool.tokens(size, length) == requests * length
    assert pool.tokens(size - 1, length) < requests * length


@given(LANGUAGES, st.integers(1, 100_000))
def test_the_pool_is_never_smaller_than_the_layers_need(spoken: LanguageModel, tokens: int) -> None:
    """Padding and whole blocks cost something: a request takes at least what its keys and values are."""
    bare = sum(
        each.layers * (each.state_bytes or each.latent_width * 2 * tokens or each.kv_heads * each.head_size * 4 * tokens)
        for each in spoken.groups
        if each.kind in (FULL, LATENT, RECURRENT)
    )
    assert kv_bytes(spoken, tokens=tokens, sequences=1, kv_dtype_bytes=2) >= bare

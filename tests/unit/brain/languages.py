"""Language models as their configurations describe them, for the brain's tests."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from modelium.values import AttentionKind, Device, DeviceKind, LanguageModel, LayerGroup, ModelProfile, Task
from tests.unit.brain.worlds import GIB, profile

FULL, SLIDING, LATENT, RECURRENT = (
    AttentionKind.FULL,
    AttentionKind.SLIDING,
    AttentionKind.LATENT,
    AttentionKind.RECURRENT,
)


def group(kind: AttentionKind, layers: int, kv_heads: int = 0, head_size: int = 0, **changes: object) -> LayerGroup:
    return replace(LayerGroup(kind=kind, layers=layers, kv_heads=kv_heads, head_size=head_size), **changes)  # type: ignore[arg-type]


def language(*groups: LayerGroup, **changes: object) -> LanguageModel:
    """A small model of these layers."""
    heads = max([each.kv_heads for each in groups] + [1])
    plain = LanguageModel(
        layers=sum(each.layers for each in groups),
        hidden_size=256,
        heads=heads,
        kv_heads=heads,
        head_size=64,
        vocabulary=1000,
        groups=groups,
        intermediate_size=512,
        context_length=2048,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def llm(name: str, parameters: int, spoken: LanguageModel, **changes: object) -> ModelProfile:
    plain = profile(
        name,
        task=Task.TEXT_GENERATION,
        architecture="LlamaForCausalLM",
        is_llm=True,
        parameters=parameters,
        weight_bytes=2 * parameters,
        dtype="bfloat16",
        max_length=None,
        language=spoken,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def accelerator(index: int = 0, gib: int = 80, used: int = 0) -> Device:
    """A GPU of which models may use 92 %."""
    total = gib * GIB
    return Device(
        id=f"cuda:{index}",
        kind=DeviceKind.CUDA,
        index=index,
        name=f"a GPU of {gib} GiB",
        total_bytes=total,
        used_bytes=used,
        budget_bytes=int(0.92 * total),
    )


_LLAMA = language(
    group(FULL, 32, 8, 128),
    hidden_size=4096,
    heads=32,
    kv_heads=8,
    head_size=128,
    vocabulary=128_256,
    intermediate_size=14_336,
    context_length=131_072,
    attention="GQA",
)
LLAMA_8B = llm("llama-8b", 8_030_261_248, _LLAMA)
LLAMA_70B = llm(
    "llama-70b",
    70_553_706_496,
    replace(_LLAMA, layers=80, hidden_size=8192, heads=64, intermediate_size=28_672, groups=(group(FULL, 80, 8, 128),)),
)
QWEN_HALF_B = llm(
    "qwen-0.5b",
    494_032_768,
    language(
        group(FULL, 24, 2, 64),
        hidden_size=896,
        heads=14,
        kv_heads=2,
        head_size=64,
        vocabulary=151_936,
        intermediate_size=4864,
        context_length=32_768,
        tied_embeddings=True,
    ),
)
DEEPSEEK_V3 = llm(
    "deepseek-v3",
    671_026_419_200,
    language(
        group(LATENT, 61, latent_width=576),
        hidden_size=7168,
        heads=128,
        kv_heads=128,
        head_size=192,
        vocabulary=129_280,
        intermediate_size=18_432,
        context_length=163_840,
        experts=256,
        experts_per_token=8,
        active_parameters=37_000_000_000,
        attention="MLA",
        quantization="fp8",
    ),
    weight_bytes=688_586_727_753,
    quantization="fp8",
)
GEMMA_3_4B = llm(
    "gemma-3-4b",
    3_880_099_328,
    language(
        group(FULL, 5, 4, 256),
        group(SLIDING, 29, 4, 256, window=1024),
        hidden_size=2560,
        heads=8,
        kv_heads=4,
        head_size=256,
        vocabulary=262_144,
        intermediate_size=10_240,
        context_length=131_072,
        tied_embeddings=True,
    ),
)
MAMBA = llm(
    "mamba-130m",
    129_135_360,
    language(
        group(RECURRENT, 24, state_bytes=1536 * 16 * 4),
        hidden_size=768,
        heads=0,
        kv_heads=0,
        head_size=0,
        vocabulary=50_280,
        intermediate_size=1536,
        context_length=None,
        attention="none",
    ),
)
TINY = llm(
    "tiny",
    300_000,
    language(group(FULL, 2, 2, 32), context_length=200, dtype="float32"),
    dtype="float32",
    weight_bytes=1_200_000,
)

_attention = st.builds(
    lambda kind, layers, heads, size, window: LayerGroup(
        kind=kind, layers=layers, kv_heads=heads, head_size=size, window=window if kind is SLIDING else None
    ),
    st.sampled_from([FULL, SLIDING, AttentionKind.CROSS]),
    st.integers(1, 40),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([64, 80, 128, 256]),
    st.sampled_from([128, 1024, 4096]),
)
_other = st.one_of(
    st.builds(lambda n, w: group(LATENT, n, latent_width=w), st.integers(1, 60), st.sampled_from([288, 576])),
    st.builds(lambda n, b: group(RECURRENT, n, state_bytes=b), st.integers(1, 60), st.integers(1, 2_000_000)),
)
LANGUAGES = st.lists(st.one_of(_attention, _other), min_size=1, max_size=4).map(lambda groups: language(*groups))

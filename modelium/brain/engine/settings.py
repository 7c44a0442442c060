"""What an engine's plan starts from: the user's word where there is one, else the rule. What enters: a profile, an override, a
device. What leaves: settings, each with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from modelium.brain.engine.kv_cache import default_block_size
from modelium.brain.engine.memory import DTYPE_BYTES, lora_rank
from modelium.sizes import GIB
from modelium.values import AttentionKind, Device, DeviceKind, JsonValue, LanguageModel, ModelOverride, ModelProfile

_T = TypeVar("_T")

BY_HAND = "set by hand in engine_args"
_UNLIMITED_CONTEXT = 8192
_UNLIMITED_STATE_CONTEXT = 32_768  # a recurrent state costs the same for any length
_BATCHED_TOKENS, _BATCHED_TOKENS_LARGE = 2048, 8192
_LARGE_DEVICE = 70 * GIB
_TINY_PARAMETERS = 100_000_000
_MOST_ADAPTERS_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen(Generic[_T]):
    """A setting and why it is that. ``by_hand``: the user wrote it."""

    value: _T
    reason: str
    by_hand: bool = False


def written_by_hand(value: _T) -> Chosen[_T]:
    """A setting that the user wrote into ``engine_args``."""
    return Chosen(value=value, reason=BY_HAND, by_hand=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """All of an engine that its memory depends on, but for what the memory decides (concurrency, KV cache, share).

    ``written_batch``: whether ``max_num_batched_tokens`` goes into the entry; vLLM knows a better one for models that see, are
    hybrid, or cannot prefill in chunks, and what stands here is then an upper guess. ``in_chunks``: a prompt may take several
    steps. ``full_context``: what ``max_model_len`` would be if memory were no matter.
    """

    on_host: bool
    dtype: Chosen[str]
    kv_dtype_bytes: int
    quantization: str
    max_model_len: Chosen[int]
    block_size: int
    batched_tokens: Chosen[int]
    written_batch: bool
    in_chunks: bool
    eager: Chosen[bool]
    adapter_slots: int
    adapter_rank: int
    full_context: int
    max_num_seqs: int | None = None
    share: float | None = None
    kv_cache_bytes: int | None = None


def choose_settings(
    profile: ModelProfile,
    language: LanguageModel,
    device: Device,
    override: ModelOverride,
    length: int | None = None,
) -> EngineSettings:
    """Choose by these rules; ``engine_args`` wins over each. ``length``: of a context that is shorter than rule 2 says.

    1. dtype: what the checkpoint was made in. A float32 checkpoint is computed in bfloat16, on the CPU too: it is what vLLM's
       "auto" does, halves the memory, and models of that size were trained to bear it; float32 is for who asks. Quantized
       weights have kernels for 16 bits only: AWQ, GPTQ and GGUF in float16, the others in bfloat16.
    2. Context: what the model was made for, rope scaling included. What is shorter is said to be (``brain.engine.fitting``).
    3. Tokens a step: 2,048, on devices of 70 GiB and more 8,192 (prefill is then faster, and its activations small beside the
       rest); at least one a sequence.
    4. CUDA graphs, except for models under 100 million parameters: capturing them takes longer than they ever save.
    5. As many adapters at once as there are, at most 8; vLLM swaps the others in.
    """
    args = override.engine_args
    dtype = _dtype(profile, language, args)
    eager = args.get("enforce_eager")
    tiny = 0 < profile.parameters < _TINY_PARAMETERS
    if isinstance(eager, bool):
        graphs = written_by_hand(eager)
    elif device.kind is DeviceKind.HOST:
        graphs = Chosen(value=True, reason="the CPU has no CUDA graphs, and compiling costs minutes")
    else:
        why = "a tiny model: capturing CUDA graphs takes longer than they save" if tiny else "CUDA graphs make decoding faster"
        graphs = Chosen(value=tiny, reason=why)  # 4
    full = _context(profile, language, args)
    context = full if length in (None, full.value) else Chosen(value=length, reason=f"what fits of the model's {full.value:,}")
    batch, written, in_chunks = _batch(language, device, context.value, args)
    slots, rank = _adapters(language, args)
    return EngineSettings(
        on_host=device.kind is DeviceKind.HOST,
        dtype=dtype,
        kv_dtype_bytes=_kv_dtype_bytes(str(args.get("kv_cache_dtype") or "auto"), dtype.value),
        quantization=str(args.get("quantization") or ""),
        max_model_len=context,
        block_size=_whole(args, "block_size") or default_block_size(language, device.kind),
        batched_tokens=batch,
        written_batch=written,
        in_chunks=in_chunks,
        eager=graphs,
        adapter_slots=slots,
        adapter_rank=rank,
        full_context=full.value,
        max_num_seqs=_whole(args, "max_num_seqs"),
        share=_fraction(args, "gpu_memory_utilization"),
        kv_cache_bytes=_whole(args, "kv_cache_memory_bytes"),
    )


def tensor_parallel_wish(override: ModelOverride) -> int | None:
    """The user's ``tensor_parallel_size``."""
    return _whole(override.engine_args, "tensor_parallel_size")


def divides(language: LanguageModel, ranks: int) -> bool:
    """Whether vLLM can split the model over ``ranks``: whole heads each, and the KV heads either dealt out or repeated evenly
    (MLA has one latent that every rank repeats). The vocabulary is padded, so it divides always."""
    if ranks == 1:
        return True
    if not language.heads or language.heads % ranks:
        return False
    if language.intermediate_size % ranks:
        return False
    if any(group.kind is AttentionKind.LATENT for group in language.groups):
        return True
    heads = {group.kv_heads for group in language.groups if group.kv_heads} or {language.kv_heads or language.heads}
    return all(count % ranks == 0 or ranks % count == 0 for count in heads)


def _dtype(profile: ModelProfile, language: LanguageModel, args: Mapping[str, JsonValue]) -> Chosen[str]:
    wish = args.get("dtype")
    if isinstance(wish, str) and wish != "auto":
        return written_by_hand({"half": "float16", "float": "float32"}.get(wish, wish))
    own = language.dtype if language.dtype in DTYPE_BYTES else profile.dtype
    if own in ("bfloat16", "float16"):
        if profile.dtype in ("float32", "float64") and not language.quantization:
            return Chosen(value=own, reason=f"a {profile.dtype} checkpoint is computed in 16 bits: half the memory")
        return Chosen(value=own, reason="the checkpoint's own")
    if language.quantization.split("_")[0] in ("awq", "gptq", "gguf"):
        return Chosen(value="float16", reason=f"vLLM's kernels for {language.quantization} compute in float16")
    return Chosen(value="bfloat16", reason=f"a {own} checkpoint is computed in bfloat16, as vLLM does: half the memory")


def _kv_dtype_bytes(wish: str, dtype: str) -> int:
    if wish.startswith(("fp8", "int8")):
        return 1
    return DTYPE_BYTES.get(dtype if wish == "auto" else wish, 2)


def _context(profile: ModelProfile, language: LanguageModel, args: Mapping[str, JsonValue]) -> Chosen[int]:
    if (wish := _whole(args, "max_model_len")) is not None:
        return written_by_hand(wish)
    if (own := language.context_length or profile.max_length) is not None:
        scaled = f", rope scaling {language.rope_scaling}" if language.rope_scaling else ""
        return Chosen(value=own, reason=f"the model's context length{scaled}")
    if all(group.kind in (AttentionKind.RECURRENT, AttentionKind.NONE) for group in language.groups):
        return Chosen(value=_UNLIMITED_STATE_CONTEXT, reason="nothing limits the model's context, and its state costs the same")
    return Chosen(value=_UNLIMITED_CONTEXT, reason="nothing in the model's files limits its context")


def _batch(
    language: LanguageModel, device: Device, max_model_len: int, args: Mapping[str, JsonValue]
) -> tuple[Chosen[int], bool, bool]:
    """Tokens a step, whether they are written into the entry, whether a prompt may take several steps."""
    host = device.kind is DeviceKind.HOST
    kinds = {group.kind for group in language.groups}
    in_chunks = not (language.encoder_decoder or (host and AttentionKind.LATENT in kinds))
    if (wish := _whole(args, "max_num_batched_tokens")) is not None:
        return written_by_hand(wish), False, in_chunks
    if not in_chunks:
        whole = max(max_model_len, _BATCHED_TOKENS)
        return Chosen(value=whole, reason="vLLM does not prefill this model in chunks: a whole context at once"), False, False
    large = not host and device.total_bytes >= _LARGE_DEVICE
    if language.modalities or AttentionKind.RECURRENT in kinds:
        guess = _BATCHED_TOKENS if host else _BATCHED_TOKENS_LARGE
        return Chosen(value=guess, reason="left to vLLM, which fits it to the model; planned with this"), False, True
    if large:
        return Chosen(value=_BATCHED_TOKENS_LARGE, reason="a device of 70 GiB or more: prefill in large steps"), True, True
    reason = "small steps: decoding waits less for prefill, activations stay small"
    return Chosen(value=_BATCHED_TOKENS, reason=reason), True, True


def _adapters(language: LanguageModel, args: Mapping[str, JsonValue]) -> tuple[int, int]:
    if args.get("enable_lora", bool(language.adapters)) is not True:
        return 0, 0
    slots = _whole(args, "max_loras") or min(max(1, len(language.adapters)), _MOST_ADAPTERS_AT_ONCE)  # 5
    rank = _whole(args, "max_lora_rank") or lora_rank(max((a.rank for a in language.adapters), default=16))
    return slots, rank


def _whole(args: Mapping[str, JsonValue], name: str) -> int | None:
    value = args.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _fraction(args: Mapping[str, JsonValue], name: str) -> float | None:
    value = args.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1 else None

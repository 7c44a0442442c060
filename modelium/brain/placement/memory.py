"""How much memory a model will take, before it was ever loaded. Replaced by the measurement after the first load.

What enters: a profile and how it will be served. What leaves: bytes, with the parts they are made of. A vLLM engine is planned
in ``brain.engine``; here is only what the smallest one takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from modelium.brain.engine import memory as engine_memory
from modelium.brain.engine.kv_cache import KvSettings, default_block_size, kv_bytes, kv_bytes_per_token, kv_tokens, pool_of
from modelium.brain.runtimes.choice import SUPPORTS
from modelium.sizes import MIB, human_bytes
from modelium.values import DeviceKind, LanguageModel, ModelProfile, Runtime

__all__ = ["Estimate", "estimate", "estimate_footprint", "kv_bytes", "kv_bytes_per_token", "kv_tokens"]

_CUDA_CONTEXT_BYTES = 500 * MIB  # what a CUDA context and cuBLAS workspaces take on the device before any weight
_ACTIVATION_BYTES = (48 * MIB, 1024 * MIB)  # at least and at most
_GRAPH_ACTIVATION_BYTES = (16 * MIB, 256 * MIB)  # of a bare graph: no tokenizer works beside it
_LIVE_TENSORS_PER_LAYER_INPUT = 14  # hidden states, q/k/v, attention output and the 4x feed-forward, alive at once
_TYPICAL_TOKENS = 2048
_BYTES_PER_ELEMENT = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Bytes on the device, by part."""

    weights: int
    activations: int
    process: int
    cache: int = 0  # of keys and values

    @property
    def total(self) -> int:
        """In bytes."""
        return self.weights + self.activations + self.process + self.cache

    def explain(self) -> str:
        """The parts in words."""
        parts = [("weights", self.weights), ("activations", self.activations), ("process", self.process)]
        if self.cache:
            parts.insert(1, ("KV cache", self.cache))
        return " + ".join(f"{name} {human_bytes(size)}" for name, size in parts)


def estimate(
    profile: ModelProfile,
    runtime: Runtime,
    *,
    device: DeviceKind = DeviceKind.HOST,
    max_batch_size: int = 1,
    instances: int = 1,
    born: bool = False,
) -> Estimate:
    """Footprint of ``profile`` on a device, all instances together.

    1. Weights: what the runtime makes of them (``Support.weight_bytes``).
    2. Activations of one batch of full-length inputs: batch × tokens × width × live tensors × 4 bytes, at least 48 MiB and
       never more than 1 GiB (the runtimes cap a forward pass by a token budget). Of a bare graph: batch × its inputs (a
       dimension that it leaves open counts once) × live tensors × 4 bytes, 16 to 256 MiB.
    3. The process: on the host interpreter and libraries, without what it shares with the nursery if it is ``born`` there; the
       CUDA context on a GPU.
    4. Of what generates text, the keys and values of a batch of requests of 2,048 tokens (or the whole context, if it is less).

    With vllm, the cache of one full-length request beside them, in a small batch; ``plan_engine`` says what is really taken.
    """
    support = SUPPORTS[runtime]
    if support.is_engine and profile.language is not None:  # behind Ray the same, and its plan says what is really taken
        return _smallest_engine(profile, profile.language, device, born=born)
    weights = support.weight_bytes(profile, device)  # 1
    element = _BYTES_PER_ELEMENT.get(profile.dtype, 4) if device is DeviceKind.CUDA else 4
    activations = max_batch_size * _input_elements(profile) * _LIVE_TENSORS_PER_LAYER_INPUT * element  # 2
    least, most = _ACTIVATION_BYTES if profile.onnx is None else _GRAPH_ACTIVATION_BYTES
    activations = min(max(activations, least), most)
    own = support.born_bytes if born and support.born_bytes is not None else support.process_bytes
    process = own if device is DeviceKind.HOST else _CUDA_CONTEXT_BYTES  # 3
    return Estimate(
        weights=weights * instances,
        activations=activations * instances,
        process=process * instances,
        cache=_generated(profile, max_batch_size, element) * instances,  # 4
    )


def _input_elements(profile: ModelProfile) -> int:
    """Of one row: numbers that a layer takes."""
    if profile.onnx is not None:
        return sum(math.prod(max(1, size) for size in tensor.dims) for tensor in profile.onnx.inputs)
    return min(profile.max_length or 512, 512) * (profile.embedding_width or 0)


def _generated(profile: ModelProfile, batch: int, element: int) -> int:
    language = profile.language
    if language is None or not profile.task.row.generates:
        return 0
    tokens = min(language.context_length or profile.max_length or _TYPICAL_TOKENS, _TYPICAL_TOKENS)
    encoder = tokens if language.encoder_decoder else 0
    return kv_bytes(language, tokens=tokens, sequences=batch, kv_dtype_bytes=element, block_size=1, encoder_tokens=encoder)


def estimate_footprint(
    profile: ModelProfile,
    runtime: Runtime,
    *,
    device: DeviceKind = DeviceKind.HOST,
    max_batch_size: int = 1,
    instances: int = 1,
    born: bool = False,
) -> int:
    """Total of :func:`estimate`, in bytes."""
    return estimate(profile, runtime, device=device, max_batch_size=max_batch_size, instances=instances, born=born).total


def _smallest_engine(profile: ModelProfile, language: LanguageModel, device: DeviceKind, *, born: bool) -> Estimate:
    length, dtype = language.context_length or profile.max_length or 8192, language.dtype
    element = engine_memory.DTYPE_BYTES.get(dtype, 2)
    pool = pool_of(language, KvSettings(dtype_bytes=element, block_size=default_block_size(language, device)))
    process = engine_memory.overhead(device, born=born).bytes
    return Estimate(
        weights=engine_memory.weights(profile, language, dtype=dtype).bytes,
        activations=engine_memory.activations(language, tokens=512, sequences=4, max_model_len=length, dtype=dtype).bytes,
        process=process if device is DeviceKind.HOST else process + engine_memory.CUDA_CONTEXT_BYTES,
        cache=pool.bytes(length),
    )

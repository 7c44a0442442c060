"""The sum of an engine's parts, and the words for it. What enters: parts. What leaves: totals, the share of the device, a line
with its reason for every number, the sentence for a model that is too big.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from modelium.brain.engine.kv_cache import Pool
from modelium.brain.engine.memory import CUDA_CONTEXT_BYTES, Part
from modelium.brain.engine.settings import BY_HAND, Chosen, EngineSettings, tensor_parallel_wish
from modelium.sizes import human_bytes
from modelium.values import (
    Device,
    DeviceKind,
    EnginePlan,
    JsonValue,
    LanguageModel,
    ModelOverride,
    ModelProfile,
    PlanLine,
)

UNSEEN = 100  # a hundredth on top: CUDA calls a little less "total" than NVML does, and vLLM measures where this estimates
_SHARE_DIGITS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """A size for the KV cache, and why it."""

    pool: Pool
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """An engine's parts, on each of its devices."""

    settings: EngineSettings
    devices: tuple[Device, ...]
    ranks: int
    cache: Cache
    sequences: Chosen[int]
    per_token: int
    weights: Part
    activations: Part
    graphs: Part
    overhead: Part

    @property
    def inside(self) -> int:
        """What vLLM finds when it measures."""
        return self.weights.bytes + self.caches + self.activations.bytes + self.graphs.bytes + self.overhead.bytes

    @property
    def caches(self) -> int:
        """The cache; on the host that of all ranks, which are all there."""
        return self.cache.bytes * (self.ranks if self.settings.on_host else 1)

    @property
    def share(self) -> float | None:
        """``gpu_memory_utilization``, rounded up to four digits; None on the host, which is told its cache in bytes.

        vLLM wants this part of the device to be free when it starts, and gives its cache what is left of it.
        """
        device = self.devices[0]
        if device.kind is DeviceKind.HOST:
            return None
        if self.settings.share is not None:
            return self.settings.share
        return math.ceil((self.inside + self.inside // UNSEEN) * _SHARE_DIGITS / device.total_bytes) / _SHARE_DIGITS

    @property
    def needed(self) -> int:
        """Bytes on each device that it cannot do without."""
        device, share = self.devices[0], self.share
        if share is None:
            return self.inside
        if self.settings.share is not None:
            return self.inside + self.inside // UNSEEN + CUDA_CONTEXT_BYTES
        return bytes_of_share(share, device)

    @property
    def total(self) -> int:
        """Bytes on each device: the whole share, and the CUDA context, which is there before vLLM measures.

        A share set by hand may leave no room for the context in the budget: then it takes the whole budget.
        """
        device, share = self.devices[0], self.share
        if share is None:
            return self.inside
        if self.settings.share is None:
            return bytes_of_share(share, device)
        budget = min(device.budget_bytes for device in self.devices)
        within = min(bytes_of_share(share, device), max(budget, math.ceil(share * device.total_bytes)))
        return max(within, self.needed)


@dataclass(frozen=True, slots=True, kw_only=True)
class TooBig:
    """Not even one full-length request fits. Bytes are per device, and of the smallest way to serve it."""

    needed_bytes: int
    available_bytes: int
    devices: tuple[str, ...]
    reason: str
    fitting_max_model_len: int | None = None  # with this context it would fit; None: its weights alone are too much
    lines: tuple[PlanLine, ...] = ()
    by_hand: bool = False  # not the model is too big: what the user set cannot be

    @property
    def short_bytes(self) -> int:
        """How much memory is missing."""
        return self.needed_bytes - self.available_bytes


def bytes_of_share(share: float, device: Device) -> int:
    """What an engine with ``gpu_memory_utilization`` ``share`` takes of a device."""
    context = 0 if device.kind is DeviceKind.HOST else CUDA_CONTEXT_BYTES
    return math.ceil(share * device.total_bytes) + context


def plan_of(sums: Sums, language: LanguageModel, override: ModelOverride) -> EnginePlan:
    """The plan, the user's arguments over its own."""
    settings, length = sums.settings, sums.settings.max_model_len.value
    return EnginePlan(
        engine_args={**_arguments(sums, override), **override.engine_args},
        devices=tuple(device.id for device in sums.devices),
        gpus=tuple(device.index for device in sums.devices if device.kind is DeviceKind.CUDA),
        max_model_len=length,
        max_num_seqs=sums.sequences.value,
        weight_bytes=sums.weights.bytes,
        kv_bytes=sums.caches,
        kv_bytes_per_token=sums.per_token,
        kv_tokens=sums.cache.pool.tokens(sums.cache.bytes, length),
        activation_bytes=sums.activations.bytes,
        graph_bytes=sums.graphs.bytes,
        overhead_bytes=sums.overhead.bytes + sums.total - sums.inside,
        lines=lines_of(sums, override),
        adapters=language.adapters if settings.adapter_slots else (),
        full_context=settings.full_context,
    )


def _arguments(sums: Sums, override: ModelOverride) -> dict[str, JsonValue]:
    settings = sums.settings
    args: dict[str, JsonValue] = {
        "dtype": settings.dtype.value,
        "max_model_len": settings.max_model_len.value,
        "max_num_seqs": sums.sequences.value,
        "enforce_eager": settings.eager.value,
        "disable_log_stats": False,
    }
    if settings.written_batch:
        args["max_num_batched_tokens"] = settings.batched_tokens.value
    if sums.share is not None:
        args["gpu_memory_utilization"] = sums.share
    else:
        args["kv_cache_memory_bytes"] = sums.cache.bytes
    if sums.ranks > 1:
        args["tensor_parallel_size"] = sums.ranks
    if settings.adapter_slots:
        args |= {"enable_lora": True, "max_loras": settings.adapter_slots, "max_lora_rank": settings.adapter_rank}
    if override.allow_custom_code:
        args["trust_remote_code"] = True
    return args


def lines_of(sums: Sums, override: ModelOverride, *, fits: bool = True) -> tuple[PlanLine, ...]:
    """Every number of the plan and why it is that. No device is named: the plan stands for each that equals these."""
    settings, cache = sums.settings, sums.cache
    length, why = settings.max_model_len.value, settings.max_model_len.reason
    if length < settings.full_context:
        why = f"what fits there of the model's {settings.full_context:,} (vllm.fit_context)"
        if not fits:
            why = f"{_shortest_of(settings)}: it does not fit"
    blocks = _in_blocks(sums, length) if cache.pool.tables else ""
    rows = [
        ("dtype", settings.dtype.value, settings.dtype.reason),
        ("max_model_len", f"{length:,}", why),
        ("max_num_seqs", f"{sums.sequences.value}", sums.sequences.reason),
        ("max_num_batched_tokens", f"{settings.batched_tokens.value:,}", settings.batched_tokens.reason),
        ("enforce_eager", str(settings.eager.value).lower(), settings.eager.reason),
    ]
    if sums.ranks > 1:
        why = BY_HAND if tensor_parallel_wish(override) is not None else "one device is too small, and it divides the heads"
        rows.append(("tensor_parallel_size", f"{sums.ranks}", why))
    if settings.adapter_slots:
        rows.append(("max_loras", f"{settings.adapter_slots}", f"adapters at once, of rank {settings.adapter_rank} at most"))
    rows += [
        ("weights", human_bytes(sums.weights.bytes), sums.weights.reason),
        ("KV cache", human_bytes(cache.bytes), f"{cache.reason}{': ' + blocks if blocks else ''}"),
        (
            "KV cache per token",
            f"{sums.per_token:,} bytes",
            f"{settings.kv_dtype_bytes} bytes a number; a long request's next token",
        ),
        ("activations", human_bytes(sums.activations.bytes), sums.activations.reason),
        ("CUDA graphs", human_bytes(sums.graphs.bytes), sums.graphs.reason),
        ("overhead", human_bytes(sums.overhead.bytes), sums.overhead.reason),
    ]
    if sums.share is None:
        by_hand = BY_HAND if settings.kv_cache_bytes is not None else ""
        rows.append(("kv_cache_memory_bytes", f"{cache.bytes:,}", by_hand or "on the CPU the cache is told in bytes"))
    else:
        device = sums.devices[0]
        rest = sums.total - sums.inside
        rows.append(("CUDA context", human_bytes(rest), "the context (before vLLM measures), 1 % and rounding"))
        reason = f"all but the context, of {human_bytes(device.total_bytes)}: others may share the device"
        reason = BY_HAND if settings.share is not None else reason
        rows.append(("gpu_memory_utilization", f"{sums.share:.4f}", reason))
    each = " on each device" if sums.ranks > 1 else ""
    rows.append(("total", human_bytes(sums.total), f"the sum{each}"))
    return tuple(PlanLine(name=name, value=value, reason=reason) for name, value, reason in rows)


def _shortest_of(settings: EngineSettings) -> str:
    return f"the shortest of the model's {settings.full_context:,} that is planned (vllm.min_context)"


def _in_blocks(sums: Sums, length: int) -> str:
    """Exactly: what vLLM logs, and ``Pool.tokens`` says after it, is rounded and may be a token less than whole blocks."""
    cache, block = sums.cache, sums.settings.block_size
    blocks = cache.pool.blocks(length)
    tokens = cache.bytes // cache.pool.block_bytes * length // blocks if blocks else 0
    return f"{tokens:,} tokens" + (f" in blocks of {block}" if tokens % block == 0 else " of full-length requests")


def too_big(profile: ModelProfile, sums: Sums, limit: int, fitting: int | None, enough: int | None) -> str:
    """What one full-length request takes, by how much that is too much, and what would help.

    ``fitting``: the context that fits; ``enough``: how many such devices would do.
    """
    needed, weights, cache = sums.needed, sums.weights.bytes, sums.cache.bytes
    where = ("each of " if len(sums.devices) > 1 else "") + " and ".join(device.id for device in sums.devices)
    length = sums.settings.max_model_len.value
    shortest = f", {_shortest_of(sums.settings)}" if length < sums.settings.full_context else ""
    said = (
        f"needs {human_bytes(needed)} on {where} (weights {human_bytes(weights)}, KV cache {human_bytes(cache)} for one "
        f"request of {length:,} tokens{shortest}, activations, graphs and overhead {human_bytes(needed - weights - cache)}), "
        f"{human_bytes(limit)} may be used: {human_bytes(needed - limit)} short"
    )
    helps = []
    if fitting is not None:
        helps.append(f"models: {{{profile.name}: {{engine_args: {{max_model_len: {fitting}}}}}}} makes it fit")
    elif sums.settings.kv_cache_bytes is not None:
        helps.append("engine_args: kv_cache_memory_bytes may be lowered")
    if profile.language is not None and not profile.language.quantization and profile.parameters:
        quarter = profile.parameters * 9 // 16 // sums.ranks
        helps.append(f"quantized to 4 bits its weights take {human_bytes(quarter)}")
    if sums.devices[0].kind is DeviceKind.HOST:
        helps.append(f"devices.host_memory: {human_bytes(needed)} suffices, if the machine has it")
    else:
        helps.append(f"{enough} such devices suffice" if enough else f"a device with {human_bytes(needed)} for models suffices")
    return f"{said}; {'; '.join(helps)}"

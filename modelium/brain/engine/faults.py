"""What the user's engine arguments ask for that cannot be. What enters: a model, its settings, devices. What leaves: a refusal
with the words for what to set instead, or None; vLLM would take a minute to say the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from modelium.brain.engine.kv_cache import Pool, kv_bytes_per_token
from modelium.brain.engine.settings import EngineSettings, divides
from modelium.brain.engine.sums import TooBig
from modelium.sizes import human_bytes
from modelium.values import Device, DeviceKind, LanguageModel, ModelOverride


def find_contradiction(
    language: LanguageModel,
    devices: Sequence[Device],
    ranks: int,
    settings: EngineSettings,
    pool: Pool,
    override: ModelOverride,
) -> TooBig | None:
    """Hold what was set by hand against the model and the devices.

    1. ``memory`` above a device's budget.
    2. ``gpu_memory_utilization`` above it, or above ``memory``. The CUDA context is not held against it: it is not part of
       the share, and what the budget leaves of the device is there for such things. So 0.9 of a device of which models may
       use 0.9 fits, and takes its whole budget.
    3. ``tensor_parallel_size`` that does not divide the heads.
    4. ``max_model_len`` above what the model was made for. (Unless ``hf_overrides`` may have changed that.)
    5. ``kv_cache_memory_bytes`` below one request of full length. Layers of different kinds are counted without what sharing
       the cache costs them, so that nothing is refused that vLLM would take.
    """
    where = devices[0].id
    budget = min(device.budget_bytes for device in devices)
    if override.memory_bytes is not None and override.memory_bytes > budget:  # 1
        asked = override.memory_bytes
        said = f"memory says {human_bytes(asked)}, {human_bytes(asked - budget)} more than {where} has for models"
        return _refusal(devices, asked, budget, f"{said}; set it to {human_bytes(budget)} at most")
    if settings.share is not None and devices[0].kind is not DeviceKind.HOST:  # 2
        total = min(device.total_bytes for device in devices)
        share, room = math.ceil(settings.share * devices[0].total_bytes), min(budget, override.memory_bytes or budget)
        if share > room:
            most = math.floor(room * 1000 / total) / 1000
            said = (
                f"engine_args say gpu_memory_utilization {settings.share:g}, which is {human_bytes(share)} of {where}, and "
                f"{human_bytes(room)} may be used: {human_bytes(share - room)} too much"
            )
            other = "devices.gpu_memory_fraction" if room == budget else "memory"
            return _refusal(devices, share, room, f"{said}; set it to {most:g} at most, or raise {other}")
    if ranks > 1 and language.heads and not divides(replace(language, intermediate_size=0), ranks):  # 3
        heads = f"{language.heads} attention heads and {language.kv_heads} KV heads"
        fitting = [n for n in range(2, 17) if divides(language, n)]
        help_ = f"possible are {', '.join(str(n) for n in fitting)}" if fitting else "it can't be split"
        return _refusal(devices, 0, 0, f"engine_args say tensor_parallel_size {ranks}, and the model has {heads}; {help_}")
    length, context = settings.max_model_len.value, language.context_length
    if context is not None and length > context and "hf_overrides" not in override.engine_args:  # 4
        said = f"engine_args say max_model_len {length}, and the model's context length is {context}"
        return _refusal(devices, 0, 0, f"{said}; set it to {context} at most, or scale its positions by hf_overrides")
    one = least_cache(language, ranks, settings, pool)
    if settings.kv_cache_bytes is not None and settings.kv_cache_bytes < one:  # 5
        said = f"engine_args say kv_cache_memory_bytes {settings.kv_cache_bytes}"
        help_ = f"one request of {length:,} tokens takes {one}: set it to that at least, or lower max_model_len"
        return _refusal(devices, one, settings.kv_cache_bytes, f"{said}, and {help_}")
    return None


def least_cache(language: LanguageModel, ranks: int, settings: EngineSettings, pool: Pool) -> int:
    """What a cache that is set by hand has to hold: one request of full length, as rule 5 counts it."""
    length = settings.max_model_len.value
    each = kv_bytes_per_token(language, kv_dtype_bytes=settings.kv_dtype_bytes, tensor_parallel=ranks)
    return pool.bytes(length) if len(pool.tables) == 1 else each * length


def _refusal(devices: Sequence[Device], needed: int, available: int, reason: str) -> TooBig:
    return TooBig(
        needed_bytes=needed,
        available_bytes=available,
        devices=tuple(device.id for device in devices),
        reason=reason,
        by_hand=True,
    )

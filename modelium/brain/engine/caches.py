"""Sizes for an engine's KV cache. What enters: how the cache is cut, what the policies say. What leaves: sizes worth trying,
the largest first, at least one.
"""

from __future__ import annotations

from collections.abc import Iterator

from modelium.brain.engine.kv_cache import Pool
from modelium.brain.engine.settings import BY_HAND, EngineSettings
from modelium.brain.engine.sums import Cache
from modelium.values import Policies


def caches_worth_trying(pool: Pool, settings: EngineSettings, policies: Policies, requests: int | None) -> Iterator[Cache]:
    """From ``kv_concurrency`` full-length requests, or ``requests`` if those are fewer, down to one.

    1. What the user says, and nothing else.
    2. Where no request costs cache, the floor: there is nothing to count by.
    3. Not less than the floor, unless ``requests`` says that little will do.
    4. Not more than the ceiling, and never less than one full-length request.
    """
    own, one = pool.block_bytes, pool.bytes(settings.max_model_len.value)
    floor = policies.kv_floor_bytes if requests is None else 0
    if settings.kv_cache_bytes is not None:  # 1
        yield Cache(pool=pool, bytes=settings.kv_cache_bytes, reason=BY_HAND)
        return
    if not one:  # 2
        yield Cache(pool=pool, bytes=max(floor, own), reason="no request costs cache")
        return
    wanted = max(1, min(requests or policies.kv_concurrency, policies.kv_concurrency))
    ceiling = max(policies.kv_ceiling_bytes, one)
    if wanted * one < floor:  # 3
        yield Cache(pool=pool, bytes=(-(-floor // own) + 1) * own, reason="the floor (vllm.kv_cache_floor)")
    last = 0
    for count in range(wanted, 0, -1):
        size = min(count * one, ceiling)  # 4
        if size == last:
            continue
        last = size
        if size < count * one:
            reason = f"the ceiling (vllm.kv_cache_ceiling): {size / one:.1f} full-length requests"
        else:
            reason = f"{count} full-length request{'s' if count > 1 else ''}"
            reason += " (vllm.kv_concurrency)" if count == policies.kv_concurrency else ", there is no room for more"
        yield Cache(pool=pool, bytes=(size // own + 1) * own, reason=reason)

"""How large an engine's KV cache should be. What enters: how the cache is cut, what the policies say, what the weights take.
What leaves: the least that will do and what is wanted; every size between them is of use.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelium.brain.engine.kv_cache import Pool
from modelium.brain.engine.settings import BY_HAND, EngineSettings
from modelium.brain.engine.sums import Cache
from modelium.sizes import GIB
from modelium.values import Policies

FEWEST_SEQUENCES, MOST_SEQUENCES, MOST_SEQUENCES_HOST = 32, 256, 64
# What a GPU could read in the time that a step costs whatever it computes: about a millisecond at 1 to 3 TB/s.
_STEP_BYTES = 2 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSizes:
    """``least``: one request of full length. ``wanted``: with all that should run beside it. In bytes, without the block that
    vLLM keeps for itself. ``bound``: what else decided on ``wanted``, in words.
    """

    pool: Pool
    least: int
    wanted: int
    full: int  # one request of full length
    typical: int  # one typical request
    typical_tokens: int
    concurrency: int
    bound: str = ""

    def cache(self, size: int) -> Cache:
        """A cache for ``size`` bytes of requests, in whole blocks, and why it."""
        if self.bound == BY_HAND:
            return Cache(pool=self.pool, bytes=size, reason=BY_HAND)
        own = self.pool.block_bytes
        blocks = -(-size // own) + (1 if self.full else 0)
        return Cache(pool=self.pool, bytes=blocks * own, reason=self._reason(size))

    def _reason(self, size: int) -> str:
        if not self.full:
            return "no request costs cache"
        whole = max(1, min(self.concurrency, size // self.full))
        others = max(0, size - whole * self.full) // self.typical
        words = f"{whole} request{'s' if whole > 1 else ''} of full length"
        words += f" and {others:,} of {self.typical_tokens:,} tokens" if others else ""
        if size < self.wanted:
            return f"{words}; there is no room for more"
        return f"{words}; {self.bound}" if self.bound else words


def cache_sizes(pool: Pool, settings: EngineSettings, policies: Policies, *, weight_bytes: int, frugal: bool) -> CacheSizes:
    """What a cache should hold.

    1. What the user says, and nothing else.
    2. Where no request costs cache, the floor: there is nothing to count by.
    3. At least one request of full length. So it is where room is short, and where the plan is to be ``frugal``.
    4. Wanted are ``kv_concurrency`` requests of full length, and typical ones beside them: as many as take what is read in a
       step anyway, which are the weights, and 2 GiB on a GPU that could be read in the time that a step costs by itself. Until
       then each request more is nearly for nothing, and beyond the whole does at most twice as much however many there are. At
       least 32 and at most 256, on the CPU 64.
    5. Not less than the floor, and not more than the ceiling, unless one request of full length takes more.
    """
    length = settings.max_model_len.value
    tokens = min(policies.typical_tokens, length)
    full, typical = pool.bytes(length), pool.bytes(tokens)
    floor, concurrency, bound = policies.kv_floor_bytes, policies.kv_concurrency, ""
    if settings.kv_cache_bytes is not None:  # 1
        least = wanted = settings.kv_cache_bytes
        bound = BY_HAND
    elif not full:  # 2
        least = wanted = max(0 if frugal else floor, pool.block_bytes)
    else:
        least = full  # 3
        most = MOST_SEQUENCES_HOST if settings.on_host else MOST_SEQUENCES
        read = weight_bytes if settings.on_host else max(weight_bytes, _STEP_BYTES)
        wanted = full if frugal else concurrency * full + typical * min(max(read // typical, FEWEST_SEQUENCES), most)  # 4
        if not frugal and wanted < floor:  # 5
            wanted, bound = floor, "the floor (vllm.kv_cache_floor)"
        elif wanted > max(policies.kv_ceiling_bytes, full):
            wanted, bound = max(policies.kv_ceiling_bytes, full), "the ceiling (vllm.kv_cache_ceiling)"
    return CacheSizes(
        pool=pool,
        least=least,
        wanted=wanted,
        full=full,
        typical=typical,
        typical_tokens=tokens,
        concurrency=concurrency,
        bound=bound,
    )

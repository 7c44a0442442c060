"""How a vLLM engine is started: its arguments and its memory. What enters: a profile, the devices it may use, what the user
and the policies say. What leaves: a plan with a reason for each number, or how much is missing and what would help.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from modelium.brain.engine import memory
from modelium.brain.engine.caches import caches_worth_trying
from modelium.brain.engine.faults import find_contradiction
from modelium.brain.engine.kv_cache import KvSettings, Pool, kv_bytes_per_token, pool_of
from modelium.brain.engine.memory import DTYPE_BYTES
from modelium.brain.engine.settings import (
    Chosen,
    EngineSettings,
    choose_settings,
    divides,
    tensor_parallel_wish,
    written_by_hand,
)
from modelium.brain.engine.sums import UNSEEN, Cache, Sums, TooBig, bytes_of_share, lines_of, plan_of, too_big
from modelium.values import (
    AttentionKind,
    Device,
    DeviceKind,
    EnginePlan,
    LanguageModel,
    ModelOverride,
    ModelProfile,
    Policies,
)

__all__ = ["TooBig", "fit_engine", "plan_engine"]

_TYPICAL_TOKENS = 1024  # of a request, prompt and answer: what max_num_seqs is counted by
_FEWEST_SEQUENCES, _MOST_SEQUENCES, _MOST_SEQUENCES_HOST = 4, 256, 64
_SMALL_BATCH = 2048
_SHORTEST_CONTEXT = 16  # worth advising


def plan_engine(
    profile: ModelProfile,
    devices: Sequence[Device],
    *,
    override: ModelOverride | None = None,
    policies: Policies | None = None,
    available: Mapping[str, int] | None = None,
    requests: int | None = None,
    ranks: int | None = None,
) -> EnginePlan | TooBig:
    """Plan an engine for the first of ``devices``, or for as many of them as it takes.

    ``available``: bytes that may be taken, by device (the budgets when None). ``requests``: for how many full-length requests
    at most the cache is planned (``policies.kv_concurrency`` when None). ``ranks``: for exactly so many devices.

    1. One device if it is large enough. Else the smallest number of equal devices that divides the heads.
    2. KV cache: ``kv_concurrency`` full-length requests, but not less than the floor nor more than the ceiling; reduced request
       by request down to one. (And one block more, which vLLM keeps for itself.)
    3. Still too much: smaller prefill steps, then no CUDA graphs. Then it is too big; the context is never cut unasked.
    4. As many sequences at once as the cache holds requests of some thousand tokens, 4 to 256 (64 on the CPU).
    5. A GPU's share is what was planned but for the CUDA context, which is there before vLLM looks, over the device's total: so
       several engines share a device. vLLM gives the cache what is left of its share: estimating too much costs nothing.
       On the CPU the cache is told in bytes.
    6. What the user says in ``engine_args`` wins, and what depends on it is computed with it.
    7. Unless it cannot be: then that is said (``find_contradiction``).
    """
    made = _planner(profile, override, policies, available, requests)
    fitted = made.over(devices, ranks)
    if isinstance(fitted, EnginePlan | TooBig):
        return fitted
    if fitted is None:
        wish = ranks or tensor_parallel_wish(made.override)
        reason = f"engine_args say tensor_parallel_size {wish}, and there are {len(devices)} equal devices"
        names = tuple(device.id for device in devices)
        return TooBig(needed_bytes=0, available_bytes=0, devices=names, reason=reason, by_hand=True)
    return made.refuse(fitted)


def fit_engine(
    profile: ModelProfile,
    devices: Sequence[Device],
    *,
    override: ModelOverride | None = None,
    policies: Policies | None = None,
    available: Mapping[str, int] | None = None,
    requests: int | None = None,
    ranks: int | None = None,
) -> EnginePlan | None:
    """:func:`plan_engine` for who does not ask why not: finding the words takes longer than finding out."""
    fitted = _planner(profile, override, policies, available, requests).over(devices, ranks)
    return fitted if isinstance(fitted, EnginePlan) else None


def _planner(
    profile: ModelProfile,
    override: ModelOverride | None,
    policies: Policies | None,
    available: Mapping[str, int] | None,
    requests: int | None,
) -> _Planner:
    assert profile.language is not None, "only what generates text has an engine"
    return _Planner(
        profile=profile,
        language=profile.language,
        override=override or ModelOverride(),
        policies=policies or Policies(),
        available=available,
        requests=requests,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planner:
    profile: ModelProfile
    language: LanguageModel
    override: ModelOverride
    policies: Policies
    available: Mapping[str, int] | None
    requests: int | None

    def over(self, devices: Sequence[Device], ranks: int | None) -> EnginePlan | TooBig | Sums | None:
        """A plan for as few of these devices as it takes (rule 1), or what was tried last; None where they are too few."""
        wish = ranks or tensor_parallel_wish(self.override)
        if devices[0].kind is DeviceKind.HOST:
            return self.fit(devices[:1], wish or 1)
        tried: TooBig | Sums | None = None
        for size in [wish] if wish else [n for n in range(1, len(devices) + 1) if divides(self.language, n)]:
            if size <= len(devices):
                fitted = self.fit(devices[:size], size)
                if isinstance(fitted, EnginePlan):
                    return fitted
                tried = tried if isinstance(tried, TooBig) else fitted
        return tried

    def fit(self, devices: Sequence[Device], ranks: int) -> EnginePlan | TooBig | Sums:
        """A plan for exactly these devices, or the most frugal sums."""
        settings = choose_settings(self.profile, self.language, devices[0], self.override)
        pool, override = self._pool(settings, ranks), self.override
        if fault := find_contradiction(self.language, devices, ranks, settings, pool, override):
            return fault  # 7
        limit = self._limit(devices, settings)
        variants = list(self._variants(settings))
        if (least := self._least(variants[-1], devices, ranks)).needed > limit:  # the usual answer while a device is full
            return least
        for frugal in variants:
            for cache in self._caches(frugal, ranks):
                sums = self._sum(frugal, devices, ranks, cache)
                if sums.needed <= limit:
                    filled = self._fill(sums, limit) if settings.share is not None else sums
                    return plan_of(filled, self.language, override)
        raise AssertionError("the smallest of these sums was looked at before")

    def refuse(self, sums: Sums) -> TooBig:
        """Say how much is missing, and what would help."""
        limit = self._limit(sums.devices, sums.settings)
        variants = list(self._variants(choose_settings(self.profile, self.language, sums.devices[0], self.override)))
        tried = (self._least(each, sums.devices, sums.ranks) for each in variants[-2:])
        lengths = (self._longest(each, limit) for each in tried)  # with CUDA graphs rather than without
        length = next((each for each in lengths if each is not None), None)
        return TooBig(
            needed_bytes=sums.needed,
            available_bytes=limit,
            devices=tuple(device.id for device in sums.devices),
            reason=too_big(self.profile, sums, limit, length, self._enough(sums, limit)),
            fitting_max_model_len=length,
            lines=lines_of(sums, self.override),
        )

    def _limit(self, devices: Sequence[Device], settings: EngineSettings) -> int:
        """Bytes that may be taken on each of these devices."""
        limits = [device.budget_bytes if self.available is None else self.available[device.id] for device in devices]
        if self.override.memory_bytes is not None:
            limits.append(self.override.memory_bytes)
        if settings.share is not None:
            limits.append(bytes_of_share(settings.share, devices[0]))
        return min(limits)

    def _variants(self, settings: EngineSettings) -> Iterator[EngineSettings]:
        """From comfortable to frugal (rule 3)."""
        yield settings
        if settings.written_batch and settings.batched_tokens.value > _SMALL_BATCH:
            batch = Chosen(value=_SMALL_BATCH, reason="memory is tight: small steps take less")
            settings = replace(settings, batched_tokens=batch)
            yield settings
        if not settings.eager.value and not settings.eager.by_hand:
            yield replace(settings, eager=Chosen(value=True, reason="memory is tight: no CUDA graphs"))

    def _caches(self, settings: EngineSettings, ranks: int) -> Iterator[Cache]:
        return caches_worth_trying(self._pool(settings, ranks), settings, self.policies, self.requests)

    def _least(self, settings: EngineSettings, devices: Sequence[Device], ranks: int) -> Sums:
        """With the smallest cache."""
        *_, cache = self._caches(settings, ranks)
        return self._sum(settings, devices, ranks, cache)

    def _pool(self, settings: EngineSettings, ranks: int) -> Pool:
        state = 4 if settings.on_host else DTYPE_BYTES.get(settings.dtype.value, 2)
        steps = 1 if settings.on_host else 2  # on a GPU vLLM schedules the next step while one runs
        kv = KvSettings(
            dtype_bytes=settings.kv_dtype_bytes,
            tensor_parallel=ranks,
            block_size=settings.block_size,
            in_flight_tokens=steps * settings.batched_tokens.value,
            encoder_tokens=settings.max_model_len.value if self.language.encoder_decoder else 0,
            state_element_bytes=state,
        )
        return pool_of(self.language, kv)

    def _sum(self, settings: EngineSettings, devices: Sequence[Device], ranks: int, cache: Cache) -> Sums:
        profile, language, device = self.profile, self.language, devices[0]
        host = device.kind is DeviceKind.HOST
        length, dtype = settings.max_model_len.value, settings.dtype.value
        split = 1 if host else ranks  # all ranks of a CPU engine are on the one host
        weights = memory.weights(profile, language, dtype=dtype, quantization=settings.quantization, tensor_parallel=split)
        if settings.adapter_slots:
            lora = memory.adapters(language, slots=settings.adapter_slots, rank=settings.adapter_rank, dtype=dtype)
            weights = memory.Part(bytes=weights.bytes + lora.bytes, reason=f"{weights.reason}; {lora.reason}")
        sequences = self._sequences(settings, cache, host=host)
        batch = max(min(settings.batched_tokens.value, sequences.value * length), sequences.value)
        return Sums(
            settings=replace(settings, batched_tokens=replace(settings.batched_tokens, value=batch)),
            devices=tuple(devices),
            ranks=ranks,
            cache=cache,
            sequences=sequences,
            per_token=kv_bytes_per_token(language, kv_dtype_bytes=settings.kv_dtype_bytes, tensor_parallel=ranks),
            weights=weights,
            activations=memory.activations(
                language, tokens=batch, sequences=sequences.value, max_model_len=length, dtype=dtype, tensor_parallel=split
            ),
            graphs=memory.graphs(language, sequences=sequences.value, eager=settings.eager.value),
            overhead=memory.overhead(device.kind, tensor_parallel=ranks),
        )

    def _sequences(self, settings: EngineSettings, cache: Cache, *, host: bool) -> Chosen[int]:
        """How many requests run at once (rule 4)."""
        if settings.max_num_seqs is not None:
            return written_by_hand(settings.max_num_seqs)
        most = min(_MOST_SEQUENCES_HOST if host else _MOST_SEQUENCES, settings.batched_tokens.value)  # vLLM's own condition
        typical = min(_TYPICAL_TOKENS, settings.max_model_len.value)
        blocks = cache.pool.blocks(typical)
        if not blocks:
            return Chosen(value=most, reason="no request costs cache")
        held = cache.bytes // cache.pool.block_bytes // blocks
        states = any(rows.kind is AttentionKind.RECURRENT for _, rows in cache.pool.tables)
        fewest = 1 if states else _FEWEST_SEQUENCES  # a state that finds no block is an error, a token that finds none waits
        reason = f"the cache holds {held:,} requests of {typical:,} tokens; {fewest} to {most}"
        return Chosen(value=min(max(held, fewest), most), reason=reason)

    def _fill(self, sums: Sums, limit: int) -> Sums:
        """All that the user's share leaves becomes cache."""
        room = (limit - sums.needed) * (UNSEEN - 1) // UNSEEN
        block = sums.cache.pool.block_bytes
        grown = (sums.cache.bytes + room) // block * block
        if sums.settings.kv_cache_bytes is not None or grown <= sums.cache.bytes:
            return sums
        return replace(sums, cache=replace(sums.cache, bytes=grown, reason="what gpu_memory_utilization leaves"))

    def _longest(self, sums: Sums, limit: int) -> int | None:
        """The longest context with which the most frugal plan fits, in round numbers."""
        settings = sums.settings

        def fits(length: int) -> bool:
            shorter = replace(settings, max_model_len=replace(settings.max_model_len, value=length))
            pool = self._pool(shorter, sums.ranks)
            cache = replace(sums.cache, pool=pool, bytes=pool.bytes(length) + pool.block_bytes)
            return self._sum(shorter, sums.devices, sums.ranks, cache).needed <= limit

        if settings.kv_cache_bytes is not None or not fits(_SHORTEST_CONTEXT):
            return None
        low, high = _SHORTEST_CONTEXT, settings.max_model_len.value
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        rounded = (low // step * step for step in (1024, 128, _SHORTEST_CONTEXT) if low >= step)
        return next((length for length in rounded if fits(length)), None)

    def _enough(self, sums: Sums, limit: int) -> int | None:
        """How many such devices would do; None: none of the usual numbers, or the devices are not the matter."""
        if sums.devices[0].kind is DeviceKind.HOST or tensor_parallel_wish(self.override):
            return None

        def fits(ranks: int) -> bool:
            return self._least(sums.settings, sums.devices, ranks).needed <= limit

        return next((n for n in (2, 4, 8, 16) if n > sums.ranks and divides(self.language, n) and fits(n)), None)

"""How a vLLM engine is started: its arguments and its memory. What enters: a profile, the devices it may use, what the user
and the policies say. What leaves: a plan with a reason for each number, or how much is missing and what would help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from modelium.brain.engine.faults import find_contradiction, least_cache
from modelium.brain.engine.fitting import Contexts, contexts_of, find_longest
from modelium.brain.engine.parts import Parts
from modelium.brain.engine.settings import Chosen, EngineSettings, choose_settings, divides, tensor_parallel_wish
from modelium.brain.engine.sums import UNSEEN, Sums, TooBig, bytes_of_share, lines_of, plan_of, too_big
from modelium.values import (
    Device,
    DeviceKind,
    EnginePlan,
    LanguageModel,
    ModelOverride,
    ModelProfile,
    Policies,
)

__all__ = ["TooBig", "fit_engine", "plan_engine"]

_SMALL_BATCHES = (4096, 2048)
_SHORTEST_CONTEXT = 16  # worth advising
_CACHE_STEPS = 32  # into which what is between the least and the wanted cache is divided


def plan_engine(
    profile: ModelProfile,
    devices: Sequence[Device],
    *,
    override: ModelOverride | None = None,
    policies: Policies | None = None,
    available: Mapping[str, int] | None = None,
    frugal: bool = False,
    ranks: int | None = None,
    contexts: Contexts | None = None,
    born: bool = False,
) -> EnginePlan | TooBig:
    """Plan an engine for the first of ``devices``, or for as many of them as it takes.

    ``available``: bytes that may be taken, by device (the budgets when None). ``frugal``: with cache for one request of full
    length only. ``ranks``: for exactly so many devices. ``contexts``: how much the context may be shortened, if not as the
    policies say. ``born``: a nursery forks its processes, which on the host take less then.

    1. The smallest number of equal devices that divides the heads, and on which the whole context fits or one of at least
       65,536 tokens (``is_long_enough``). If there is none, the number with which the longest context fits.
    2. KV cache: for one request of full length and a number of typical ones (``cache_sizes``), reduced down to one request.
    3. Still too much: smaller prefill steps.
    4. Still too much: the longest context that fits, in whole blocks. CUDA graphs stay where at least half of the context
       does that fits without them; then they go, and then it is too big.
    5. As many sequences at once as the cache holds typical requests, 32 to 256 (64 on the CPU).
    6. A GPU's share is what was planned but for the CUDA context, which is there before vLLM looks, over the device's total: so
       several engines share a device. vLLM gives the cache what is left of its share: estimating too much costs nothing.
       On the CPU the cache is told in bytes.
    7. What the user says in ``engine_args`` wins, and what depends on it is computed with it.
    8. Unless it cannot be: then that is said (``find_contradiction``).
    """
    made = _planner(profile, override, policies, available, frugal, contexts, born)
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
    frugal: bool = False,
    ranks: int | None = None,
    fewest: int = 1,
    contexts: Contexts | None = None,
    born: bool = False,
) -> EnginePlan | None:
    """:func:`plan_engine` for who does not ask why not: finding the words takes longer than finding out. ``fewest``: for so
    many devices at least."""
    fitted = _planner(profile, override, policies, available, frugal, contexts, born).over(devices, ranks, fewest)
    return fitted if isinstance(fitted, EnginePlan) else None


def _planner(
    profile: ModelProfile,
    override: ModelOverride | None,
    policies: Policies | None,
    available: Mapping[str, int] | None,
    frugal: bool,
    contexts: Contexts | None,
    born: bool,
) -> _Planner:
    language, policies = profile.language, policies or Policies()
    assert language is not None, "only what generates text has an engine"
    return _Planner(
        profile=profile,
        language=language,
        override=override or ModelOverride(),
        policies=policies,
        available=available,
        contexts=contexts,
        parts=Parts(profile=profile, language=language, policies=policies, frugal=frugal, born=born),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planner:
    profile: ModelProfile
    language: LanguageModel
    override: ModelOverride
    policies: Policies
    available: Mapping[str, int] | None
    contexts: Contexts | None
    parts: Parts

    def over(self, devices: Sequence[Device], ranks: int | None, fewest: int = 1) -> EnginePlan | TooBig | Sums | None:
        """A plan for as few of these devices as it takes (rule 1), or what was tried last; None where they are too few."""
        wish = ranks or tensor_parallel_wish(self.override)
        if devices[0].kind is DeviceKind.HOST:
            return self.fit(devices[:1], wish or 1)
        sizes = [wish] if wish else [n for n in range(fewest, len(devices) + 1) if divides(self.language, n)]
        sizes = [size for size in sizes if size <= len(devices)]
        if len(sizes) > 1:
            fitted = (self.fit(devices[:size], size, long_enough=True) for size in sizes)
            if (found := next((each for each in fitted if isinstance(each, EnginePlan)), None)) is not None:
                return found
        tried: TooBig | Sums | None = None
        best: EnginePlan | None = None
        for size in sizes:
            made = self.fit(devices[:size], size)
            if not isinstance(made, EnginePlan):
                tried = tried if isinstance(tried, TooBig) else made
            elif best is None or made.max_model_len > best.max_model_len:
                best = made
        return best or tried

    def fit(self, devices: Sequence[Device], ranks: int, *, long_enough: bool = False) -> EnginePlan | TooBig | Sums:
        """A plan for exactly these devices, or the most frugal sums. ``long_enough``: not with a short context."""
        own = choose_settings(self.profile, self.language, devices[0], self.override)
        lengths = contexts_of(own, self.policies, self.contexts, long_enough=long_enough)
        frugal = self._frugal(devices[0], lengths.shortest)
        if fault := find_contradiction(
            self.language, devices, ranks, frugal[0], self.parts.pool(frugal[0], ranks), self.override
        ):
            return fault  # 8
        limit = self._limit(devices, own)
        if (least := self.parts.least(frugal[-1], devices, ranks)).needed > limit:  # the usual answer while a device is full
            return least
        comfortable = _steps(self._settings(devices[0], lengths.longest))
        fitted = (self._with_most_cache(each, devices, ranks, limit) for each in comfortable)  # 2, 3
        found = next((each for each in fitted if each is not None), None)
        if found is None and lengths.shortest == lengths.longest:
            found = self._with_most_cache(frugal[-1], devices, ranks, limit)
        elif found is None:
            found = self._with_longest(lengths, devices, ranks, limit)  # 4
        assert found is not None, "the smallest of these sums was looked at before"
        return plan_of(self._fill(found, limit) if own.share is not None else found, self.language, self.override)

    def refuse(self, sums: Sums) -> TooBig:
        """Say how much is missing, and what would help."""
        limit = self._limit(sums.devices, sums.settings)
        tried = (
            self.parts.least(each, sums.devices, sums.ranks)
            for each in self._frugal(sums.devices[0], sums.settings.max_model_len.value)
        )
        lengths = (self._advised(each, limit) for each in tried)  # with CUDA graphs rather than without
        length = next((each for each in lengths if each is not None), None)
        return TooBig(
            needed_bytes=sums.needed,
            available_bytes=limit,
            devices=tuple(device.id for device in sums.devices),
            reason=too_big(self.profile, sums, limit, length, self._enough(sums, limit)),
            fitting_max_model_len=length,
            lines=lines_of(sums, self.override, fits=False),
        )

    def _limit(self, devices: Sequence[Device], settings: EngineSettings) -> int:
        """Bytes that may be taken on each of these devices."""
        limits = [device.budget_bytes if self.available is None else self.available[device.id] for device in devices]
        if self.override.memory_bytes is not None:
            limits.append(self.override.memory_bytes)
        if settings.share is not None:
            limits.append(bytes_of_share(settings.share, devices[0]))
        return min(limits)

    def _settings(self, device: Device, length: int) -> EngineSettings:
        return choose_settings(self.profile, self.language, device, self.override, length)

    def _frugal(self, device: Device, length: int) -> list[EngineSettings]:
        """With the smallest steps; and then without CUDA graphs, where that is ours to say."""
        smallest = _steps(self._settings(device, length))[-1]
        if smallest.eager.value or smallest.eager.by_hand:
            return [smallest]
        return [smallest, replace(smallest, eager=Chosen(value=True, reason="memory is tight: no CUDA graphs"))]

    def _with_most_cache(self, settings: EngineSettings, devices: Sequence[Device], ranks: int, limit: int) -> Sums | None:
        """With the wanted cache, or as much of it as there is room for; None where there is none for one request."""
        sizes = self.parts.cache_sizes_of(settings, ranks)

        def sums(step: int) -> Sums:
            size = sizes.least + (sizes.wanted - sizes.least) * step // _CACHE_STEPS
            return self.parts.sum(settings, devices, ranks, sizes.cache(size))

        if not self._holds_a_request(settings, ranks):
            return None
        if (most := sums(_CACHE_STEPS)).needed <= limit:
            return most
        low, high, found = 0, _CACHE_STEPS, sums(0)
        if found.needed > limit:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            made = sums(middle)
            low, high, found = (middle, high, made) if made.needed <= limit else (low, middle, found)
        return found

    def _with_longest(self, lengths: Contexts, devices: Sequence[Device], ranks: int, limit: int) -> Sums | None:
        """With the longest context that fits (rule 4)."""
        device, found = devices[0], list[Sums]()

        def least(length: int, variant: int) -> Sums:
            return self.parts.least(self._frugal(device, length)[variant], devices, ranks)

        def needed(length: int, variant: int) -> int:
            sums = least(length, variant)
            return sums.needed if self._holds_a_request(sums.settings, ranks) else limit + 1

        frugal = self._frugal(device, lengths.shortest)
        for variant in range(len(frugal)):
            if found and needed(min(2 * found[0].settings.max_model_len.value, lengths.longest), variant) > limit:
                break  # no graphs do not give twice as much
            demand = partial(needed, variant=variant)
            longest = find_longest(demand, limit, lengths.shortest, lengths.longest, frugal[0].block_size)
            if longest is not None:
                found.append(least(longest, variant))
        return max(found, key=lambda sums: sums.settings.max_model_len.value, default=None)

    def _holds_a_request(self, settings: EngineSettings, ranks: int) -> bool:
        """False for a cache that is set by hand and too small for the context."""
        size = settings.kv_cache_bytes
        return size is None or size >= least_cache(self.language, ranks, settings, self.parts.pool(settings, ranks))

    def _fill(self, sums: Sums, limit: int) -> Sums:
        """All that the user's share leaves becomes cache."""
        room = (limit - sums.needed) * (UNSEEN - 1) // UNSEEN
        block = sums.cache.pool.block_bytes
        grown = (sums.cache.bytes + room) // block * block
        if sums.settings.kv_cache_bytes is not None or grown <= sums.cache.bytes:
            return sums
        return replace(sums, cache=replace(sums.cache, bytes=grown, reason="what gpu_memory_utilization leaves"))

    def _advised(self, sums: Sums, limit: int) -> int | None:
        """The longest context with which the most frugal plan fits, in round numbers."""
        settings = sums.settings

        def needed(length: int) -> int:
            shorter = replace(settings, max_model_len=replace(settings.max_model_len, value=length))
            pool = self.parts.pool(shorter, sums.ranks)
            cache = replace(sums.cache, pool=pool, bytes=pool.bytes(length) + pool.block_bytes)
            return self.parts.sum(shorter, sums.devices, sums.ranks, cache).needed

        most = settings.max_model_len.value
        if settings.kv_cache_bytes is not None or most <= _SHORTEST_CONTEXT:
            return None
        longest = find_longest(needed, limit, _SHORTEST_CONTEXT, most - 1, 1)
        if longest is None:
            return None
        rounded = (longest // step * step for step in (1024, 128, _SHORTEST_CONTEXT) if longest >= step)
        return next((length for length in rounded if needed(length) <= limit), None)

    def _enough(self, sums: Sums, limit: int) -> int | None:
        """How many such devices would do; None: none of the usual numbers, or the devices are not the matter."""
        if sums.devices[0].kind is DeviceKind.HOST or tensor_parallel_wish(self.override):
            return None

        def fits(ranks: int) -> bool:
            return self.parts.least(sums.settings, sums.devices, ranks).needed <= limit

        return next((n for n in (2, 4, 8, 16) if n > sums.ranks and divides(self.language, n) and fits(n)), None)


def _steps(settings: EngineSettings) -> list[EngineSettings]:
    """With smaller and smaller prefill steps (rule 3), also of those that vLLM would choose by itself."""
    found = [settings]
    for size in _SMALL_BATCHES if settings.in_chunks and not settings.batched_tokens.by_hand else ():
        if settings.batched_tokens.value > size:
            batch = Chosen(value=size, reason="memory is tight: small steps take less")
            found.append(replace(settings, batched_tokens=batch, written_batch=True))
    return found

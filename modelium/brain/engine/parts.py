"""An engine's parts summed. What enters: a model, what the policies say; then settings, devices, a cache. What leaves: sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelium.brain.engine import memory
from modelium.brain.engine.caches import FEWEST_SEQUENCES, MOST_SEQUENCES, MOST_SEQUENCES_HOST, CacheSizes, cache_sizes
from modelium.brain.engine.kv_cache import KvSettings, Pool, kv_bytes_per_token, pool_of
from modelium.brain.engine.memory import DTYPE_BYTES
from modelium.brain.engine.settings import Chosen, EngineSettings, written_by_hand
from modelium.brain.engine.sums import Cache, Sums
from modelium.values import AttentionKind, Device, DeviceKind, LanguageModel, ModelProfile, Policies


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Of one model's engine. ``frugal``: its cache is for one request of full length only. ``born``: a nursery forks its
    processes."""

    profile: ModelProfile
    language: LanguageModel
    policies: Policies
    frugal: bool
    born: bool = False

    def least(self, settings: EngineSettings, devices: Sequence[Device], ranks: int) -> Sums:
        """With the smallest cache."""
        sizes = self.cache_sizes_of(settings, ranks)
        return self.sum(settings, devices, ranks, sizes.cache(sizes.least))

    def sum(self, settings: EngineSettings, devices: Sequence[Device], ranks: int, cache: Cache) -> Sums:
        """All that the engine takes with that cache."""
        language, device = self.language, devices[0]
        host = device.kind is DeviceKind.HOST
        length, dtype = settings.max_model_len.value, settings.dtype.value
        sequences = self._sequences(settings, cache, host=host)
        batch = max(min(settings.batched_tokens.value, sequences.value * length), sequences.value)
        weights = self._weights(settings, ranks)
        tables = memory.tables(
            language,
            device.kind,
            positions=language.context_length or settings.full_context,
            max_model_len=length,
            sequences=sequences.value,
            block_size=settings.block_size,
            dtype=dtype,
            later=weights.bytes + cache.bytes,
        )
        return Sums(
            settings=replace(settings, batched_tokens=replace(settings.batched_tokens, value=batch)),
            devices=tuple(devices),
            ranks=ranks,
            cache=cache,
            sequences=sequences,
            per_token=kv_bytes_per_token(language, kv_dtype_bytes=settings.kv_dtype_bytes, tensor_parallel=ranks),
            weights=weights,
            activations=memory.activations(
                language,
                tokens=batch,
                sequences=sequences.value,
                max_model_len=length,
                dtype=dtype,
                tensor_parallel=1 if host else ranks,
            ),
            graphs=memory.graphs(language, sequences=sequences.value, eager=settings.eager.value),
            overhead=memory.overhead(device.kind, tensor_parallel=ranks, tables=tables, born=self.born),
        )

    def cache_sizes_of(self, settings: EngineSettings, ranks: int) -> CacheSizes:
        """How large its cache should be."""
        weights = self._weights(settings, ranks).bytes
        return cache_sizes(self.pool(settings, ranks), settings, self.policies, weight_bytes=weights, frugal=self.frugal)

    def pool(self, settings: EngineSettings, ranks: int) -> Pool:
        """How its cache is cut."""
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

    def _weights(self, settings: EngineSettings, ranks: int) -> memory.Part:
        dtype, language = settings.dtype.value, self.language
        split = 1 if settings.on_host else ranks  # all ranks of a CPU engine are on the one host
        weights = memory.weights(self.profile, language, dtype=dtype, quantization=settings.quantization, tensor_parallel=split)
        if not settings.adapter_slots:
            return weights
        lora = memory.adapters(language, slots=settings.adapter_slots, rank=settings.adapter_rank, dtype=dtype)
        return memory.Part(bytes=weights.bytes + lora.bytes, reason=f"{weights.reason}; {lora.reason}")

    def _sequences(self, settings: EngineSettings, cache: Cache, *, host: bool) -> Chosen[int]:
        """How many requests run at once (rule 5)."""
        if settings.max_num_seqs is not None:
            return written_by_hand(settings.max_num_seqs)
        most = min(MOST_SEQUENCES_HOST if host else MOST_SEQUENCES, settings.batched_tokens.value)  # vLLM's own condition
        typical = min(self.policies.typical_tokens, settings.max_model_len.value)
        blocks = cache.pool.blocks(typical)
        if not blocks:
            return Chosen(value=most, reason="no request costs cache")
        held = cache.bytes // cache.pool.block_bytes // blocks
        states = any(rows.kind is AttentionKind.RECURRENT for _, rows in cache.pool.tables)
        # A state that finds no block is an error, a token that finds none waits.
        fewest = 1 if states else min(FEWEST_SEQUENCES, most)
        reason = f"the cache holds {held:,} request{'' if held == 1 else 's'} of {typical:,} tokens; {fewest} to {most}"
        return Chosen(value=min(max(held, fewest), most), reason=reason)

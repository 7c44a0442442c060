"""A generator of text and its engine as JSON: values enter, plain dictionaries leave. Sizes are in bytes."""

from __future__ import annotations

from collections.abc import Iterable

from modelium.brain.engine.kv_cache import kv_bytes_per_token
from modelium.values import Adapter, EnginePlan, LanguageModel, LayerGroup, PlanLine

Json = dict[str, object]

_WIDTHS = {"float32": 4}  # of one number in the KV cache; every other type that an engine computes in has 2 bytes


def language_view(language: LanguageModel) -> Json:
    """Facts of the model itself. ``kv_bytes_per_token``: in its own dtype, on one device; an engine's plan may say another."""
    return {
        "attention": language.attention,
        "layers": language.layers,
        "layer_groups": [_group_view(group) for group in language.groups],
        "hidden_size": language.hidden_size,
        "heads": language.heads,
        "kv_heads": language.kv_heads,
        "head_size": language.head_size,
        "kv_bytes_per_token": kv_bytes_per_token(language, kv_dtype_bytes=_WIDTHS.get(language.dtype, 2)),
        "context_length": language.context_length,
        "rope_scaling": language.rope_scaling,
        "vocabulary": language.vocabulary,
        "tied_embeddings": language.tied_embeddings,
        "experts": language.experts,
        "experts_per_token": language.experts_per_token,
        "active_parameters": language.active_parameters,
        "dtype": language.dtype,
        "quantization": language.quantization,
        "quantization_bits": language.quantization_bits,
        "encoder_decoder": language.encoder_decoder,
        "modalities": list(language.modalities),
        "chat_template": language.chat_template,
        "generation_defaults": dict(language.generation_defaults),
        "adapters": [adapter_view(adapter) for adapter in language.adapters],
    }


def adapter_view(adapter: Adapter) -> Json:
    return {
        "name": adapter.name,
        "path": str(adapter.path).encode(errors="backslashreplace").decode(),
        "rank": adapter.rank,
        "base": adapter.base,
        "target_modules": list(adapter.target_modules),
        "weight_bytes": adapter.weight_bytes,
    }


def engine_view(engine: EnginePlan) -> Json:
    """How the engine is started; ``plan`` has every number with its reason, in words. Bytes are per device."""
    return {
        "engine_args": dict(engine.engine_args),
        "devices": list(engine.devices),
        "max_model_len": engine.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "weight_bytes": engine.weight_bytes,
        "kv_bytes": engine.kv_bytes,
        "kv_bytes_per_token": engine.kv_bytes_per_token,
        "kv_tokens": engine.kv_tokens,
        "activation_bytes": engine.activation_bytes,
        "graph_bytes": engine.graph_bytes,
        "overhead_bytes": engine.overhead_bytes,
        "total_bytes": engine.total_bytes,
        "adapters": [adapter.name for adapter in engine.adapters],
        "plan": plan_view(engine.lines),
    }


def plan_view(lines: Iterable[PlanLine]) -> list[Json]:
    return [{"name": line.name, "value": line.value, "reason": line.reason} for line in lines]


def _group_view(group: LayerGroup) -> Json:
    return {
        "kind": group.kind.value,
        "layers": group.layers,
        "kv_heads": group.kv_heads,
        "head_size": group.head_size,
        "value_head_size": group.value_head_size or group.head_size,
        "latent_width": group.latent_width,
        "window": group.window,
        "state_bytes": group.state_bytes,
    }

"""A generator of text and its engine's plan, as they are told."""

from __future__ import annotations

from dataclasses import dataclass

from modelium import values
from modelium.brain.engine.kv_cache import kv_bytes_per_token
from modelium.brain.words import context_in_words
from modelium.views.fields import Of

_WIDTHS = {"float32": 4}  # of one number in the KV cache; every other type that an engine computes in has 2 bytes
_group = Of[values.LayerGroup]()
_adapter = Of[values.Adapter]()
_language = Of[values.LanguageModel]()
_line = Of[values.PlanLine]()
_engine = Of[values.EnginePlan]()


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGroup:
    """``layers`` equal layers."""

    kind: str = _group.needed()
    layers: int = _group.needed()
    kv_heads: int = _group(0)
    head_size: int = _group(0)
    value_head_size: int = _group(0, lambda group: group.value_head_size or group.head_size)
    latent_width: int = _group(0)
    compression: int = _group(1)
    window: int | None = _group(None)
    state_bytes: int = _group(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter."""

    name: str = _adapter.needed()
    path: str = _adapter("", lambda adapter: str(adapter.path).encode(errors="backslashreplace").decode())
    rank: int = _adapter(0)
    base: str = _adapter("")
    target_modules: tuple[str, ...] = _adapter(())
    weight_bytes: int = _adapter(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """Facts of the model itself. ``kv_bytes_per_token``: in its own dtype, on one device; an engine's plan may say another."""

    attention: str = _language("")
    layers: int = _language(0)
    layer_groups: tuple[LayerGroup, ...] = _language((), lambda language: language.groups)
    hidden_size: int = _language(0)
    heads: int = _language(0)
    kv_heads: int = _language(0)
    head_size: int = _language(0)
    kv_bytes_per_token: int = _language(
        0, lambda language: kv_bytes_per_token(language, kv_dtype_bytes=_WIDTHS.get(language.dtype, 2))
    )
    context_length: int | None = _language(None)
    rope_scaling: str = _language("")
    vocabulary: int = _language(0)
    tied_embeddings: bool = _language(False)
    experts: int = _language(0)
    experts_per_token: int = _language(0)
    active_parameters: int = _language(0)
    dtype: str = _language("")
    quantization: str = _language("")
    quantization_bits: int = _language(0)
    encoder_decoder: bool = _language(False)
    modalities: tuple[str, ...] = _language(())
    chat_template: bool = _language(False)
    generation_defaults: dict[str, object] = _language({})
    adapters: tuple[Adapter, ...] = _language(())


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLine:
    """A number of an engine's plan and why it is that."""

    name: str = _line.needed()
    value: str = _line.needed()
    reason: str = _line("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """How the engine is started; ``plan`` has every number with its reason, in words. Bytes are per device. ``full_context``:
    what ``max_model_len`` would be if memory were no matter; ``context`` says why it is less, where it is."""

    engine_args: dict[str, object] = _engine({})
    devices: tuple[str, ...] = _engine(())
    max_model_len: int = _engine(0)
    full_context: int = _engine(0)
    context: str = _engine("", context_in_words)
    max_num_seqs: int = _engine(0)
    weight_bytes: int = _engine(0)
    kv_bytes: int = _engine(0)
    kv_bytes_per_token: int = _engine(0)
    kv_tokens: int = _engine(0)
    activation_bytes: int = _engine(0)
    graph_bytes: int = _engine(0)
    overhead_bytes: int = _engine(0)
    total_bytes: int = _engine(0)
    adapters: tuple[str, ...] = _engine((), lambda engine: [adapter.name for adapter in engine.adapters])
    plan: tuple[PlanLine, ...] = _engine((), lambda engine: engine.lines)

"""Groups of equal layers, by what each remembers. What enters: facts, sizes and kinds. What leaves: ``LayerGroup``s."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from modelium.analyzers.language.facts import Facts, as_number
from modelium.analyzers.language.layer_kinds import LayerKind, kinds_of_layers, window_of
from modelium.analyzers.language.recurrent import state_of_layer
from modelium.analyzers.language.shape import Shape
from modelium.values import AttentionKind, LayerGroup

_NOTHING = Facts(given={})
_GLOBAL_HEADS = {"gemma4_text": 512, "gemma4_unified_text": 512, "diffusion_gemma_text": 512, "embedding_gemma2_text": 512}
_COMPRESSION = "compress_ratio"
_NEVER = 2**20
_RATES = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
_INDEXED = 4  # vLLM's models/deepseek_v4/attention.py
_FULL = {LayerKind.FULL, LayerKind.HYBRID}
_SLIDING = {LayerKind.SLIDING, LayerKind.HYBRID_SLIDING}
_STATES = {LayerKind.RECURRENT, LayerKind.HYBRID, LayerKind.HYBRID_SLIDING}


def layer_groups(decoder: Facts, shape: Shape, *, element_bytes: int, encoder_decoder: bool) -> tuple[LayerGroup, ...]:
    """All layers, in the order in which each kind first comes. A layer with attention and a state is in two groups, and so
    is one that looks at an encoder besides itself.
    """
    kinds = kinds_of_layers(decoder, shape.layers)
    groups: Counter[LayerGroup] = Counter()
    own = _of_single_layers(decoder)
    for index, kind in enumerate(kinds):
        heads = shape.per_layer_kv_heads[index] if shape.per_layer_kv_heads else shape.kv_heads
        for group in _of_layer(decoder, own.get(index, _NOTHING), shape, kind, heads, element_bytes):
            groups[group] += 1
        if encoder_decoder and kind in _FULL | _SLIDING:
            groups[_one(AttentionKind.CROSS, shape.kv_heads, shape.head_size)] += 1
    return tuple(replace(group, layers=count) for group, count in groups.items())


def _of_single_layers(decoder: Facts) -> dict[int, Facts]:
    """``per_layer_config``: what single layers have otherwise, by their number as a text."""
    ratios = decoder.items("compress_ratios") or _ratios_in_words(decoder)
    if ratios:  # DeepSeek V4; 0: no cache but the window's
        return {place: Facts(given={_COMPRESSION: max(as_number(ratio) or _NEVER, 1)}) for place, ratio in enumerate(ratios)}
    given = decoder.value("per_layer_config")
    entries = given.items() if isinstance(given, dict) else ()
    numbered = ((key, value) for key, value in entries if isinstance(value, dict) and key.isascii() and key.isdigit())
    return {int(key): Facts(given=value) for key, value in numbered if len(key) < 6}


def _ratios_in_words(decoder: Facts) -> list[object]:
    """The same as transformers writes it; empty for all others."""
    words, rates = decoder.items("layer_types"), decoder.part("compress_rates")
    ratios: list[object] = [rates.number(str(word)) or _RATES.get(str(word), 0) for word in words]
    return ratios if any(ratios) else []


def _of_layer(decoder: Facts, own: Facts, shape: Shape, kind: LayerKind, kv_heads: int, element_bytes: int) -> list[LayerGroup]:
    found = []
    if (ratio := own.number(_COMPRESSION)) is not None:
        found += _compressed(decoder, shape, ratio)
    elif kind in _FULL:
        found.append(_full(decoder, own, shape, kv_heads))
    elif kind in _SLIDING:
        found.append(_sliding(decoder, own, shape, kv_heads))
    elif kind is LayerKind.CROSS:
        found.append(_one(AttentionKind.CROSS, kv_heads, shape.head_size))
    elif kind is LayerKind.NOTHING:
        found.append(LayerGroup(kind=AttentionKind.NONE, layers=1))
    if kind in _STATES:
        state = state_of_layer(decoder, shape, element_bytes)
        group = LayerGroup(kind=AttentionKind.RECURRENT, layers=1, state_bytes=state.bytes, state_elements=state.elements)
        found.append(group)
    return found


def _compressed(decoder: Facts, shape: Shape, ratio: int) -> list[LayerGroup]:
    """DeepSeek V4: a window of plain vectors, and behind it one vector for ``ratio`` tokens; where few are taken together, an
    indexer's key beside it, in pages of its own. Keys are values too, so half of a vector's width stands for each.
    """
    window = _one(AttentionKind.SLIDING, 1, shape.latent_width // 2, window=window_of(decoder) or 1)
    if ratio >= _NEVER:
        return [window]
    latent = LayerGroup(kind=AttentionKind.LATENT, layers=1, latent_width=shape.latent_width, compression=ratio)
    key = _key_width(decoder) if ratio <= _INDEXED else 0
    return [window, latent, replace(latent, latent_width=key)] if key else [window, latent]


def _full(decoder: Facts, own: Facts, shape: Shape, kv_heads: int) -> LayerGroup:
    if shape.latent_width:
        return LayerGroup(kind=AttentionKind.LATENT, layers=1, latent_width=shape.latent_width + _indexer_width(decoder))
    if not kv_heads:
        return LayerGroup(kind=AttentionKind.NONE, layers=1)
    heads, size = own.number("num_key_value_heads"), own.number("head_dim")
    if not decoder.has("per_layer_config"):  # Gemma 4, as first published: wider heads, and fewer where keys are values too
        heads = decoder.number("num_global_key_value_heads") if decoder.flag("attention_k_eq_v") is not False else None
        size = decoder.number("global_head_dim") or _GLOBAL_HEADS.get(decoder.model_type)
    return _one(AttentionKind.FULL, heads or kv_heads, size or shape.head_size, shape.value_head_size if size is None else 0)


def _indexer_width(decoder: Facts) -> int:
    """Sparse attention (DeepSeek 3.2, GLM 5) keeps a key for its indexer beside the latent."""
    return _key_width(decoder) if decoder.number("kv_lora_rank") is not None else 0


def _key_width(decoder: Facts) -> int:
    """One byte an element and a float32 scale for each 128 of them, counted here in elements of two bytes."""
    size = decoder.number("index_head_dim") or 0
    return (size + 4 * (size // 128) + 1) // 2


def _sliding(decoder: Facts, own: Facts, shape: Shape, kv_heads: int) -> LayerGroup:
    if shape.latent_width and not decoder.has("swa_head_dim"):
        return LayerGroup(kind=AttentionKind.LATENT, layers=1, latent_width=shape.latent_width)
    heads = own.number("num_key_value_heads") or decoder.number("swa_num_key_value_heads") or kv_heads
    size = own.number("head_dim") or decoder.number("swa_head_dim") or shape.head_size
    values = decoder.number("swa_v_head_dim") or (shape.value_head_size if size == shape.head_size else size)
    window = own.number("sliding_window") or window_of(decoder)
    return _one(AttentionKind.SLIDING, heads, size, values if values != size else 0, window)


def _one(kind: AttentionKind, kv_heads: int, head_size: int, value_head_size: int = 0, window: int | None = None) -> LayerGroup:
    return LayerGroup(
        kind=kind, layers=1, kv_heads=kv_heads, head_size=head_size, value_head_size=value_head_size, window=window
    )


def attention_word(shape: Shape, groups: tuple[LayerGroup, ...]) -> str:
    """MHA, GQA, MQA, MLA or none, for the user."""
    kinds = {group.kind for group in groups}
    if AttentionKind.LATENT in kinds:
        return "MLA"
    if not kinds & {AttentionKind.FULL, AttentionKind.SLIDING, AttentionKind.CROSS} or not shape.heads:
        return "none"
    if shape.kv_heads == shape.heads:
        return "MHA"
    return "MQA" if shape.kv_heads == 1 else "GQA"

"""What each layer of the decoder is, as a word a layer. What enters: the decoder's facts. What leaves: ``LayerKind`` a layer.

Newer files list it (``layer_types``); older ones give a period, an offset, a pattern of letters or nothing at all, and then
it is the class of the model that knows.
"""

from __future__ import annotations

from enum import Enum
from itertools import chain, islice, repeat

from modelium.analyzers.language.context import read_context
from modelium.analyzers.language.facts import Facts, as_number


class LayerKind(Enum):
    """``HYBRID`` has attention and a state side by side (Falcon-H1), ``NOTHING`` remembers nothing (a bare feed-forward)."""

    FULL = "full"
    SLIDING = "sliding"
    RECURRENT = "recurrent"
    HYBRID = "hybrid"
    HYBRID_SLIDING = "hybrid sliding"
    CROSS = "cross"
    NOTHING = "nothing"


_WORDS = {
    "sliding_attention": LayerKind.SLIDING,
    "window_attention": LayerKind.SLIDING,
    "chunked_attention": LayerKind.SLIDING,
    "local_attention": LayerKind.SLIDING,
    "local": LayerKind.SLIDING,
    "linear_attention": LayerKind.RECURRENT,
    "mamba": LayerKind.RECURRENT,
    "mamba2": LayerKind.RECURRENT,
    "recurrent": LayerKind.RECURRENT,
    "conv": LayerKind.RECURRENT,
    "short_conv": LayerKind.RECURRENT,
    "rwkv": LayerKind.RECURRENT,
    "kda": LayerKind.RECURRENT,
    "hybrid": LayerKind.HYBRID,
    "hybrid_sliding": LayerKind.HYBRID_SLIDING,
    "moe": LayerKind.NOTHING,
    "mlp": LayerKind.NOTHING,
    "noop": LayerKind.NOTHING,
}
_LETTERS = {"M": LayerKind.RECURRENT, "*": LayerKind.FULL, "-": LayerKind.NOTHING, "E": LayerKind.NOTHING}
_RECURRENT_TYPES = {"mamba", "mamba2", "falcon_mamba", "rwkv", "rwkv7", "xlstm"}
_HYBRID_TYPES = {"falcon_h1"}
# One full layer in so many, where neither the file nor its class says how many: (period, place of the full one).
_FULL_EVERY = {
    "afmoe": (4, 3),
    "cohere2": (4, 3),
    "cohere_compass": (4, 3),
    "cwm": (4, 0),
    "embedding_gemma2_text": (6, 5),
    "gemma2": (2, 1),
    "gemma3_text": (6, 5),
    "gemma3n_text": (5, 4),
    "gemma4_text": (6, 5),
    "gemma4_unified_text": (6, 5),
    "gpt_oss": (2, 1),
    "granite_swa": (4, 0),
    "granitemoe_swa": (4, 0),
    "inkling_text": (6, 5),
    "mimo_v2_flash": (6, 5),
    "modernbert-decoder": (3, 0),
    "olmo3": (4, 3),
    "t5gemma_module": (2, 1),
    "t5gemma2_decoder": (6, 5),
    "vaultgemma": (2, 1),
}
_FIRST_IS_FULL = {"mimo_v2_flash"}
_LAST_IS_FULL = {"gemma4_text", "gemma4_unified_text"}
# One attention layer in so many, the last of each group, where the file does not say.
_ATTENTION_EVERY = {
    "glm5_next": 4,
    "glm5_next_text": 4,
    "kimi_linear": 4,
    "olmo_hybrid": 4,
    "qwen3_5_moe_text": 4,
    "qwen3_5_text": 4,
    "qwen3_next": 4,
    "qwen4_exp_text": 4,
}


def kinds_of_layers(decoder: Facts, layers: int) -> tuple[LayerKind, ...]:
    """One kind a layer.

    1. Models without attention, and those with both in each layer, by their type.
    2. A list of words, a pattern of letters, or searched blocks: as given.
    3. Which layers have attention, the others having a state: by indices, by period and offset, by group.
    4. Which layers have a window: by period, by indices, from some layer on, or all.
    5. Cross-attention in some layers of the decoder itself (Mllama).
    6. The last layers may use the cache of earlier ones (Gemma 3n): they keep nothing of their own.
    """
    model_type = decoder.model_type
    if model_type in _RECURRENT_TYPES:
        return (LayerKind.RECURRENT,) * layers  # 1
    if model_type in _HYBRID_TYPES:
        return (LayerKind.HYBRID,) * layers
    kinds = _listed(decoder, layers) or _with_states(decoder, layers) or _with_windows(decoder, layers)  # 2, 3, 4
    for index in decoder.items("cross_attention_layers"):  # 5
        if (place := _index(index)) is not None and place < layers:
            kinds[place] = LayerKind.CROSS
    shared = decoder.number("num_kv_shared_layers")
    if shared is not None and shared < layers:  # 6
        kinds[layers - shared :] = [LayerKind.NOTHING] * shared
    return tuple(kinds)


def _listed(decoder: Facts, layers: int) -> list[LayerKind] | None:
    pattern = decoder.word("hybrid_override_pattern")
    if pattern:
        return [_LETTERS.get(letter, LayerKind.FULL) for letter in pattern[:layers]]
    for key in ("layer_types", "layers_block_type"):
        words = decoder.items(key)
        if len(words) >= layers:
            kinds = [_WORDS.get(str(word), LayerKind.FULL) for word in words[:layers]]
            return _windowless(kinds) if not _has_window(decoder) else kinds
    if cycle := decoder.items("block_types", "_block_types"):
        kinds = [_WORDS.get(str(cycle[index % len(cycle)]), LayerKind.FULL) for index in range(layers)]
        # RecurrentGemma's attention has a window, under another name.
        local = decoder.number("attention_window_size") is not None
        return [LayerKind.SLIDING if local and kind is LayerKind.FULL else kind for kind in kinds]
    if kept := decoder.items("attn_type_list"):
        kinds = [LayerKind.FULL if word == 1 else LayerKind.RECURRENT for word in kept[:layers]]
        return kinds if len(kinds) == layers else None
    blocks = decoder.items("block_configs")
    if len(blocks) >= layers:
        return [_block(block) for block in blocks[:layers]]
    if decoder.model_type == "nemotron_h" and layers == 4:
        return [LayerKind.RECURRENT, LayerKind.NOTHING, LayerKind.FULL, LayerKind.NOTHING]
    if decoder.model_type == "gpt_neo":
        return _alternating(decoder, layers)
    return None


def _alternating(decoder: Facts, layers: int) -> list[LayerKind]:
    """GPT-Neo: ``[[["global", "local"], 12]]``."""
    words: list[object] = []
    for group in decoder.items("attention_types"):
        match group:
            case [[_, *_] as cycle, int(count)] if 0 < count <= layers:
                words += islice(chain.from_iterable(repeat(cycle, count)), layers - len(words))
    words = words or ["global", "local"] * layers
    return [_WORDS.get(str(word), LayerKind.FULL) for word in words[:layers]] + [LayerKind.FULL] * (layers - len(words))


def _with_states(decoder: Facts, layers: int) -> list[LayerKind] | None:
    """Hybrids: some layers have attention, the others a state of fixed size."""
    attention = _attention_places(decoder, layers)
    if attention is None:
        return None
    both = LayerKind.HYBRID if decoder.model_type in {"zamba", "zamba2"} else LayerKind.FULL
    return [both if index in attention else LayerKind.RECURRENT for index in range(layers)]


def _attention_places(decoder: Facts, layers: int) -> set[int] | None:
    indices = decoder.value("attn_layer_indices", "full_attn_idxs", "hybrid_layer_ids")
    if isinstance(indices, list):
        return {place for item in indices if (place := _index(item)) is not None}
    linear = decoder.part("linear_attn_config")
    if linear.items("full_attn_layers"):  # counted from 1 in Kimi's files
        return {number - 1 for item in linear.items("full_attn_layers") if (number := as_number(item)) is not None}
    period = decoder.number("attn_layer_period")
    if period is not None:
        offset = _index(decoder.value("attn_layer_offset")) or 0
        return {index for index in range(layers) if index % period == offset % period}
    period = decoder.number("full_attention_interval") or decoder.number("layer_group_size")
    period = period or _ATTENTION_EVERY.get(decoder.model_type)
    if period is not None and (period > 1 or decoder.has("layer_group_size")):
        if decoder.model_type == "kimi_linear":
            return {index for index in range(1, layers) if index % period == 0}
        return {index for index in range(layers) if index % period == period - 1}
    if decoder.model_type in {"bamba", "granitemoehybrid"}:
        return set()
    if decoder.model_type in {"lfm2", "lfm2_moe"}:
        return set(range(layers))
    return None


def _with_windows(decoder: Facts, layers: int) -> list[LayerKind]:
    if not _has_window(decoder):
        return [LayerKind.FULL] * layers
    if (listed := _listed_windows(decoder, layers)) is not None:
        return _windows(listed, layers)
    rotated = decoder.items("no_rope_layers")
    if decoder.has("attention_chunk_size"):  # Llama 4: 1 where positions are rotated, and attention is in chunks
        full = {index for index in range(layers) if index < len(rotated) and rotated[index] == 0}
        step = decoder.number("no_rope_layer_interval") or 4
        return _windows(full or ({index for index in range(layers) if index % step == step - 1}), layers)
    first = decoder.value("max_window_layers")
    if isinstance(first, int) and not isinstance(first, bool):
        return _windows(set(range(min(max(first, 0), layers))), layers)
    places = _full_by_period(decoder, layers)
    return _windows(places, layers) if places is not None else [LayerKind.SLIDING] * layers


def _listed_windows(decoder: Facts, layers: int) -> set[int] | None:
    """MiMo V2: 1 where there is a window. It names a chunk too, which is its window's size and no pattern of Llama 4's."""
    listed = decoder.items("hybrid_layer_pattern")
    return {index for index in range(layers) if listed[index] == 0} if len(listed) >= layers else None


def _full_by_period(decoder: Facts, layers: int) -> set[int] | None:
    pattern = decoder.value("sliding_window_pattern", "_sliding_window_pattern")
    if isinstance(pattern, str) and pattern:  # EXAONE 4: "LLLG"
        return {index for index in range(layers) if pattern[index % len(pattern)] in "Gg"}
    period, place = as_number(pattern), None
    if period is None and (every := decoder.number("global_attn_every_n_layers")) is not None:
        period, place = every, 0 if decoder.model_type == "modernbert-decoder" else None
    if period is None and decoder.model_type in _FULL_EVERY:
        period, place = _FULL_EVERY[decoder.model_type]
    if period is None:
        return None
    place = period - 1 if place is None else place
    full = {index for index in range(layers) if index % period == place}
    full |= {0} if decoder.model_type in _FIRST_IS_FULL else set()
    return full | ({layers - 1} if decoder.model_type in _LAST_IS_FULL else set())


def _windows(full: set[int], layers: int) -> list[LayerKind]:
    return [LayerKind.FULL if index in full else LayerKind.SLIDING for index in range(layers)]


def window_of(decoder: Facts) -> int | None:
    """Tokens that a layer with a window sees."""
    names = ("sliding_window", "sliding_window_size", "attention_chunk_size", "attention_window_size", "window_size")
    if decoder.model_type == "modernbert-decoder":
        local = decoder.number("local_attention")
        return decoder.number("sliding_window") or (local // 2 if local is not None else None)
    return next((window for name in names if (window := decoder.number(name)) is not None), None)


def _has_window(decoder: Facts) -> bool:
    """A window that the longest request fits into leaves nothing out."""
    window, longest = window_of(decoder), read_context(decoder).length
    if window is None or decoder.flag("use_sliding_window") is False:
        return False
    return longest is None or window < longest


def _windowless(kinds: list[LayerKind]) -> list[LayerKind]:
    """A window that is switched off, whatever the list says."""
    full = {LayerKind.SLIDING: LayerKind.FULL, LayerKind.HYBRID_SLIDING: LayerKind.HYBRID}
    return [full.get(kind, kind) for kind in kinds]


def _block(block: object) -> LayerKind:
    attention = block.get("attention") if isinstance(block, dict) else None
    if not isinstance(attention, dict):
        return _WORDS.get(str(block.get("block_type")), LayerKind.FULL) if isinstance(block, dict) else LayerKind.FULL
    gone = attention.get("no_op") is True or attention.get("replace_with_linear") is True
    return LayerKind.NOTHING if gone else LayerKind.FULL


def _index(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**20 else None

"""The decoder's plain sizes. What enters: its facts. What leaves: ``Shape``, or None where there is no saying."""

from __future__ import annotations

from dataclasses import dataclass

from modelium.analyzers.language.facts import Facts, as_number

_MOST_LAYERS = 10_000
_MOST_WIDTH = 2**24

_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "layers", "num_blocks", "num_transformer_layers")
_DECODER_LAYERS = ("decoder_layers", "num_decoder_layers")
_HIDDEN = ("hidden_size", "d_model", "n_embd", "n_embed", "embed_dim", "emb_dim", "model_dim", "dim", "embedding_dim")
_HEADS = ("num_attention_heads", "n_heads", "n_head", "num_heads", "attention_heads", "num_query_heads")
_DECODER_HEADS = ("decoder_attention_heads", "num_decoder_attention_heads")
_KV_HEADS = (
    "n_head_kv",
    "num_kv_heads",
    "num_key_value_heads",
    "multi_query_group_num",
    "num_attention_groups",
    "num_query_groups",
    "kv_n_heads",
    "n_kv_heads",
)
_HEAD_SIZES = ("head_dim", "hidden_size_per_head", "attention_head_dim", "attention_head_size", "d_kv", "d_head", "kv_channels")
_FEED_FORWARD = (
    "decoder_ffn_dim",
    "intermediate_size",
    "ffn_hidden_size",
    "ffn_dim",
    "n_inner",
    "inner_dim",
    "d_ff",
    "ffn_intermediate_size",
)
# Models without any attention: heads, if their config has such a word, mean something else.
_NO_ATTENTION = {"mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm", "rwkv7"}
# Those that vLLM keeps a latent cache for. Others with low-rank weights (MiniCPM 3) have full keys and values in theirs.
_LATENT_TYPES = {
    "axk1",
    "bailing_hybrid",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "deepseek_v4",
    "glm4_moe_lite",
    "glm5_next",
    "glm5_next_text",
    "glm_moe_dsa",
    "hy_v4",
    "kimi_k2",
    "kimi_linear",
    "longcat_flash",
    "pangu_ultra_moe",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """``kv_heads`` and ``head_size`` as vLLM counts them: of a latent cache one head of the latent's width."""

    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_size: int
    value_head_size: int  # 0: the keys' size
    vocabulary: int
    intermediate_size: int
    latent_width: int  # 0: no latent cache
    per_layer_kv_heads: tuple[int, ...] = ()


def read_shape(decoder: Facts) -> Shape | None:
    """None when layers, width or heads are missing or absurd."""
    layers = count_layers(decoder)
    hidden = decoder.number(*_HIDDEN)
    heads = _heads(decoder)
    if layers is None or hidden is None or heads is None or max(hidden, heads) > _MOST_WIDTH:
        return None
    latent = _latent_width(decoder)
    kv_heads, per_layer = _kv_heads(decoder, heads, layers)
    size = _head_size(decoder, hidden, heads)
    if heads and not size:
        return None
    # Of low-rank weights the values are padded to the keys' size before they are kept.
    low_rank = decoder.number("kv_lora_rank") is not None
    value_size = decoder.number("v_head_dim", "value_head_dim") if not low_rank else None
    return Shape(
        layers=layers,
        hidden_size=hidden,
        heads=heads,
        kv_heads=kv_heads if not latent else min(heads, 1),
        head_size=latent or size,
        value_head_size=value_size if value_size is not None and value_size != size else 0,
        vocabulary=decoder.number("vocab_size", "padded_vocab_size", "n_vocab", "tgt_vocab_size") or 0,
        intermediate_size=_feed_forward(decoder, hidden),
        latent_width=latent,
        per_layer_kv_heads=per_layer,
    )


def count_layers(decoder: Facts) -> int | None:
    """Layers of the decoder; lists that name each layer win over a count that is kept for older readers."""
    pattern = decoder.word("hybrid_override_pattern")
    if pattern:
        return len(pattern) if len(pattern) <= _MOST_LAYERS else None
    layers = decoder.number(*_DECODER_LAYERS) or decoder.number(*_LAYERS)
    if decoder.model_type == "longcat_flash":  # its layers have two attention blocks each
        plain = decoder.number("num_layers")
        layers = 2 * plain if plain is not None else layers
    if layers is None:
        listed = decoder.items("layer_types") or decoder.items("layers_block_type") or decoder.items("block_configs")
        layers = len(listed) or None
    if layers is None and decoder.model_type == "nemotron_h":
        layers = 4
    return layers if layers is not None and layers <= _MOST_LAYERS else None


def _heads(decoder: Facts) -> int | None:
    if decoder.model_type in _NO_ATTENTION:
        return 0
    heads = decoder.value(*_DECODER_HEADS) or decoder.value(*_HEADS)
    if isinstance(heads, list):  # OpenELM: one number a layer
        return max((number for item in heads if (number := as_number(item)) is not None), default=None)
    return as_number(heads)


def _kv_heads(decoder: Facts, heads: int, layers: int) -> tuple[int, tuple[int, ...]]:
    if not heads:
        return 0, ()
    if decoder.flag("multi_query") and not decoder.flag("new_decoder_architecture"):
        grouped = decoder.number("multi_query_group_num") if not decoder.has("multi_query_attention") else None
        return grouped or 1, ()
    if decoder.flag("multi_query_attention"):  # ChatGLM
        return decoder.number("multi_query_group_num") or 1, ()
    value = decoder.value("num_key_value_heads_per_layer") or decoder.value(*_KV_HEADS)
    if value is None:
        value = decoder.part("attn_config").value("kv_n_heads", "num_key_value_heads")
    if decoder.has("decoder_attention_heads", "num_decoder_attention_heads"):
        value = heads
    per_layer = tuple(as_number(item) or 0 for item in value[:layers]) if isinstance(value, list) else ()
    if not per_layer:
        per_layer = tuple(_grouped(block, heads) for block in decoder.items("block_configs")[:layers])
    if len(per_layer) == layers and max(per_layer) > 0:
        return max(per_layer), per_layer
    return min(as_number(value) or heads, _MOST_WIDTH), ()


def _grouped(block: object, heads: int) -> int:
    """KV heads of one block of a searched architecture (DeciLM, Nemotron-NAS); 0 where it has no attention."""
    attention = block.get("attention") if isinstance(block, dict) else None
    group = as_number(attention.get("n_heads_in_group")) if isinstance(attention, dict) else None
    return heads // group if group else 0


def _head_size(decoder: Facts, hidden: int, heads: int) -> int:
    if not heads:
        return 0
    nope, rope = decoder.number("qk_nope_head_dim"), decoder.number("qk_rope_head_dim")
    if nope is not None and rope is not None and decoder.number("kv_lora_rank") is not None:
        return nope + rope
    size = decoder.number(*_HEAD_SIZES)
    return min(size, _MOST_WIDTH) if size is not None else hidden // heads


def _latent_width(decoder: Facts) -> int:
    """MLA: what is kept of a token is one vector, ``kv_lora_rank + qk_rope_head_dim`` wide."""
    rank = decoder.number("kv_lora_rank")
    if (
        decoder.model_type == "deepseek_v4"
    ):  # it compresses over tokens too, which is not counted: too much rather than too little
        return decoder.number("head_dim") or 0
    if decoder.model_type not in _LATENT_TYPES or rank is None:
        return 0
    return rank + (decoder.number("qk_rope_head_dim") or 0)


def _feed_forward(decoder: Facts, hidden: int) -> int:
    size = decoder.value(*_FEED_FORWARD)
    if isinstance(size, list):
        return max((number for item in size if (number := as_number(item)) is not None), default=4 * hidden)
    number = as_number(size) or as_number(decoder.part("ffn_config").value("ffn_hidden_size"))
    return min(number if number is not None else 4 * hidden, _MOST_WIDTH)

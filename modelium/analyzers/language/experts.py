"""A mixture of experts: how many there are, and how much of the model a token passes through.

What enters: the decoder's facts and the exact counts of parameters. What leaves: ``Experts``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelium.analyzers.language.facts import Facts, as_number
from modelium.analyzers.language.shape import Shape

_EXPERTS = (
    "num_experts",
    "moe_num_experts",
    "n_routed_experts",
    "num_local_experts",
    "moe_n_experts",
    "num_routed_experts",
)
_CHOSEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "num_selected_experts",
    "top_k_experts",
    "moe_topk",
    "moe_top_k",
    "moe_k",
    "top_k",
)
_WIDTHS = ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size", "expert_intermediate_size", "moe_d_ff")
_UNGATED_TYPES = {"nemotron_h", "nllb-moe", "switch_transformers", "phimoe_ungated"}
_DENSE_FIRST = {"ernie4_5_moe_vl_text": 1, "hy_v3": 1, "hy_v4": 1, "laguna": 1, "glm4_moe_lite": 1, "mimo_v2_flash": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """``count`` 0 for a dense model. ``active_parameters`` is 0 where the total is not known."""

    count: int
    chosen: int
    active_parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Of the weights' headers: parameters that are loaded, of them ``routed`` in experts that a token visits or not, and
    ``in_towers`` that look and listen."""

    parameters: int
    routed: int = 0
    in_towers: int = 0


def read_experts(decoder: Facts, shape: Shape, seen: Seen, *, opaque: bool, tied: bool) -> Experts:
    """What is there less the experts that a token does not visit, and the towers.

    1. By the tensors of the experts; where they have no such names, by the sizes of their matrices.
    2. Of opaque weights the headers do not say how many parameters they stand for: there the active ones are added up from
       the sizes of the matrices.
    """
    count = _count(decoder)
    if count < 2:
        summed = _sum_up(shape, shape.layers * 3 * shape.hidden_size * shape.intermediate_size, tied=tied) if opaque else 0
        return Experts(count=0, chosen=0, active_parameters=summed if opaque and seen.parameters else seen.parameters)
    chosen = min(_chosen(decoder) or 1, count)
    matrices = 2 if decoder.model_type in _UNGATED_TYPES else 3
    one = matrices * shape.hidden_size * _width(decoder, shape)
    layers = _layers(decoder, shape.layers)
    idle = seen.routed * (count - chosen) // count if seen.routed else layers * (count - chosen) * one  # 1
    active = max(seen.parameters - seen.in_towers - idle, 0)
    if seen.parameters and opaque:  # 2
        dense = (shape.layers - layers) * 3 * shape.hidden_size * shape.intermediate_size
        shared = decoder.number("n_shared_experts", "num_shared_experts", "moe_num_shared_experts") or 0
        active = _sum_up(shape, layers * (chosen + shared) * one + dense, tied=tied)
    return Experts(count=count, chosen=chosen, active_parameters=active)


def _sum_up(shape: Shape, feed_forward: int, *, tied: bool) -> int:
    """Embeddings, attention and feed-forward; norms, biases and routers are too small to matter."""
    embeddings = shape.vocabulary * shape.hidden_size * (1 if tied else 2)
    attention = shape.layers * shape.hidden_size * shape.head_size * 2 * (shape.heads + shape.kv_heads)
    return embeddings + attention + feed_forward


def _count(decoder: Facts) -> int:
    value = decoder.value(*_EXPERTS)
    if isinstance(value, list):  # one number a layer, or a modality
        return max((number for item in value if (number := as_number(item)) is not None), default=0)
    inner = decoder.part("ffn_config").value("moe_num_experts") if value is None else value
    in_blocks = [as_number(block.get("n_routed_experts")) or 0 for block in _blocks(decoder)]
    return as_number(inner) or max(in_blocks, default=0)


def _chosen(decoder: Facts) -> int:
    value = decoder.value(*_CHOSEN)
    if isinstance(value, list):
        return max((number for item in value if (number := as_number(item)) is not None), default=0)
    return as_number(value) or as_number(decoder.part("ffn_config").value("moe_top_k")) or 0


def _width(decoder: Facts, shape: Shape) -> int:
    value = decoder.value(*_WIDTHS)
    if isinstance(value, list):
        value = next(iter(value), None)
    return as_number(value) or as_number(decoder.part("ffn_config").value("ffn_hidden_size")) or shape.intermediate_size


def _layers(decoder: Facts, layers: int) -> int:
    """Layers whose feed-forward is a mixture."""
    for key in ("mlp_layer_types", "layer_types", "layers_block_type"):
        words = decoder.items(key)[:layers]
        sparse = sum(word in ("sparse", "moe", "hash_moe") for word in words)
        if sparse:
            return sparse
    pattern = decoder.word("hybrid_override_pattern")
    if "E" in pattern:
        return pattern[:layers].count("E")
    listed = decoder.word("moe_layers_enum") or decoder.items("moe_layers")
    if listed:
        return min(len(listed.split(",") if isinstance(listed, str) else listed), layers)
    period = decoder.number("expert_layer_period")
    if period is not None:
        offset = decoder.value("expert_layer_offset")
        place = offset % period if isinstance(offset, int) else period - 1
        return sum(index % period == place for index in range(layers))
    step = decoder.number("interleave_moe_layer_step", "decoder_sparse_step", "moe_layer_interval") or 1
    dense = {item for item in decoder.items("mlp_only_layers") if isinstance(item, int)}
    return sum((index + 1) % step == 0 and index not in dense for index in range(_dense_first(decoder, layers), layers))


def _dense_first(decoder: Facts, layers: int) -> int:
    names = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
    value = next((found for name in names if (found := decoder.value(name)) is not None), None)
    if isinstance(value, int) and not isinstance(value, bool):
        return min(max(value, 0), layers)
    return min(_DENSE_FIRST.get(decoder.model_type, 0), layers)


def _blocks(decoder: Facts) -> list[Mapping[str, object]]:
    return [block for block in decoder.items("block_configs") if isinstance(block, dict)]

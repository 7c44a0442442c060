"""The state that a layer without a growing cache keeps for each sequence.

What enters: the decoder's facts and the bytes of an element of its dtype. What leaves: ``State`` per layer and sequence. The
shapes are those of vLLM's ``MambaStateShapeCalculator`` and of each model's ``get_mamba_state_shape_from_config`` (vLLM
0.32), on one device; its cache has the model's dtype unless the model's config or class says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelium.analyzers.language.facts import Facts
from modelium.analyzers.language.shape import Shape

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
_FLOAT32_TYPES = {"recurrent_gemma", "rwkv", "rwkv7", "xlstm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Elements of the two parts, and the bytes of one of each: the last inputs of a convolution, and what recurs."""

    inputs: int = 0
    recurring: int = 0
    input_bytes: int = 2
    recurring_bytes: int = 2

    @property
    def elements(self) -> int:
        """Numbers of one layer, for one sequence."""
        return self.inputs + self.recurring

    @property
    def bytes(self) -> int:
        """Of one layer, for one sequence."""
        return self.inputs * self.input_bytes + self.recurring * self.recurring_bytes


def state_of_layer(decoder: Facts, shape: Shape, element_bytes: int) -> State:
    """One layer's state.

    1. A convolution alone (LFM2): its last inputs.
    2. Gated delta net (Qwen3-Next, OLMo hybrid): convolution of queries, keys and values, and a matrix a value head.
    3. Kimi's delta attention: the same with equal heads, its matrix in float32.
    4. Mamba 2 (Bamba, Falcon-H1, Granite, Nemotron-H, Zamba 2): convolution with its groups, and a matrix a head.
    5. Mamba 1 (Jamba, Zamba): convolution, and a vector a channel.
    6. A recurrent unit (RecurrentGemma), RWKV, lightning attention (MiniMax, Bailing), xLSTM.
    """
    said = _BYTES.get(decoder.word("mamba_ssm_dtype", "mamba_ssm_cache_dtype"), element_bytes)
    if (kernel := decoder.number("conv_L_cache")) is not None:
        inputs, recurring = (decoder.number("conv_dim") or shape.hidden_size) * (kernel - 1), 0  # 1
    elif decoder.given.get("linear_attn_config") is not None or decoder.has("linear_num_heads"):
        (inputs, recurring), said = _kimi_delta(decoder, shape), 4  # 3
    elif decoder.has("linear_num_value_heads", "linear_num_key_heads", "linear_conv_kernel_dim"):
        inputs, recurring = _delta_net(decoder, shape)  # 2
    elif (heads := _mamba2_heads(decoder)) is not None:
        inputs, recurring = _mamba2(decoder, shape, heads)  # 4
        if decoder.model_type == "nemotron_h" and not decoder.word("mamba_ssm_cache_dtype"):
            said = 4
    elif decoder.has("state_size", "mamba_d_state"):
        inputs, recurring = _mamba1(decoder, shape)  # 5
    else:
        inputs, recurring = _others(decoder, shape)  # 6
        said = 4 if decoder.model_type in _FLOAT32_TYPES else said
    return State(inputs=inputs, recurring=recurring, input_bytes=element_bytes, recurring_bytes=said)


def _delta_net(decoder: Facts, shape: Shape) -> tuple[int, int]:
    kernel = decoder.number("linear_conv_kernel_dim") or 4
    key_heads = decoder.number("linear_num_key_heads") or shape.heads
    value_heads = decoder.number("linear_num_value_heads") or shape.heads
    per_head = shape.hidden_size // shape.heads if shape.heads else 0
    wide = decoder.model_type == "olmo_hybrid"  # keys of 3/4 of a head, values twice as wide, where the file does not say
    key_size = decoder.number("linear_key_head_dim") or (per_head * 3 // 4 if wide else per_head)
    value_size = decoder.number("linear_value_head_dim") or (2 * key_size if wide else per_head)
    convolved = 2 * key_heads * key_size + value_heads * value_size
    return convolved * (kernel - 1), value_heads * value_size * key_size


def _kimi_delta(decoder: Facts, shape: Shape) -> tuple[int, int]:
    linear = decoder.part("linear_attn_config")
    heads = decoder.number("linear_num_heads") or linear.number("num_heads") or shape.heads
    size = decoder.number("linear_head_dim") or linear.number("head_dim") or shape.head_size
    kernel = decoder.number("linear_conv_kernel_dim") or linear.number("short_conv_kernel_size") or 4
    return 3 * heads * size * (kernel - 1), heads * size * size


def _mamba2_heads(decoder: Facts) -> int | None:
    if decoder.model_type == "mamba2":
        return decoder.number("num_heads")
    # Zamba has heads, and Mamba 1 in them.
    return decoder.number("mamba_n_heads", "n_mamba_heads", "mamba_num_heads") if decoder.model_type != "zamba" else None


def _mamba2(decoder: Facts, shape: Shape, heads: int) -> tuple[int, int]:
    state = decoder.number("mamba_d_state", "ssm_state_size", "state_size") or 128
    groups = decoder.number("mamba_n_groups", "mamba_ngroups", "n_groups") or 1
    kernel = decoder.number("mamba_d_conv", "conv_kernel") or 4
    expanded = (decoder.number("mamba_expand", "expand") or 2) * shape.hidden_size
    size = decoder.number("mamba_d_head", "mamba_headdim", "mamba_head_dim")
    if decoder.model_type == "mamba2":
        size = decoder.number("head_dim")
    size = size or max(expanded // heads, 1)
    inner = decoder.number("mamba_d_ssm") or (heads * size if decoder.model_type == "nemotron_h" else expanded)
    return (inner + 2 * groups * state) * (kernel - 1), heads * size * state


def _mamba1(decoder: Facts, shape: Shape) -> tuple[int, int]:
    state = decoder.number("mamba_d_state", "state_size") or 16
    kernel = decoder.number("mamba_d_conv", "conv_kernel") or 4
    expanded = (decoder.number("mamba_expand", "expand") or 2) * shape.hidden_size
    inner = expanded if decoder.has("mamba_d_state") else decoder.number("intermediate_size") or expanded
    return inner * (kernel - 1), inner * state


def _others(decoder: Facts, shape: Shape) -> tuple[int, int]:
    if (width := decoder.number("conv1d_width")) is not None:  # RecurrentGemma
        unit = decoder.number("lru_width") or shape.hidden_size
        return unit * (width - 1), unit
    if decoder.model_type in {"rwkv", "rwkv7"}:
        return 2 * shape.hidden_size, 3 * (decoder.number("attention_hidden_size") or shape.hidden_size)
    if decoder.model_type == "xlstm":
        heads = decoder.number("num_heads") or 8
        key, value = (_part(shape.hidden_size, decoder.value(name)) for name in ("qk_dim_factor", "v_dim_factor"))
        return 0, key * value // heads + key + heads
    if decoder.has("conv_kernel_size"):  # Inkling: four short convolutions beside its attention
        count = decoder.number("number_of_conv_states") or 4
        return count * shape.hidden_size * (decoder.number("conv_kernel_size") or 4), 0
    return 0, shape.heads * shape.head_size * shape.head_size  # lightning attention


def _part(width: int, factor: object) -> int:
    sane = isinstance(factor, int | float) and not isinstance(factor, bool) and 0 < factor < 16
    return int(width * factor) if sane and isinstance(factor, int | float) else width

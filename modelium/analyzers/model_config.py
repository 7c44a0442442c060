"""``config.json`` and its neighbours as typed facts: architecture, labels, widths, lengths, quantization.

What enters: JSON objects. What leaves: ``ModelConfig``, and the two numbers that need more than one file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelium.analyzers.formats.json_text import JsonObject, integer, nested, text, texts
from modelium.analyzers.verdict import Rejected, short_number

_SENTINEL_LENGTH = 10**9  # tokenizers write 1e30 for "no limit"
_MOST_UNNAMED = 4_096
_POSITION_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx", "max_sequence_length")
_IMAGE_KEYS = ("vision_config", "vision_encoder_config", "vision_tower", "visual", "mm_vision_tower", "img_processor")
_WIDTH_KEYS = ("hidden_size", "d_model", "dim", "n_embd", "emb_dim", "hidden_dim", "n_embed", "word_embed_proj_dim")
_FORECASTERS = {
    "autoformer",
    "informer",
    "patchtsmixer",
    "patchtst",
    "time_moe",
    "time_series_transformer",
    "timer",
    "timesfm",
    "timesfm2_5",
    "ttm",
    "tinytimemixer",
}
_CROSS_ENCODER_KEYS = ("sentence_transformers", "sbert_ce_default_activation_function")
# Positions start behind the padding index here: 514 positions are 512 tokens.
_OFFSET_TYPES = {
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "roberta-prelayernorm",
    "xmod",
    "data2vec-text",
    "mpnet",
    "longformer",
    "luke",
    "mluke",
    "lilt",
    "layoutlmv3",
    "markuplm",
    "ibert",
    "esm",
}
# Relative positions: n_positions is what they were trained with, not a limit.
_UNLIMITED_TYPES = {"t5", "mt5", "umt5", "longt5", "switch_transformers", "xlnet", "mamba", "mamba2", "rwkv"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What ``config.json`` says, as far as serving depends on it. ``width`` and ``positions`` are those of the text part."""

    architectures: tuple[str, ...]
    model_type: str
    auto_map: Mapping[str, str]
    labels: tuple[str, ...]
    label_count: int | None
    width: int | None
    positions: int | None
    quantization: str | None
    encoder_decoder: bool
    takes_images: bool  # beside text
    task_names: tuple[str, ...]  # keys of task_specific_params: what a seq2seq model was trained for
    timm: bool
    mlx: bool
    forecasts: bool = False  # time series
    own_layout: bool = False  # its tensors are those of the code in its folder, whatever transformers has under its names
    cross_encoder_key: str = ""  # the key by which sentence-transformers' CrossEncoder left its activation here


def read_config(source: JsonObject) -> ModelConfig:
    """The facts in a parsed ``config.json``."""
    inner = nested(source, "text_config")
    model_type = text(source, "model_type")
    auto_map = {key: value for key, value in nested(source, "auto_map").items() if isinstance(value, str)}
    return ModelConfig(
        architectures=texts(source, "architectures"),
        model_type=model_type,
        auto_map=auto_map,
        labels=_labels(nested(source, "id2label")),
        label_count=integer(source, "num_labels", "_num_labels"),
        width=integer(source, *_WIDTH_KEYS) or integer(inner, *_WIDTH_KEYS) or _last_stage_width(source),
        positions=_positions(source, model_type) or _positions(inner, model_type),
        quantization=_quantization(nested(source, "quantization_config")),
        encoder_decoder=source.get("is_encoder_decoder") is True,
        takes_images=any(
            part.get(key) is not None for part in (source, nested(source, "thinker_config")) for key in _IMAGE_KEYS
        ),
        task_names=tuple(nested(source, "task_specific_params")),
        timm=not model_type and bool(text(source, "architecture")) and not texts(source, "architectures"),
        mlx="group_size" in nested(source, "quantization"),
        forecasts="chronos_config" in source or model_type in _FORECASTERS,
        own_layout="use_flash_attn" in source,
        cross_encoder_key=next((key for key in _CROSS_ENCODER_KEYS if source.get(key) is not None), ""),
    )


def labels_for(config: ModelConfig) -> tuple[str, ...]:
    """Labels in id order; transformers leaves them out of the file where they are LABEL_0 and LABEL_1. Raises ``Rejected``."""
    if config.labels:
        return config.labels
    count = config.label_count or 2
    if count > _MOST_UNNAMED:  # a few bytes that would become megabytes, and transformers names the labels that there are
        raise Rejected(
            f"its config.json says {short_number(count)} labels and names none; at most {_MOST_UNNAMED:,} are taken",
            "add id2label, or is it damaged?",
        )
    return tuple(f"LABEL_{number}" for number in range(count))


def longest_input(config: ModelConfig, tokenizer: JsonObject, sentence: JsonObject | None) -> int | None:
    """Tokens of the longest input: sentence-transformers' own limit where there is one, never more than the positions."""
    by_sentence = integer(sentence, "max_seq_length") if sentence is not None else None
    limits = [config.positions, by_sentence if by_sentence is not None else _tokenizer_limit(tokenizer)]
    return min((limit for limit in limits if limit is not None), default=None)


def _tokenizer_limit(tokenizer: JsonObject) -> int | None:
    value = tokenizer.get("model_max_length")
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _SENTINEL_LENGTH:
        return int(value)
    return None


def _positions(source: JsonObject, model_type: str) -> int | None:
    if model_type in _UNLIMITED_TYPES:
        return None
    count = integer(source, *_POSITION_KEYS)
    if count is None or model_type not in _OFFSET_TYPES:
        return count
    padding = source.get("pad_token_id")
    offset = (padding if isinstance(padding, int) and 0 <= padding < 16 else 1) + 1
    return max(count - offset, 1)


def _last_stage_width(source: JsonObject) -> int | None:
    """Convolutional and hierarchical image models give one width per stage, or the first and the number of stages."""
    stages = source.get("hidden_sizes")
    if isinstance(stages, list) and stages and isinstance(stages[-1], int):
        return int(stages[-1])
    first, depths = source.get("embed_dim"), source.get("depths")
    if isinstance(first, int) and isinstance(depths, list) and 0 < len(depths) <= 16:
        return first << (len(depths) - 1)
    return None


def _labels(source: Mapping[str, object]) -> tuple[str, ...]:
    numbered = [(int(key), str(label)) for key, label in source.items() if key.isascii() and key.isdigit() and len(key) < 10]
    return tuple(label for _, label in sorted(numbered))


def _quantization(source: JsonObject) -> str | None:
    method = text(source, "quant_method")
    if method:
        return method
    if source.get("load_in_4bit") is True or source.get("load_in_8bit") is True:
        return "bitsandbytes"
    return None

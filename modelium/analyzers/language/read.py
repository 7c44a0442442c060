"""``config.json`` and its neighbours → ``LanguageModel``. What enters: JSON objects and exact sizes; what leaves: facts.

Nothing here raises: a value of the wrong type is as good as absent, and without layers, width and heads there are no facts.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelium.analyzers.formats.json_text import JsonObject
from modelium.analyzers.language.attention import attention_word, layer_groups
from modelium.analyzers.language.context import read_context
from modelium.analyzers.language.decoder import Parts, are_tied, find_decoder
from modelium.analyzers.language.experts import Seen, read_experts
from modelium.analyzers.language.numerics import DTYPE_BYTES, read_dtype, read_quantization
from modelium.analyzers.language.shape import read_shape
from modelium.values import JsonValue, LanguageModel

_SAMPLING = (
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "max_new_tokens",
)


def read_language_model(
    config: JsonObject,
    *,
    parameters: int,
    routed: int = 0,
    in_towers: int = 0,
    dtype: str,
    tokenizer: JsonObject,
    generation: JsonObject,
    has_chat_template: bool,
) -> LanguageModel | None:
    """The facts; None when the config lacks what is needed.

    ``parameters`` and ``dtype`` are those of the weights' headers, 0 where nobody has read them; ``routed`` of them are experts
    that a token visits or not, ``in_towers`` what looks and listens.
    ``generation`` is ``generation_config.json``; without one, an old ``config.json`` holds these values itself. The
    tokenizer's own limit is not the model's: vLLM does not apply it to generators.
    """
    parts = find_decoder(config)
    decoder = parts.decoder
    shape = read_shape(decoder)
    if shape is None:
        return None
    quantization = read_quantization(parts.whole, decoder)
    computed_in = read_dtype(parts.whole, decoder, dtype)
    seen = Seen(parameters=parameters, routed=routed, in_towers=in_towers)
    experts = read_experts(decoder, shape, seen, opaque=quantization.opaque, tied=are_tied(parts))
    context = read_context(decoder)
    encoder_decoder = _is_encoder_decoder(parts)
    groups = layer_groups(decoder, shape, element_bytes=DTYPE_BYTES[computed_in], encoder_decoder=encoder_decoder)
    return LanguageModel(
        layers=shape.layers,
        hidden_size=shape.hidden_size,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
        vocabulary=shape.vocabulary,
        groups=groups,
        intermediate_size=shape.intermediate_size,
        attention=attention_word(shape, groups),
        context_length=context.length,
        rope_scaling=context.scaling,
        experts=experts.count,
        experts_per_token=experts.chosen,
        active_parameters=experts.active_parameters,
        dtype=computed_in,
        quantization=quantization.method,
        quantization_bits=quantization.bits,
        tied_embeddings=are_tied(parts),
        encoder_decoder=encoder_decoder,
        modalities=parts.modalities,
        chat_template=has_chat_template or bool(tokenizer.get("chat_template")),
        generation_defaults=_sampling(generation or config),
    )


def _is_encoder_decoder(parts: Parts) -> bool:
    # A decoder of its own (TrOCR's, Kosmos's) may stand under a whole that is one.
    return parts.whole.flag("is_encoder_decoder") is True or parts.decoder.flag("is_encoder_decoder") is True


def _sampling(source: JsonObject) -> Mapping[str, JsonValue]:
    """The values that vLLM takes over as a model's own defaults, under their names in the file."""
    found: dict[str, JsonValue] = {}
    for name in _SAMPLING:
        value = source.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**40:  # NaN is not less either
            found[name] = value
    return found

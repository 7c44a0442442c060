"""How a model's tensors are stored, as its configuration tells it. What enters: JSON objects. What leaves: ``Storing``."""

from __future__ import annotations

from collections.abc import Iterable

from modelium.analyzers.formats.json_text import JsonObject, nested
from modelium.analyzers.language.decoder import Parts, are_tied, find_decoder
from modelium.analyzers.language.numerics import read_quantization
from modelium.analyzers.language.shape import count_layers
from modelium.analyzers.stored import Storing

_WRAPPERS = ("", "model.", "language_model.", "language_model.model.", "model.language_model.", "transformer.")
_FURTHER = ("mtp.", "model.mtp.", "model.mtp_layers.", "mtp_layers.", "model.mtp_block.", "mtp_block.")
_MOST_FURTHER = 16


def read_storing(config: JsonObject, apart: JsonObject) -> Storing:
    """``apart`` is ``hf_quant_config.json``: older ModelOpt checkpoints say there how they are quantized."""
    parts = find_decoder(with_quantization(config, apart))
    quantization = read_quantization(parts.whole, parts.decoder)
    further = (*_FURTHER, *_further_layers(parts))
    return Storing(quantization=quantization.method, bits=quantization.bits, tied=are_tied(parts), further=further)


def with_quantization(config: JsonObject, apart: JsonObject) -> JsonObject:
    """``config`` with what the file beside it says, where it says nothing itself."""
    return {**config, "quantization_config": apart} if apart and not nested(config, "quantization_config") else config


def _further_layers(parts: Parts) -> Iterable[str]:
    """Layers for further tokens have the numbers behind the last layer's."""
    count = parts.decoder.number("num_nextn_predict_layers", "num_mtp_modules", "num_mtp_layers")
    layers = count_layers(parts.decoder)
    if count is None or layers is None:
        return ()
    numbers = range(layers, layers + min(count, _MOST_FURTHER))
    return [f"{wrapper}layers.{number}." for wrapper in _WRAPPERS for number in numbers]

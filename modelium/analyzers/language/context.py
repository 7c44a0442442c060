"""How many tokens a request may have. What enters: the decoder's facts. What leaves: tokens, and the scaling in words.

The rule is vLLM's (``_get_and_verify_max_len``), so that the length planned here is one that it accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelium.analyzers.language.facts import Facts, as_number

_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
    "max_context_length",
)
# Relative positions: what their length words say is what they were trained with.
_UNLIMITED_TYPES = {"t5", "mt5", "umt5", "longt5", "switch_transformers", "xlnet", "mamba", "mamba2", "falcon_mamba", "xlstm"}
_LENGTH_IS_SCALED = {"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "mrope", "default", ""}
_PER_LAYER_TYPE = {"full_attention", "sliding_attention", "chunked_attention", "linear_attention", "main", "local", "global"}
_LONGEST = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """How many tokens a model reads at once (None: its config does not say), and what stretches them."""

    length: int | None
    scaling: str


def read_context(decoder: Facts) -> Context:
    """The shortest of the lengths that the config names, times a scaling that is not in it yet.

    "linear" and "dynamic" scaling multiply. The lengths of YaRN, LongRoPE and Llama 3 are the scaled ones; a YaRN factor
    that somebody has added to a config without raising its length does not raise it, as vLLM since 0.32 (earlier ones did).
    Gemma 3's length has its linear scaling in it.
    """
    lengths = [length for name in _LENGTHS if (length := decoder.number(name)) is not None]
    own = decoder.number("model_max_length")  # Cohere's means this, whatever else is there
    length = own if own is not None else min(lengths, default=None)
    if decoder.model_type in _UNLIMITED_TYPES:
        length = None
    scalings = [found for found in _scalings(decoder) if found.kind not in ("", "default", "mrope")]
    if length is not None and "gemma3" not in decoder.model_type:
        factor = next((found.factor for found in reversed(scalings) if found.kind not in _LENGTH_IS_SCALED), 1.0)
        length = int(length * factor)
    words = [found.words for found in scalings]
    return Context(length=min(length, _LONGEST) if length else None, scaling=words[0] if words else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scaling:
    kind: str
    factor: float
    original: int | None

    @property
    def words(self) -> str:
        """``yarn ×4 of 32768``."""
        times = f" ×{self.factor:g}" if self.factor != 1.0 else ""
        return f"{self.kind}{times}{f' of {self.original}' if self.original is not None else ''}"


def _scalings(decoder: Facts) -> list[_Scaling]:
    """One, or one for each type of layer."""
    found = []
    for name in ("rope_scaling", "rope_parameters"):
        source = decoder.value(name)
        if isinstance(source, dict):
            inner = [part for key, part in source.items() if key in _PER_LAYER_TYPE and isinstance(part, dict)]
            found += [_scaling(part, decoder) for part in inner or [source]]
    if not found and decoder.model_type == "gpt_oss":  # what its class takes where the file says nothing
        return [_Scaling(kind="yarn", factor=32.0, original=4096)]
    return found


def _scaling(source: Mapping[str, object], decoder: Facts) -> _Scaling:
    kind = source.get("rope_type", source.get("type"))
    factor = source.get("factor")
    original = as_number(source.get("original_max_position_embeddings"))
    sane = isinstance(factor, int | float) and not isinstance(factor, bool) and 0 < factor < 2**16
    return _Scaling(
        kind=kind[:40] if isinstance(kind, str) else "",
        factor=float(factor) if sane and isinstance(factor, int | float) else 1.0,
        original=original if original is not None else decoder.number("original_max_position_embeddings"),
    )

"""What is computed in, and how weights are packed. What enters: facts. What leaves: dtype and quantization in vLLM's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelium.analyzers.language.facts import Facts, as_number

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_SHORT = {"half": "float16", "float": "float32", "fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
_NO_FLOAT16 = {"gemma2", "gemma3", "gemma3_text", "glm4"}  # vLLM refuses them in float16: their numbers overflow
_BITS = {
    "fp8": 8,
    "fbgemm_fp8": 8,
    "ptpc_fp8": 8,
    "modelopt": 8,
    "modelopt_mxfp8": 8,
    "mxfp8": 8,
    "modelopt_fp4": 4,
    "nvfp4": 4,
    "mxfp4": 4,
    "gpt_oss_mxfp4": 4,
    "awq": 4,
    "gptq": 4,
    "bitsandbytes": 4,
    "bitnet": 2,
    "aqlm": 2,
    "vptq": 2,
    "higgs": 4,
    "eetq": 8,
    "experts_int8": 8,
    "tpu_int8": 8,
    "deepspeedfp": 8,
    "gguf": 0,
}
_MODELOPT = {"FP8": "modelopt", "FP8_PER_CHANNEL_PER_TOKEN": "modelopt", "FP8_PB_WO": "modelopt", "NVFP4": "modelopt_fp4"}
# Weights as indices into tables of their own: the headers do not say how many parameters they stand for.
_OPAQUE = {"aqlm", "higgs", "hqq", "vptq"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """``method`` is "" and ``bits`` 0 for plain weights; ``bits`` is 0 too where nothing says it."""

    method: str
    bits: int

    @property
    def opaque(self) -> bool:
        """Do the stored numbers not say how many weights they are?"""
        return self.method in _OPAQUE


def read_dtype(whole: Facts, decoder: Facts, weights_dtype: str) -> str:
    """What vLLM computes in with ``dtype: auto``.

    1. The config's word; else its text part's, its image part's; else the dtype of the weights.
    2. float32 weights are computed in bfloat16, and so is what is neither of the three.
    3. Models that overflow in float16 are computed in bfloat16.
    """
    parts = (whole, decoder, whole.part("text_config"), whole.part("vision_config"), whole.part("encoder_config"))
    said = next((word for part in parts if (word := _dtype(part))), "") or weights_dtype  # 1
    dtype = said if said in ("float16", "bfloat16") else "bfloat16"  # 2
    return "bfloat16" if dtype == "float16" and whole.model_type in _NO_FLOAT16 else dtype  # 3


def _dtype(part: Facts) -> str:
    word = next((value for key in ("dtype", "torch_dtype") if isinstance(value := part.given.get(key), str)), "")
    word = word.removeprefix("torch.").lower()
    word = _SHORT.get(word, word)
    return "" if word == "auto" else word


def read_quantization(whole: Facts, decoder: Facts) -> Quantization:
    """The method's name as vLLM has it, and the bits of one weight."""
    for part in (whole, decoder, whole.part("text_config")):
        for key in ("quantization_config", "compression_config"):
            source = part.given.get(key)
            if isinstance(source, dict) and source:
                return _quantization(source)
    return Quantization(method="", bits=0)


def _quantization(source: Mapping[str, object]) -> Quantization:
    method = source.get("quant_method")
    named = method.lower().replace("compressed_tensors", "compressed-tensors")[:40] if isinstance(method, str) else ""
    inner = source.get("quantization")
    if isinstance(inner, dict):  # ModelOpt before it took over the common word
        algorithm = str(inner.get("quant_algo")).upper()
        named = _MODELOPT.get(algorithm, named or "modelopt")
    if named == "modelopt" and "FP4" in str(source.get("quant_algo")).upper():
        named = "modelopt_fp4"
    four, eight = source.get("load_in_4bit") is True, source.get("load_in_8bit") is True
    if not named and (four or eight):
        named = "bitsandbytes"
    if not named and isinstance(source.get("config_groups"), dict):
        named = "compressed-tensors"
    if named == "bitsandbytes":
        return Quantization(method=named, bits=8 if eight else 4)
    return Quantization(method=named, bits=_bits(source, named))


def _bits(source: Mapping[str, object], method: str) -> int:
    for key in ("bits", "w_bit", "wbits", "nbits", "num_bits"):
        if (bits := as_number(source.get(key))) is not None and bits <= 16:
            return bits
    if method == "compressed-tensors":
        return _group_bits(source)
    if method == "torchao":
        words = str(source.get("quant_type")).lower()
        return next((bits for mark, bits in (("int4", 4), ("fp4", 4), ("float8", 8), ("int8", 8)) if mark in words), 0)
    weights = source.get("weights_config", source.get("quant_config"))
    if method in ("hqq", "quark") and isinstance(weights, dict):
        inner = weights.get("weight_quant_params", weights)
        return as_number(inner.get("nbits")) or 0 if isinstance(inner, dict) else 0
    return _BITS.get(method, 0)


def _group_bits(source: Mapping[str, object]) -> int:
    """compressed-tensors: the narrowest weights of its groups."""
    groups = source.get("config_groups")
    found = []
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        bits = as_number(weights.get("num_bits")) if isinstance(weights, dict) else None
        if bits is not None and bits <= 16:
            found.append(bits)
    return min(found, default=0)

"""What of the stored tensors is the model, and what of them is loaded.

What enters: ``Storing``, as a configuration tells it, and the tensors of file after file. What leaves: ``Account``. Files
hold more than what is published as the model's size, and more than an engine loads: a head that is tied to the embeddings,
layers that predict further tokens, the part of an omni model that speaks; and numbers that stand for eight parameters, or
for none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import repeat

from modelium.analyzers.formats.tensor_tally import Stored

# Not parameters: positions, masks and shape constants live in these. Packed quantized weights are int32 or uint8.
INDEX_DTYPES = {"int64", "bool", "string", "uint64"}
_BITS = {"int32": 32, "uint8": 8, "int8": 8, "int16": 16, "float4_e2m1fn": 8}
_TOWER = re.compile(r"(^|\.)(visual|vision\w*|image_\w+|audio\w*|speech\w*|siglip\w*|vit)\.")
_ROUTED = re.compile(r"(^|\.)(?<!shared_)(?<!shared\.)experts(\.|$)")
# What quantizers keep beside the weights.
_BESIDE = (
    ".SCB",
    "absmax",
    "g_idx",
    "global_scale",
    "input_scale",
    "k_scale",
    "quant_map",
    "qzeros",
    "scales",
    "v_scale",
    "weight_format",
    "weight_scale",
    "weight_scale_",  # NVFP4's second one: names are without their numbers here
    "scale_inv",
    "weight_shape",
    "zero_point",
)
_PACKED = ("qweight", "weight_packed", "_blocks")
_SILENT = ("talker.", "tokenwav.", "codewav.")  # neither vLLM nor the python runtime lets a model speak


@dataclass(frozen=True, slots=True, kw_only=True)
class Storing:
    """``bits`` of one weight, where ``quantization`` packs several into one stored number. ``tied``: the head is the
    embeddings. ``further``: what the names of layers for further tokens begin with."""

    quantization: str = ""
    bits: int = 0
    tied: bool = False
    further: tuple[str, ...] = ()

    @property
    def marks(self) -> set[str]:
        """One of them is in each name that begins as ``further`` says: it is faster to look for."""
        return {beginning.removeprefix("model.").removeprefix("language_model.") for beginning in self.further}


@dataclass(slots=True, kw_only=True)
class Account:
    """``parameters`` as they are published; those ``loaded``, and their bytes. Of the loaded ones ``routed`` are experts that a
    token visits or not, ``in_towers`` what looks and listens. ``elements`` are all that is stored, by dtype.
    """

    parameters: int = 0
    loaded: int = 0
    loaded_bytes: int = 0
    routed: int = 0
    in_towers: int = 0
    data_bytes: int = 0
    elements: dict[str, int] = field(default_factory=dict)

    def add(self, other: Account) -> None:
        """What another file came to."""
        for name in ("parameters", "loaded", "loaded_bytes", "routed", "in_towers", "data_bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for dtype, count in other.elements.items():
            self.elements[dtype] = self.elements.get(dtype, 0) + count

    def count(self, tensors: Mapping[str, Stored], storing: Storing) -> None:
        """The tensors of one file."""
        names = list(tensors)
        joined = "\n".join(names)
        further: Iterable[bool] = repeat(False)
        if any(mark in joined for mark in storing.marks):
            further = map(str.startswith, names, repeat(storing.further))
        kinds = zip(_without_numbers(names, joined), tensors.values(), further, strict=False)
        for (name, stored, is_further), count in Counter(kinds).items():
            self.elements[stored.dtype] = self.elements.get(stored.dtype, 0) + count * stored.elements
            if is_further or (storing.tied and name.endswith("lm_head.weight")):
                continue
            parameters = count * _parameters_of(name, stored, storing)
            self.parameters += parameters
            if name.startswith(_SILENT):
                continue
            self.loaded += parameters
            self.loaded_bytes += count * stored.size
            if _TOWER.search(name):
                self.in_towers += parameters
            elif _ROUTED.search(name):
                self.routed += parameters


def _without_numbers(names: list[str], joined: str) -> list[str]:
    """A mixture's experts have the same names but for their numbers."""
    found = joined.encode("utf-8", "replace").translate(None, b"0123456789").decode().split("\n")
    return found if len(found) == len(names) else names  # a line's end in a name


def _parameters_of(name: str, stored: Stored, storing: Storing) -> int:
    if stored.dtype in INDEX_DTYPES:
        return 0
    if not storing.quantization:
        return stored.elements
    if name.endswith(_BESIDE) or ".quant_state." in name:
        return 0
    held = _BITS.get(stored.dtype, 0)
    packed = name.endswith(_PACKED) or (stored.dtype == "uint8" and name.endswith("weight"))
    if packed and held and 0 < storing.bits < held:
        return stored.elements * held // storing.bits
    return stored.elements

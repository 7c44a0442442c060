"""What a reader of a weights file gives, whatever the format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Stored(NamedTuple):
    """One tensor as it is stored. A tuple: a mixture has 100,000 of them, and they are counted by what they are."""

    dtype: str  # torch's word
    elements: int
    size: int  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorTally:
    """The tensors of one weights file by their names, and bytes of data. A second name of a tensor has no elements."""

    tensors: Mapping[str, Stored]
    data_bytes: int

    @property
    def elements(self) -> Mapping[str, int]:
        """By dtype."""
        found: dict[str, int] = {}
        for stored, count in Counter(self.tensors.values()).items():
            found[stored.dtype] = found.get(stored.dtype, 0) + stored.elements * count
        return found

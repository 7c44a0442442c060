"""What a codec makes of a request: the tensors that go to Triton and the function that turns outputs into the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request in Triton's terms.

    Row i of every input belongs to item i of the request. ``splits``: rows are independent, so they may go out in chunks;
    ``answer`` takes the outputs of all chunks, in order.
    """

    inputs: Tensors
    rows: int
    splits: bool
    answer: Callable[[Sequence[Tensors]], object]

    def chunks(self, max_rows: int) -> list[Tensors]:
        """The inputs in pieces of at most ``max_rows`` rows, for Triton refuses a batch beyond ``max_batch_size``."""
        if not self.splits or self.rows <= max_rows:
            return [self.inputs]
        starts = range(0, self.rows, max_rows)
        return [{name: array[start : start + max_rows] for name, array in self.inputs.items()} for start in starts]


def byte_rows(rows: Sequence[Sequence[bytes]]) -> NDArray[np.object_]:
    """Rows of equally many byte strings, as Triton's client takes BYTES. (``np.array`` would make fixed-width strings, which
    lose trailing NULs.)"""
    array = np.empty((len(rows), len(rows[0])), dtype=np.object_)
    for index, row in enumerate(rows):
        array[index, :] = row
    return array

"""Numbers that are none: a model's outputs enter, nothing leaves, or an error that names the output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelium.errors import NotFinite
from modelium.gateway.codecs.call import Tensors
from modelium.values import ModelProfile


def check_finite(profile: ModelProfile, chunks: Sequence[Tensors]) -> None:
    """Raises ``NotFinite`` (502): JSON has no NaN, and null in its place looks like an answer.

    Models of rows may mean it: a classifier without probabilities, a regressor of a row for which there is no number.
    """
    if profile.task.row.is_table:
        return
    for outputs in chunks:
        for name, array in outputs.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                found = "NaN" if np.isnan(array).any() else "infinity"
                raise NotFinite(
                    f"{profile.name!r} answered with {found} in {name}: most likely its weights are broken, or its numbers "
                    f"({profile.dtype}) too narrow for this input; try the model in float32"
                )

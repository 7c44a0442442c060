"""NaN and infinities in a model's JSON: bytes and what was read from them enter; where one stands leaves.

Python reads and writes these words, JSON has none of them, and a model computes nonsense with them. One key is written so by
transformers itself: the upper end of Mamba's time steps.
"""

from __future__ import annotations

import math
import re

_SUSPECT = re.compile(rb"NaN|Infinity|[0-9][eE]\+?[0-9]{3}")
_ENDLESS = "time_step_limit"


def find_unreal_number(data: bytes, value: object) -> str:
    """``rope_scaling.factor is NaN``: the first number that is none; "" where all are numbers."""
    if _SUSPECT.search(data) is None:
        return ""
    pending: list[tuple[str, object]] = [("", value)]
    while pending:
        place, item = pending.pop()
        if isinstance(item, dict):
            pending += [(f"{place}.{key}" if place else str(key), inner) for key, inner in reversed(item.items())]
        elif isinstance(item, list):
            pending += [(f"{place}[{number}]", inner) for number, inner in reversed(list(enumerate(item)))]
        elif isinstance(item, float) and not math.isfinite(item) and (math.isnan(item) or _ENDLESS not in place):
            return f"{place[:100] or 'its value'} is {'NaN' if math.isnan(item) else 'infinite'}"
    return ""

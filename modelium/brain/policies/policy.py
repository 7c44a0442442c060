"""What a policy is, and what the ways to judge have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelium.brain.words import duration
from modelium.sizes import human_bytes
from modelium.values import ModelView

SHORTEST_IDLE_S = 0.001

_SHORTEST_LOAD_S = 0.1
_UNKNOWN_LOAD_S = 2.0
_UNKNOWN_BYTES_A_SECOND = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """``harm``: of losing a model now, for each byte that this frees; the least goes first. ``explain``: why it is so much."""

    harm: Callable[[ModelView, float], float]
    explain: Callable[[ModelView, float], str]


def reload_s(view: ModelView) -> float:
    """What a load takes: as long as the last one, or what its bytes let expect."""
    if view.load_seconds:
        return max(view.load_seconds, _SHORTEST_LOAD_S)
    return _UNKNOWN_LOAD_S + max(view.bytes_held, view.footprint.bytes) / _UNKNOWN_BYTES_A_SECOND


def freed_bytes(view: ModelView) -> int:
    """What its loss frees on each of its devices."""
    return max(view.bytes_held, 1)


def returns(view: ModelView) -> str:
    """What its loss costs and frees, in words."""
    return f"it loads in {duration(reload_s(view))} and frees {human_bytes(view.bytes_held)}"

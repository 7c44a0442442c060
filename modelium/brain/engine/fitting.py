"""How long a context is planned. What enters: what the policies and the user say, what was planned. What leaves: the shortest
that will do, the longest that fits, whether that is long enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelium.brain.engine.settings import EngineSettings
from modelium.values import EnginePlan, Policies

_LONG_ENOUGH = 65_536  # as much cache as 32 typical requests take, and few requests are longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """Of a plan, in tokens. Equal where there is no choice."""

    shortest: int
    longest: int


def contexts_of(settings: EngineSettings, policies: Policies, wish: Contexts | None) -> Contexts:
    """Between which lengths the context may be chosen.

    1. What the user set is never changed.
    2. Else what the caller wishes.
    3. Else at most the model's own, and at least ``vllm.min_context``, or the model's own where that is less. With
       ``vllm.fit_context: false`` nothing else than the model's own.
    """
    own = settings.max_model_len.value
    if settings.max_model_len.by_hand:  # 1
        return Contexts(shortest=own, longest=own)
    if wish is not None:  # 2
        return Contexts(shortest=min(wish.shortest, own), longest=min(wish.longest, own))
    return Contexts(shortest=min(policies.min_context, own) if policies.fit_context else own, longest=own)  # 3


def contexts_beside_others(engine: EnginePlan, policies: Policies) -> Contexts:
    """What may become of a planned context where other models are on its devices.

    A whole context stays whole: what a model can do must not depend on who is loaded beside it. One that was shortened to
    what its devices hold when empty would fill them, and could never be beside anybody. It may be shortened by a half at most,
    before anybody is unloaded for it.
    """
    length = engine.max_model_len
    if not engine.is_shortened:
        return Contexts(shortest=length, longest=length)
    return Contexts(shortest=min(length, max(policies.min_context, length // 2)), longest=length)


def is_long_enough(engine: EnginePlan) -> bool:
    """Is the context whole, or so long that more devices for it would serve few requests, and could serve other models?"""
    return not engine.is_shortened or engine.max_model_len >= _LONG_ENOUGH


def find_longest(fits: Callable[[int], bool], shortest: int, longest: int, step: int) -> int | None:
    """The longest context with which it ``fits``, a multiple of ``step`` where it is not ``shortest``; None: not even that."""
    if not fits(shortest):
        return None
    low, high = shortest // step, longest // step + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * step) else (low, middle)
    return max(shortest, low * step)

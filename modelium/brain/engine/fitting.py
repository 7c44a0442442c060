"""How long a context is planned. What enters: what the policies and the user say, what was planned. What leaves: the shortest
that will do, the longest that fits, whether that is long enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelium.brain.engine.settings import EngineSettings
from modelium.values import EnginePlan, Policies

_LONG_ENOUGH = 65_536  # as much cache as 32 typical requests take, and few requests are longer
_NEAR = 8  # steps that a guess is mostly wrong by


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """Of a plan, in tokens. Equal where there is no choice."""

    shortest: int
    longest: int


def contexts_of(settings: EngineSettings, policies: Policies, wish: Contexts | None, *, long_enough: bool) -> Contexts:
    """Between which lengths the context may be chosen. ``long_enough``: none that is not (``is_long_enough``).

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
    if not policies.fit_context:  # 3
        return Contexts(shortest=own, longest=own)
    return Contexts(shortest=min(max(policies.min_context, _LONG_ENOUGH if long_enough else 0), own), longest=own)


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


def find_longest(needed: Callable[[int], int], limit: int, shortest: int, longest: int, step: int) -> int | None:
    """The longest context that ``needed`` no more than ``limit`` bytes, a multiple of ``step`` where it is neither ``shortest``
    nor ``longest``; None: not even that. What is needed grows nearly evenly, so two guesses come close, and halving ends it.
    """
    least = needed(shortest)
    if least > limit:
        return None
    most = needed(longest)
    if most <= limit:
        return longest
    low, high = shortest // step, longest // step + 1
    guess = low + (limit - least) * (high - low) // (most - least)
    for offset in (0, _NEAR, -_NEAR):
        middle = guess + offset
        if low < middle < high:
            low, high = (middle, high) if needed(middle * step) <= limit else (low, middle)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle * step) <= limit else (low, middle)
    return max(shortest, low * step)

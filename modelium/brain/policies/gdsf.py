"""``gdsf``: greedy dual size frequency, the order of web caches: how often it was asked, times its load, over its size.

There an age is added that rises with each eviction, so that what was once asked often does not stay for ever. That would be a
state; here what is silent ages with time, as it does under every other policy.
"""

from __future__ import annotations

from modelium.brain.policies.policy import Policy, freed_bytes, reload_s, returns
from modelium.brain.words import duration
from modelium.values import ModelView

_SHORTEST_IDLE_S = 1.0


def harm(view: ModelView, now: float) -> float:
    """Asked often, slow to load, small is much harm."""
    usage = view.usage
    asked = max(usage.requests, 1) / max(usage.idle_s(now), _SHORTEST_IDLE_S)
    return asked * reload_s(view) / freed_bytes(view)


def explain(view: ModelView, now: float) -> str:
    """How often and how long ago it was asked, and what it costs to bring back."""
    usage = view.usage
    return f"{usage.requests} requests, the last {duration(usage.idle_s(now))} ago, {returns(view)}"


POLICY = Policy(harm=harm, explain=explain)

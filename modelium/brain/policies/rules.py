"""``rules``: eviction's rules 1 to 5 to the letter, also for who waits (``Policies.swaps``, ``Policies.unloads_idle``).

Of those that they let go the one that costs least to load again goes first: what a byte of it takes to come back, over how long
nobody wanted it.
"""

from __future__ import annotations

from modelium.brain.policies.policy import Policy, freed_bytes, reload_s, returns
from modelium.brain.words import duration
from modelium.values import ModelView

_SHORTEST_IDLE_S = 1.0


def harm(view: ModelView, now: float) -> float:
    """Large, quick to load, long unused is little harm."""
    return reload_s(view) / (freed_bytes(view) * max(view.usage.idle_s(now), _SHORTEST_IDLE_S))


def explain(view: ModelView, now: float) -> str:
    """How long it was not used, and what it costs to bring back."""
    return f"unused for {duration(view.usage.idle_s(now))}, {returns(view)}"


POLICY = Policy(harm=harm, explain=explain)

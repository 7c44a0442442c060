"""``lru``: the longest unused goes first, whatever it costs to load it again."""

from __future__ import annotations

from modelium.brain.policies.policy import SHORTEST_IDLE_S, Policy
from modelium.brain.words import duration
from modelium.values import ModelView


def harm(view: ModelView, now: float) -> float:
    """The less the longer it was not used."""
    return 1 / max(view.usage.idle_s(now), SHORTEST_IDLE_S)


def explain(view: ModelView, now: float) -> str:
    """How long it was not used."""
    return f"unused for {duration(view.usage.idle_s(now))}"


POLICY = Policy(harm=harm, explain=explain)

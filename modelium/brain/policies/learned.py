"""``learned``: the one goes whose absence costs least, by when it is likely to be asked next.

The visits that a second of its stay is likely to answer (``arrivals.worth``), times the seconds that each of them would wait
for its load, for each byte. What was just loaded has been silent for a moment only, so it is worth much for a while; where
there is no history the longest unused goes first, and of equals the larger one that loads sooner.
"""

from __future__ import annotations

from modelium.brain import arrivals
from modelium.brain.policies.policy import Policy, freed_bytes, reload_s, returns
from modelium.brain.words import duration
from modelium.values import ModelView


def harm(view: ModelView, now: float) -> float:
    """Seconds that requests would wait, for each second of its stay and each byte."""
    usage = view.usage
    return arrivals.worth(usage.arrivals, usage.silent_s(now), now) * reload_s(view) / freed_bytes(view)


def explain(view: ModelView, now: float) -> str:
    """With the next request that is expected, where its history suffices for that."""
    usage = view.usage
    silent = f"no request for {duration(usage.silent_s(now))}"
    if not arrivals.is_sure(usage.arrivals):
        return f"{silent}, too few before that to expect the next one, {returns(view)}"
    next_s = arrivals.foreseen_s(usage.arrivals, usage.silent_s(now))
    coming = "none is expected soon" if next_s is None else f"its next request is expected in {duration(next_s)}"
    return f"{silent}, {coming}, {returns(view)}"


POLICY = Policy(harm=harm, explain=explain)

"""What was weighed when a model was chosen to go: it, and those that stay. Views and ``now`` enter, a value to show leaves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

from modelium.brain import arrivals, turns
from modelium.brain.policies.policy import reload_s
from modelium.values import ModelView, Policies, Weighed

MOST = 8


def weigh(view: ModelView, now: float, policies: Policies, *, goes: bool = False) -> Weighed:
    """One model, as the policy judges it now."""
    usage = view.usage
    next_s = arrivals.expected_s(usage.arrivals, usage.silent_s(now)) if arrivals.is_sure(usage.arrivals) else math.inf
    return Weighed(
        model=view.name,
        goes=goes,
        kept_by="" if goes else turns.hold(view, now, policies).value,
        harm=turns.loss(view, now, policies),
        idle_s=usage.idle_s(now),
        qps=usage.qps,
        next_s=None if math.isinf(next_s) else next_s,
        load_s=reload_s(view),
        bytes=view.bytes_held,
    )


def weigh_all(gone: ModelView, others: Iterable[ModelView], now: float, policies: Policies) -> tuple[Weighed, ...]:
    """The one that goes, and some of ``others``, which might have: the first of them would have been the next."""
    stay = (weigh(view, now, policies) for view in others if view.name != gone.name)
    return weigh(gone, now, policies, goes=True), *islice(stay, MOST - 1)

"""What was weighed when a model was chosen to go: it, and those that stay. Views and ``now`` enter, a value to show leaves."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from modelium.brain import arrivals, turns
from modelium.brain.policies.policy import reload_s
from modelium.values import ModelView, Policies, Weighed

MOST = 8
TOO_SMALL = "size"


def weigh(view: ModelView, now: float, policies: Policies, *, goes: bool = False, too_small: bool = False) -> Weighed:
    """One model, as the policy judges it now. ``too_small``: it might have gone, and would have freed too little."""
    usage = view.usage
    return Weighed(
        model=view.name,
        goes=goes,
        kept_by="" if goes else TOO_SMALL if too_small else turns.hold(view, now, policies).value,
        harm=turns.loss(view, now, policies),
        idle_s=usage.idle_s(now),
        qps=usage.qps,
        next_s=arrivals.foreseen_s(usage.arrivals, usage.silent_s(now)),
        load_s=reload_s(view),
        bytes=view.bytes_held,
    )


def weigh_all(gone: ModelView, others: Iterable[ModelView], now: float, policies: Policies) -> tuple[Weighed, ...]:
    """The one that goes, and some of ``others``, which might have: the first of them would have been the next."""
    stay = (
        weigh(view, now, policies, too_small=turns.frees_too_little(view, gone, now, policies))
        for view in others
        if view.name != gone.name
    )
    return weigh(gone, now, policies, goes=True), *islice(stay, MOST - 1)

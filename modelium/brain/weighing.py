"""What was weighed when a model was chosen to go: it, and those that stay. Views and ``now`` enter, a value to show leaves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

from modelium.brain import arrivals, turns
from modelium.brain.policies.policy import reload_s
from modelium.values import ModelView, Policies, Weighed

MOST = 8


def weigh(view: ModelView, now: float, policies: Policies, *, goes: bool = False) -> Weighed:
    """One model, as the policy judges it now."""
    usage = view.usage
    return Weighed(
        model=view.name,
        goes=goes,
        kept_by="" if goes else turns.hold(view, now, policies).value,
        harm=turns.loss(view, now, policies),
        idle_s=usage.idle_s(now),
        qps=usage.qps,
        next_s=arrivals.foreseen_s(usage.arrivals, usage.silent_s(now)),
        load_s=reload_s(view),
        bytes=view.bytes_held,
    )


def weigh_all(gone: ModelView, others: Iterable[ModelView], now: float, policies: Policies) -> tuple[Weighed, ...]:
    """The one that goes, and some of ``others``, which might have: the first of them would have been the next. Of whom the loss
    would have cost less, and freed less, it is said that this would not have done: else it would have gone."""
    goes = weigh(gone, now, policies, goes=True)
    stay = (weigh(view, now, policies) for view in islice((each for each in others if each.name != gone.name), MOST - 1))
    return goes, *(
        replace(each, kept_by=turns.TOO_SMALL) if each.bytes < goes.bytes and each.harm < goes.harm else each for each in stay
    )

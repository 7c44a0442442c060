"""Who goes for somebody who waits. What enters: a view, ``now``, the policies. What leaves: what holds it, and what its loss
would cost.

Eviction's rules 1 to 5 say what goes by itself. For a waiting request, a user's load, or a pin they only order:

6. Any loaded model may go that is not in ``always_loaded``, pinned, leased, or younger than its residence
   (``min_residence_seconds``; by default 5 s for what is asked more often than that, else a second: it has served those it was
   loaded for. Longer was tried, as long as the load took: of two that do not fit together each serves for longer then, and both
   wait for longer. ``bench/policies.py`` has the figures).
7. Who waited for ``turn_seconds`` has its turn: then a leased model may go too. It gets no new leases, ends what it has, and
   those who ask it meanwhile are the next to wait. So each of several that are always in use serves for a while. Nothing else
   comes there before who waited for two minutes; sooner it would only keep loads from running side by side.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from modelium.brain import eviction
from modelium.brain.policies import policy_of
from modelium.brain.policies.policy import freed_bytes, reload_s
from modelium.brain.words import WANTED_BY
from modelium.sizes import human_bytes
from modelium.values import Demand, ModelView, Policies, Weighed

SWAP_RULE = "evict.6"
TURN_RULE = "evict.7"
TOO_SMALL = "size"  # what keeps a model, beside its hold: its loss would not have freed enough

_RESIDENCE_S = 5.0
_LONGEST_WAIT_S = 120.0
_MOMENT_S = 1.0  # for the client that loads first and asks then


class Hold(Enum):
    """What keeps a loaded model from going for somebody who waits."""

    NOTHING = "nothing"
    LEASES = "leases"  # until it is the other one's turn
    RESIDENCE = "residence"
    WORD = "word"  # a pin, always_loaded, or the configuration: for good


def residence_s(view: ModelView, policies: Policies) -> float:
    """How long it stays once loaded, whoever waits."""
    if policies.min_residence_seconds is not None:
        return policies.min_residence_seconds
    return _RESIDENCE_S if 0 < view.usage.gap_s <= _RESIDENCE_S else _MOMENT_S


def hold(view: ModelView, now: float, policies: Policies) -> Hold:
    """The strongest that holds it."""
    if view.pinned or view.always_loaded or view.waiting or not policies.evicts:
        return Hold.WORD
    if view.loaded_at + residence_s(view, policies) > now:
        return Hold.RESIDENCE
    return Hold.LEASES if view.usage.in_flight else Hold.NOTHING


def swaps(view: ModelView, policies: Policies) -> bool:
    """Do others go for the one who wants this model?"""
    return policies.swaps and view.demand >= Demand.POLICY


def turn_at(view: ModelView, policies: Policies) -> float | None:
    """When the turn of one who waits has come; None for a pin: nobody waits for that."""
    return view.demand_since + policies.turn_seconds if view.demand >= Demand.USER else None


def is_late(view: ModelView, now: float) -> bool:
    """Did it wait for so long that nobody is to pass it any more?"""
    return now - view.demand_since >= _LONGEST_WAIT_S


def queue(views: Iterable[ModelView], now: float) -> list[ModelView]:
    """Those who wait to be loaded, the first to choose first.

    The stronger demand first. Of equals who waited for two minutes comes first, the longest waiting first of all: nobody is
    passed for ever. Else the highest response ratio: what it waited and what its load takes over what its load takes, for each
    of its requests. So a short load passes a long one that has just come, and many requests pass one, which is what makes the
    sum of all waiting small; and the ratio of who is passed grows.
    """

    def key(view: ModelView) -> tuple[int, bool, float, float, str]:
        late, load_s = is_late(view, now), reload_s(view)
        ratio = 0.0 if late else max(view.waiting, 1) * (now - view.demand_since + load_s) / load_s
        return -view.demand, not late, -ratio, view.demand_since, view.name

    return sorted(views, key=key)


def harm(view: ModelView, now: float, policies: Policies) -> float:
    """What it costs to lose this model now, for each byte that this frees on each of its devices; the least goes first.

    Nothing, where only its discovery or a restart wanted it and nobody asked since; else as the policy judges.
    """
    return policy_of(policies).harm(view, now) if view.usage.asked else 0.0


def loss(view: ModelView, now: float, policies: Policies) -> float:
    """What it costs to lose all of it: sets of models are compared by the sum of this, not of their harms."""
    return harm(view, now, policies) * freed_bytes(view)


def place_in_order(view: ModelView, now: float, policies: Policies) -> tuple[float, float, str]:
    """Where it stands among those whom the same holds, the first to go first: by the least harm, then the longest unused; of
    those in use the one that had its turn for longest first."""
    if view.usage.in_flight:
        return view.loaded_at, 0.0, view.name
    return harm(view, now, policies), view.usage.last_used_at, view.name


def explain_hold(view: ModelView, now: float, policies: Policies) -> str:
    """Why it stays although somebody waits, or that it need not."""
    match hold(view, now, policies):
        case Hold.WORD:
            return eviction.explain_keep(view, 1, now, policies)
        case Hold.RESIDENCE:
            return f"kept: loaded {now - view.loaded_at:.0f} s ago, and it stays for {residence_s(view, policies):.0f} s"
        case Hold.LEASES:
            return f"kept: {view.usage.in_flight} requests in flight; who waits for {policies.turn_seconds:g} s has its turn"
        case Hold.NOTHING:
            return f"may go: idle for {view.usage.idle_s(now):.0f} s"


def explain_swap(
    view: ModelView, waiter: ModelView, now: float, policies: Policies, why: str, instead_of: Weighed | None = None
) -> str:
    """Rule 6 or 7 in words. ``why``: what is short where; ``instead_of``: who would have been the next to go."""
    asked = (
        f"{WANTED_BY[waiter.demand]} for {waiter.name} waits"
        if waiter.demand is Demand.REQUEST
        else (f"{WANTED_BY[waiter.demand]} wants {waiter.name}")
    )
    if view.usage.in_flight:
        since = now - waiter.demand_since
        return (
            f"{asked} since {since:.0f} s and its turn has come: {view.name} ends its {view.usage.in_flight} requests, takes "
            f"no new ones, and goes; {why}"
        )
    unused = policy_of(policies).explain(view, now) if view.usage.asked else "it was never asked"
    others = f", not {instead_of.model}" if instead_of is not None else ""
    if instead_of is not None and instead_of.kept_by == TOO_SMALL:
        others += f", which frees only {human_bytes(instead_of.bytes)}"
    return f"{asked}; {view.name} goes{others}: {unused}; {why}"

"""Who goes for somebody who waits. What enters: a view, ``now``, the policies. What leaves: what holds it, and what its loss
would cost.

Eviction's rules 1 to 5 say what goes by itself. For a waiting request, a user's load, or a pin they only order:

6. Any loaded model may go that is not in ``always_loaded``, pinned, leased, or younger than its residence
   (``min_residence_seconds``, by default as long as its load took, at least 5 s: else two models would only be loaded. What is
   usually asked less often than that has served those it was loaded for, and a second later it may go: its residence would make
   others wait for nothing. ``bench/sharing.py`` has the figures).
7. Who waited for ``turn_seconds`` has its turn: then a leased model may go too. It gets no new leases, ends what it has, and
   those who ask it meanwhile are the next to wait. So each of several that are always in use serves for a while.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from modelium.brain import eviction
from modelium.brain.words import WANTED_BY
from modelium.values import Demand, EvictForRequests, ModelView, Policies

SWAP_RULE = "evict.6"
TURN_RULE = "evict.7"

_SHORTEST_RESIDENCE_S = 5.0
_MOMENT_S = 1.0  # for the client that loads first and asks then
_SHORTEST_GAP_S = 1.0


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
    by_default = max(view.load_seconds, _SHORTEST_RESIDENCE_S)
    is_asked_within_it = 0 < view.usage.gap_s <= by_default
    return by_default if is_asked_within_it else _MOMENT_S


def hold(view: ModelView, now: float, policies: Policies) -> Hold:
    """The strongest that holds it."""
    if view.pinned or view.always_loaded or view.waiting or not policies.evict:
        return Hold.WORD
    if view.loaded_at + residence_s(view, policies) > now:
        return Hold.RESIDENCE
    return Hold.LEASES if view.usage.in_flight else Hold.NOTHING


def swaps(view: ModelView, policies: Policies) -> bool:
    """Do others go for the one who wants this model?"""
    return policies.evict_for_requests is EvictForRequests.SWAP and view.demand >= Demand.POLICY


def turn_at(view: ModelView, policies: Policies) -> float | None:
    """When the turn of one who waits has come; None for a pin: nobody waits for that."""
    return view.demand_since + policies.turn_seconds if view.demand >= Demand.USER else None


def harm(view: ModelView, now: float, policies: Policies) -> float:
    """What it costs to lose this model now; the least goes first.

    1. Nothing, where only its discovery or a restart wanted it and nobody asked since.
    2. How soon it is asked again: it was idle for so long already, or is asked at such intervals, whichever is longer. A model
       that is asked each few seconds is the last. (Idle time over the interval was tried: it drops what is asked often at its
       first pause. ``bench/sharing.py`` compares this order with the longest unused and with the farthest next use.)
    3. Cost-aware: that many times over what bringing a byte of it back takes.
    """
    usage = view.usage
    if not usage.asked:  # 1
        return 0.0
    soon = 1 / max(usage.idle_s(now), usage.gap_s, _SHORTEST_GAP_S)  # 2
    if not policies.cost_aware:
        return soon
    return soon * max(view.load_seconds, 0.1) / max(view.bytes_held, 1)  # 3


def in_order(views: Iterable[ModelView], now: float, policies: Policies) -> list[ModelView]:
    """The least harm first; those in use last, of them the one that had its turn for longest first."""

    def key(view: ModelView) -> tuple[bool, float, float, str]:
        if view.usage.in_flight:
            return True, view.loaded_at, 0.0, view.name
        return False, harm(view, now, policies), -view.usage.idle_s(now), view.name

    return sorted(views, key=key)


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


def explain_swap(view: ModelView, waiter: ModelView, now: float, why: str) -> str:
    """Rule 6 or 7 in words. ``why``: what is short where."""
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
    unused = f"was idle for {view.usage.idle_s(now):.0f} s" if view.usage.asked else "was never asked"
    return f"{asked}; {view.name} {unused}; {why}"

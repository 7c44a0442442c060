"""Which loaded model may go. What enters: a view, ``now``, the policies. What leaves: the rule that decides, and its words.

The rules, in this order; the first that holds decides:

1. Never a model in ``always_loaded``, or pinned, or with a lease (a request in flight or waiting).
2. Keep if QPS > 0.5.
3. Keep if QPS > 0.01.
4. Keep if idle for less than ``evict_after_idle_seconds``.
5. QPS = 0 and idle longer: unload if its device is under memory pressure; with ``unload_without_pressure`` also if it was idle
   for over twice the threshold. Else keep: unloading what nobody needs room from costs a load later, and wins nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from modelium.brain.policies import policy_of
from modelium.values import ModelView, Policies

BUSY_QPS = 0.5
USED_QPS = 0.01

LETS_GO = frozenset({5})
"""The rules that let a loaded model go; each of the others keeps it."""


def name_of(rule: int) -> str:
    """As it stands in decisions and metrics."""
    return f"evict.{rule}"


def deciding_rule(view: ModelView, now: float, policies: Policies) -> int:
    """The number of the rule that decides about a loaded model. No words: this runs for every model."""
    usage = view.usage
    if view.pinned or view.always_loaded or usage.in_flight or view.waiting or not policies.evicts:
        return 1
    if usage.qps > USED_QPS:
        return 2 if usage.qps > BUSY_QPS else 3
    if now - usage.last_used_at < policies.evict_after_idle_seconds:
        return 4
    return 5


def is_overdue(view: ModelView, now: float, policies: Policies) -> bool:
    """Rule 5 without pressure: idle for over twice the threshold, where that counts."""
    return policies.unloads_idle and view.usage.idle_s(now) > 2 * policies.evict_after_idle_seconds


def explain_keep(view: ModelView, rule: int, now: float, policies: Policies) -> str:
    """Rule ``rule`` in words, with the figures that made it hold."""
    usage = view.usage
    match rule:
        case 1:
            causes = [
                ("in always_loaded", view.always_loaded),
                ("pinned", view.pinned),
                (f"{usage.in_flight} requests in flight", bool(usage.in_flight)),
                (f"{view.waiting} requests waiting", bool(view.waiting)),
                ("eviction is off in the configuration", not policies.evicts),
            ]
            return "never unloaded: " + ", ".join(words for words, holds in causes if holds)
        case 2:
            return f"kept: {usage.qps:.2f} requests/s is over {BUSY_QPS}"
        case 3:
            return f"kept: {usage.qps:.3f} requests/s is over {USED_QPS}"
        case 4:
            threshold = policies.evict_after_idle_seconds
            return f"kept: idle for {usage.idle_s(now):.0f} s, less than evict_after_idle_seconds = {threshold:g}"
    kept = f"kept: idle for {usage.idle_s(now):.0f} s, but its device has room"
    if policies.unloads_idle:
        return f"{kept} and that is less than twice evict_after_idle_seconds = {policies.evict_after_idle_seconds:g}"
    return f"{kept}: nobody needs what it holds (unload_without_pressure: false)"


def explain_evict(view: ModelView, now: float, policies: Policies, pressure: str) -> str:
    """Rule 5 in words. ``pressure``: why the device is under pressure, empty when it is not."""
    idle = f"no requests for {view.usage.idle_s(now):.0f} s"
    if pressure:
        return f"unloaded: {idle}, and {pressure}"
    return f"unloaded: {idle}, over twice evict_after_idle_seconds = {policies.evict_after_idle_seconds:g}"


def in_order_of_sacrifice(views: Iterable[ModelView], now: float, policies: Policies) -> list[ModelView]:
    """The cheapest to lose first, as the policy judges."""
    harm = policy_of(policies).harm
    return sorted(views, key=lambda view: (harm(view, now), view.name))

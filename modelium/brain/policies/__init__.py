"""Which of the models that may go is lost first: a table of ways to judge, by the name that the configuration gives them.

What enters: a view and ``now``. What leaves: the harm of losing the model, for each byte that it frees, and its words. A policy
decides nothing about who may go: that are the rules of ``eviction`` and ``turns``.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelium.brain.policies import gdsf, learned, lru, rules
from modelium.brain.policies.policy import Policy
from modelium.values import Eviction, Policies

POLICIES: Mapping[Eviction, Policy] = {
    Eviction.LEARNED: learned.POLICY,
    Eviction.LRU: lru.POLICY,
    Eviction.RULES: rules.POLICY,
    Eviction.GDSF: gdsf.POLICY,
    Eviction.NEVER: lru.POLICY,  # it has nothing to judge
}


def policy_of(policies: Policies) -> Policy:
    """The one that is configured."""
    return POLICIES[policies.eviction]

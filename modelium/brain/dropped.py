"""What if that were dropped? The board and a profile enter; the plan leaves, as if it had been dropped just now."""

from __future__ import annotations

from dataclasses import replace

from modelium.brain.board import Board
from modelium.brain.placement.memory import estimate_footprint
from modelium.brain.plan import plan
from modelium.brain.runtimes.choice import choose_runtime
from modelium.values import (
    Decision,
    Demand,
    Footprint,
    ModelProfile,
    ModelView,
    Observed,
    Plan,
    State,
    Verb,
    override_of,
)


def plan_with(board: Board, now: float, profile: ModelProfile, wanted: Demand) -> Plan:
    """What ``wanted`` would do for it, who wants it when it is dropped: by its discovery it is loaded where there is room, and
    nobody goes. Where that does not load it, also what its first request would do, after everybody's turn.
    """
    observed = Observed(
        now=now,
        models=tuple(board.views.values()),
        fleet=board.devices.fleet,
        policies=board.policies,
        overrides=board.offering.overrides,
        capabilities=board.offering.capabilities,
    )
    if wanted is Demand.NONE:
        asked = plan(_with(observed, profile, Demand.REQUEST))
        if any(decision.verb is Verb.REFUSE for decision in asked.decisions if decision.model == profile.name):
            return asked
        words = "its first request loads it (orchestration.load_on_discovery: false): what that would do is said here as well"
        unasked = Decision(at=now, model=profile.name, verb=Verb.WAIT, rule="plan.4", reason=words)
        return replace(asked, decisions=(unasked, *asked.decisions))
    dropped = plan(_with(observed, profile, wanted))
    if any(decision.verb is not Verb.WAIT for decision in dropped.decisions if decision.model == profile.name):
        return dropped
    if any(action.beneficiary == profile.name for action in dropped.actions):
        return dropped
    waits = next((decision for decision in dropped.decisions if decision.model == profile.name), None)
    asked = plan(_with(observed, profile, Demand.REQUEST))
    return replace(asked, decisions=(*(() if waits is None else (waits,)), *asked.decisions))


def _with(observed: Observed, profile: ModelProfile, demand: Demand) -> Observed:
    override = override_of(observed.overrides, profile.name)
    choice = choose_runtime(profile, observed.capabilities, override)
    estimated_bytes = 0  # then it is refused
    if choice.runtime is not None:
        estimated_bytes = estimate_footprint(profile, choice.runtime, born=choice.born)
    view = ModelView(
        name=profile.name,
        state=State.UNLOADED,
        profile=profile,
        footprint=Footprint(estimated_bytes=override.memory_bytes or estimated_bytes),
        demand=demand,
        demand_since=observed.now,
        waiting=1 if demand is Demand.REQUEST else 0,
    )
    return replace(observed, models=(*observed.models, view))

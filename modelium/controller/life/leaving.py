"""Unloads: what drains and why, when it is unloaded, and what becomes of it then."""

from __future__ import annotations

from dataclasses import replace

from modelium.brain.runtimes.choice import SUPPORTS
from modelium.brain.turns import TURN_RULE
from modelium.controller.life.context import Context
from modelium.controller.life.effects import (
    Bury,
    CountDecision,
    CountPreload,
    CountUnload,
    Discard,
    Effect,
    Forget,
    Grant,
    Preload,
    Reject,
    RememberUnload,
    Say,
    StopWatching,
    Unload,
    UnloadIsOver,
    Wake,
)
from modelium.controller.life.events import HasUnloaded, NotUnloaded, PassEnds, UnloadDecided, UserUnloads
from modelium.controller.life.phases import Absent, AdapterFolder, Attempt, Cause, Draining, Leaving, Loaded, Loading, Unloading
from modelium.controller.life.record import Record
from modelium.controller.life.table import Step, ignore, on
from modelium.controller.life.tries import count
from modelium.devices import processes_of
from modelium.errors import NotServable
from modelium.values import Decision, Demand, State

_LOOK_AGAIN_S = 1.0


def remembered(record: Record, decision: Decision) -> Step:
    """With a decision as the newest. One that only repeats the last is not counted."""
    after = record.remembering(decision)
    return after, (CountDecision(decision),) if after is not record else ()


def told_of_preload(record: Record, outcome: Preload) -> Step:
    """What became of its load, where that was before anybody asked."""
    if not record.past.preloaded:
        return record, ()
    seconds = record.past.load_seconds
    return replace(record, past=replace(record.past, preloaded=False)), (CountPreload(outcome=outcome, seconds=seconds),)


def without_memory(record: Record) -> Record:
    """Nothing of it is loaded any more: its memory is anybody's."""
    kept = record.placement
    memory = replace(record.memory, held=0, weighed=None)
    return replace(record, memory=memory, past=replace(record.past, placement=kept))


def drained(
    record: Record,
    phase: Loaded,
    cause: Cause,
    reason: str,
    context: Context,
    *,
    rule: str = "",
    yields_to: str = "",
    moves: bool = False,
) -> Step:
    """It gives no new leases; it is unloaded when the last is back, or when the time for that is over: at once, where it is
    buried. ``yields_to``: for which model. ``moves``: it is loaded again, where there is room.
    """
    until = context.now if cause.is_burial else context.now + context.drain_timeout_s
    leaving = Leaving(cause=cause, rule=rule or cause.value, until=until, yields_to=yields_to, moves=moves)
    drains = Draining(serving=phase.serving, leaving=leaving, reason=reason, reload=phase.reload, doubted=phase.doubted)
    record, counted = told_of_preload(record, Preload.WASTED)
    wish = replace(record.wish, since=context.now) if record.use.waiting else record.wish  # from now on they wait for a load
    return replace(record, phase=drains, wish=wish), (*counted, Wake())


@on(UnloadDecided, Loaded)
def evict(record: Record, phase: Loaded, event: UnloadDecided, context: Context) -> Step:
    """By policy, or for somebody who waits."""
    decision = event.decision
    cause = Cause.TURN if decision.rule == TURN_RULE else Cause.POLICY
    record, counted = remembered(record, decision)
    record, effects = drained(
        record,
        phase,
        cause,
        decision.reason,
        context,
        rule=decision.rule,
        yields_to=decision.beneficiary,
        moves=bool(decision.moves_to),
    )
    return record, (*counted, *effects)


@on(UserUnloads, Loaded)
def unload_for_user(record: Record, phase: Loaded, event: UserUnloads, context: Context) -> Step:
    """It drains, however it is used."""
    record = replace(record, wish=replace(record.wish, want=Demand.NONE, sent_away=True))
    return drained(record, phase, Cause.USER, "unloaded by the user", context)


@on(UserUnloads, Loading)
def unload_when_loaded(record: Record, phase: Loading, event: UserUnloads, context: Context) -> Step:
    """Triton cannot break a load off: its end brings the model out."""
    return replace(record, wish=replace(record.wish, want=Demand.NONE, leave=True, sent_away=True)), (Wake(),)


@on(UserUnloads, Absent, Draining, Unloading)
def want_no_more(record: Record, phase: Absent | Draining | Unloading, event: UserUnloads, context: Context) -> Step:
    """There is nothing to unload, or it is on its way."""
    return replace(record, wish=replace(record.wish, want=Demand.NONE, sent_away=True)), ()


def called_back(record: Record, phase: Draining, context: Context, *, is_waited_for: bool) -> Record | None:
    """A request came while it drained. If only policy lets it go, it stays; None where it goes.

    Not when it is another one's turn: a model that is asked all the time would be called back for ever.
    """
    leaving = phase.leaving
    if record.folder.gone or not leaving.cause.by_policy or phase.doubted or (leaving.cause is Cause.TURN and is_waited_for):
        return None
    words = "a request came while it was drained: it stays"
    stays = Loaded(serving=phase.serving, reason=words, reload=phase.reload)
    return with_newest_due(replace(record, phase=stays), stays, context)


def with_newest_due(record: Record, phase: Loaded, context: Context) -> Record:
    """The newest revision is to be loaded, where an older one serves; who was just writing to it has a while to end."""
    newest = record.folder.profile
    is_newer = newest is not None and newest.fingerprint != phase.serving.profile.fingerprint
    reload_at = max(context.now, record.tries.put_off_until) if is_newer else None
    return replace(record, phase=replace(phase, reload_at=reload_at))


@on(PassEnds, Draining)
def settle(record: Record, phase: Draining, event: PassEnds, context: Context) -> Step:
    """Unload what is drained, or whose time to drain is over; not beside an engine that measures the device.

    Not during its own reload either: the unload could overtake it at Triton. The reload's end brings us here again.
    """
    leaving = phase.leaving
    if leaving.cause is Cause.TURN:
        stays = called_back(record, phase, context, is_waited_for=event.is_waited_for)
        if stays is not None:
            return stays, (Grant(), Wake())
    if phase.reload is not None or (record.use.leases and context.now < leaving.until):
        return record, ()
    if event.disturbs:
        later = replace(leaving, until=context.now + _LOOK_AGAIN_S)
        return replace(record, phase=replace(phase, leaving=later)), ()
    number = record.past.numbered + 1
    goes = Unloading(number=number, serving=phase.serving, leaving=leaving, reason=phase.reason)
    record = replace(record, phase=goes, past=replace(record.past, numbered=number))
    if leaving.cause.is_burial:
        return record, (StopWatching(), Bury(number=number))
    serving = phase.serving
    processes = (*serving.processes, *processes_of(serving.replicas), *serving.departing)
    ending = SUPPORTS[serving.placement.runtime].ending
    return record, (StopWatching(), Unload(number=number, processes=processes, remove=record.folder.gone, ending=ending))


@on(PassEnds, Absent, AdapterFolder)
def forget(record: Record, phase: Absent | AdapterFolder, event: PassEnds, context: Context) -> Step:
    """What was removed and occupies nothing."""
    return record, (Forget(),) if record.folder.gone else ()


ignore((Loading, Loaded, Unloading), PassEnds)


@on(HasUnloaded, Unloading)
def unloaded(record: Record, phase: Unloading, event: HasUnloaded, context: Context) -> Step:
    """Its memory is anybody's. What outgrew its memory has failed; what Ray took down is tried again."""
    if event.number != phase.number:
        return record, ()
    cause, gone = phase.leaving.cause, record.folder.gone
    effects: tuple[Effect, ...] = (
        CountUnload(rule=phase.leaving.rule, seconds=event.seconds, killed=event.killed),
        RememberUnload(fingerprint=phase.serving.profile.fingerprint),
        Say(f"unloaded in {event.seconds:.2f} s ({phase.leaving.rule})"),
    )
    record = without_memory(record)
    state = State.FAILED if cause is Cause.RAY_DOWN else State.UNLOADED
    entry = None if gone else record.past.entry
    past = replace(record.past, unloads=record.past.unloads + 1, unload_seconds=event.seconds, entry=entry)
    tries = replace(record.tries, retry_at=context.now) if cause is Cause.RAY_DOWN else record.tries
    wish = replace(record.wish, leave=False)
    if phase.leaving.moves and wish.want is Demand.NONE and not wish.sent_away:
        wish = replace(wish, want=Demand.EXPECTED, since=context.now)
    record = replace(record, phase=Absent(state=state, reason=phase.reason), past=past, tries=tries, wish=wish)
    if cause is Cause.OUTGREW:
        effects = (*effects, Discard())
        if not gone:
            record = replace(record, tries=replace(tries, failures=max(0, len(tries.crashes) - 1)))
            record, counted = count(record, State.FAILED, phase.reason, context)
            effects = (*effects, *counted)
    return record, (*effects, UnloadIsOver())


@on(NotUnloaded, Unloading)
def not_unloaded(record: Record, phase: Unloading, event: NotUnloaded, context: Context) -> Step:
    """Its memory stays promised: nobody knows whether it is free."""
    if event.number != phase.number:
        return record, ()
    reason = f"it could not be unloaded: {event.error}"
    tries, past = replace(record.tries, retry_at=None), replace(record.past, placement=record.placement)
    wish = replace(record.wish, leave=False)
    record = replace(record, phase=Absent(state=State.FAILED, reason=reason), tries=tries, past=past, wish=wish)
    return record, (Reject(NotServable(f"{record.key!r}: {reason}")), UnloadIsOver())


ignore((Absent, AdapterFolder, Loading, Loaded, Draining), HasUnloaded, NotUnloaded)


def without_reload(record: Record, reload: Attempt | None) -> Record:
    """The memory that was promised for a revision beside the one that serves comes back."""
    if reload is None:
        return record
    held = max(0, record.memory.held - reload.placement.footprint.bytes)
    return replace(record, memory=replace(record.memory, held=held))

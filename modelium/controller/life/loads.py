"""Loads: what was decided about a model that is not loaded, and what became of the load, or of a newer revision beside it."""

from __future__ import annotations

from dataclasses import replace

from modelium.brain import usage as use
from modelium.controller.life.attempts import begun
from modelium.controller.life.context import Context
from modelium.controller.life.effects import (
    CountLoad,
    CountPreload,
    Effect,
    Grant,
    How,
    Measure,
    Preload,
    Reject,
    RememberLoad,
    Say,
    StopWatching,
    Wake,
)
from modelium.controller.life.events import (
    FoundInTriton,
    HasLoaded,
    LoadDecided,
    RefusalDecided,
    ReloadDecided,
    ReloadRefused,
    RuntimeFound,
    WaitDecided,
)
from modelium.controller.life.leaving import drained, remembered, with_newest_due
from modelium.controller.life.phases import Absent, AdapterFolder, Attempt, Cause, Draining, Loaded, Loading, Serving, Unloading
from modelium.controller.life.record import Memory, Record
from modelium.controller.life.table import Step, ignore, on
from modelium.controller.life.tries import forgiven, wanted_at_discovery, wanting
from modelium.errors import NotServable
from modelium.values import Demand, Placement, State

# -- decisions -------------------------------------------------------------------------------------------------------


@on(LoadDecided, Absent)
def begin(record: Record, phase: Absent, event: LoadDecided, context: Context) -> Step:
    """Promise the memory and load."""
    is_preload = record.demand is Demand.EXPECTED
    record, counted = remembered(record, event.decision)
    record = replace(record, past=replace(record.past, preloaded=is_preload))
    if is_preload:
        counted = *counted, CountPreload(outcome=Preload.BEGUN, seconds=record.past.load_seconds)
    record, attempt, load = begun(record, event.profile, event.placement, How.PLAIN, context)
    loads = Loading(attempt=attempt, reason=event.decision.reason)
    record = replace(record, phase=loads, memory=_promised(record, event.placement))
    return record, (*counted, load)


def _promised(record: Record, placement: Placement) -> Memory:
    memory, footprint = record.memory, placement.footprint
    measured = memory.learned.get(placement.manner) if memory.learned else memory.measured
    return replace(memory, estimated=footprint.estimated_bytes, measured=measured, held=footprint.bytes)


@on(RefusalDecided, Absent)
def refuse(record: Record, phase: Absent, event: RefusalDecided, context: Context) -> Step:
    """Nothing here can serve it: an answer, not an error."""
    record, counted = remembered(record, event.decision)
    reason = event.decision.reason
    refused = Absent(state=State.UNSUPPORTED, reason=reason)
    record = replace(record, phase=refused, wish=replace(record.wish, want=Demand.NONE))
    return record, (*counted, Reject(NotServable(f"{record.key!r} cannot be served: {reason}")))


@on(RuntimeFound, Absent)
def support(record: Record, phase: Absent, event: RuntimeFound, context: Context) -> Step:
    """It was refused for want of a runtime, and is as if it were discovered now."""
    if phase.state is not State.UNSUPPORTED:
        return record, ()
    record = replace(record, phase=Absent(state=State.UNLOADED, reason="not loaded yet"))
    return wanted_at_discovery(record, context), ()


@on(WaitDecided, Absent)
def wait(record: Record, phase: Absent, event: WaitDecided, context: Context) -> Step:
    """Said in its state, where it is not loaded."""
    record, counted = remembered(record, event.decision)
    if phase.state is State.UNLOADED:
        record = replace(record, phase=replace(phase, reason=event.decision.reason))
    return record, counted


@on(ReloadDecided, Loaded)
def begin_reload(record: Record, phase: Loaded, event: ReloadDecided, context: Context) -> Step:
    """A newer revision of a model that serves: beside the old one if there is room for both, else after it."""
    phase = replace(phase, reload_at=None)
    if event.placement is None:
        words = "a new revision is to be loaded and there is no room for both"
        return drained(wanting(record, Demand.RESTORE), phase, Cause.REVISION, words, context)
    record, attempt, load = begun(record, event.profile, event.placement, How.BESIDE, context)
    held = record.memory.held + event.placement.footprint.bytes
    record = replace(record, phase=replace(phase, reload=attempt), memory=replace(record.memory, held=held))
    return record, (load, Say("a new revision is loaded beside the old one"))


@on(ReloadRefused, Loaded)
def refuse_reload(record: Record, phase: Loaded, event: ReloadRefused, context: Context) -> Step:
    """The old revision goes on."""
    words = f"the new revision cannot be served: {event.reason}"
    return replace(record, phase=replace(phase, reload_at=None), revision_error=words), ()


@on(FoundInTriton, Absent)
def adopt(record: Record, phase: Absent, event: FoundInTriton, context: Context) -> Step:
    """Triton served it before we looked (an external one, and we were restarted): the same revision stays as it is."""
    if event.profile is None or event.placement is None:
        return wanting(record, Demand.RESTORE), ()
    number = record.past.numbered + 1
    serving = Serving(number=number, profile=event.profile, placement=event.placement)
    words = "Triton had it loaded already"
    record = replace(
        record,
        phase=Loaded(serving=serving, reason=words),
        memory=_promised(record, event.placement),
        wish=replace(record.wish, want=Demand.NONE),
        use=replace(record.use, window=use.start(context.now, record.use.window)),
        # What is on disk may have been written for another placement.
        past=replace(record.past, numbered=number, entry=None, loaded_at=context.now),
    )
    return record, (Say(words), Grant())


# -- good ends -------------------------------------------------------------------------------------------------------


@on(HasLoaded, Loading)
def loaded(record: Record, phase: Loading, event: HasLoaded, context: Context) -> Step:
    """It answers: give out the leases that were waited for, then see whether it should be here at all."""
    attempt = phase.attempt
    if event.number != attempt.number:
        return record, ()
    record, effects = _answers(record, attempt, event, context)
    serves = Loaded(serving=_serving(attempt, event), reason=phase.reason)
    return _see_whether_it_stays(replace(record, phase=serves), serves, effects, context)


@on(HasLoaded, Loaded)
def reloaded(record: Record, phase: Loaded, event: HasLoaded, context: Context) -> Step:
    """The newer revision takes the place of the one that served."""
    reload = phase.reload
    if reload is None or event.number != reload.number:
        return record, ()
    record, effects = _answers(record, reload, event, context)
    serves = Loaded(serving=_serving(reload, event), reason=phase.reason)
    return _see_whether_it_stays(
        replace(record, phase=serves, memory=_of_new_revision(record, reload)), serves, (StopWatching(), *effects), context
    )


@on(HasLoaded, Draining)
def reloaded_while_it_drains(record: Record, phase: Draining, event: HasLoaded, context: Context) -> Step:
    """The newer revision drains in the place of the old one."""
    reload = phase.reload
    if reload is None or event.number != reload.number:
        return record, ()
    record, effects = _answers(record, reload, event, context)
    drains = replace(phase, serving=_serving(reload, event), reload=None, doubted=False)
    return replace(record, phase=drains, memory=_of_new_revision(record, reload)), (StopWatching(), *effects, Wake())


ignore((Absent, AdapterFolder, Unloading), HasLoaded)


def _serving(attempt: Attempt, event: HasLoaded) -> Serving:
    return Serving(number=attempt.number, profile=attempt.profile, placement=attempt.placement, departing=event.older)


def _of_new_revision(record: Record, reload: Attempt) -> Memory:
    return replace(_promised(record, reload.placement), measured=None, learned={}, weighed=None)


def _answers(record: Record, attempt: Attempt, event: HasLoaded, context: Context) -> Step:
    tries = forgiven(replace(record.tries, put_off=0, put_off_until=0.0, lost_at=float("-inf")))
    past = replace(record.past, loads=record.past.loads + 1, load_seconds=event.seconds, loaded_at=context.now)
    record = replace(
        record,
        tries=tries,
        wish=replace(record.wish, want=Demand.NONE),
        use=replace(record.use, window=use.start(context.now, record.use.window)),
        memory=replace(record.memory, weighed=None),
        past=past,
        revision_error="",
    )
    return record, (
        CountLoad(outcome="ok", seconds=event.seconds),
        RememberLoad(fingerprint=attempt.profile.fingerprint, seconds=event.seconds),
        Say(f"loaded in {event.seconds:.2f} s"),
        Measure(),
    )


def _see_whether_it_stays(record: Record, phase: Loaded, effects: tuple[Effect, ...], context: Context) -> Step:
    if record.folder.gone:
        record, more = drained(record, phase, Cause.REMOVED, "its folder was removed", context)
    elif record.wish.leave:
        record, more = drained(record, phase, Cause.USER, "unloaded by the user", context)
    else:
        record, more = with_newest_due(record, phase, context), ()
    return record, (*effects, Grant(), *more)

"""Loads that failed: whose failure it was, when the next try is, and what goes on meanwhile."""

from __future__ import annotations

from dataclasses import replace

from modelium.controller.life.context import Context
from modelium.controller.life.effects import CountLoad, Effect, Level, Say, StopWatching, UnloadIsOver, Wake
from modelium.controller.life.events import NotLoaded
from modelium.controller.life.folder import look_again
from modelium.controller.life.leaving import with_newest_due, without_memory, without_reload
from modelium.controller.life.phases import Absent, AdapterFolder, Attempt, Draining, Loaded, Loading, Unloading
from modelium.controller.life.record import Record
from modelium.controller.life.table import Step, ignore, on
from modelium.controller.life.tries import blame, count, put_off, wanting
from modelium.errors import FolderChanged, GivenUp, RayUnavailable, TritonUnavailable
from modelium.values import Demand, State

_AFTER_OUTAGE_S = 0.5


@on(NotLoaded, Loaded, Draining)
def not_reloaded(record: Record, phase: Loaded | Draining, event: NotLoaded, context: Context) -> Step:
    """The old revision goes on. The newest is tried once more, unless it is this one and the failure its own."""
    reload, error = phase.reload, event.error
    if reload is None or event.number != reload.number:
        return record, ()
    tries, its_own = blame(record.tries, error, phase.serving.placement, context)
    goes_on = replace(phase, reload=None, reload_at=None) if isinstance(phase, Loaded) else replace(phase, reload=None)
    words = f"the new revision failed to load, the old one goes on serving: {error}"
    record = without_reload(
        replace(
            record,
            phase=goes_on,
            tries=put_off(tries, context),
            past=replace(record.past, entry=None, reload_failed_at=context.now),
            revision_error=words,
        ),
        reload,
    )
    record, looks = look_again(record) if isinstance(error, FolderChanged) else (record, ())
    if isinstance(record.phase, Loaded) and (not its_own or record.folder.profile != reload.profile):
        record = with_newest_due(record, record.phase, context)
    return record, (CountLoad(outcome="failed", seconds=event.seconds), Say(words, Level.WARNING), *looks, Wake())


@on(NotLoaded, Loading)
def not_loaded(record: Record, phase: Loading, event: NotLoaded, context: Context) -> Step:
    """Triton or Ray is away, the folder was written to, or Triton gave a process up: tried again. Else one failure more."""
    attempt, error, reason, is_to_leave = phase.attempt, event.error, str(event.error), record.wish.leave
    if event.number != attempt.number:
        return record, ()
    tries, its_own = blame(record.tries, error, attempt.placement, context)
    record = without_memory(
        replace(record, tries=tries, past=replace(record.past, entry=None), wish=replace(record.wish, leave=False))
    )
    effects: tuple[Effect, ...] = (CountLoad(outcome="failed", seconds=event.seconds), StopWatching())
    if _ray_is_why(attempt, event, context):
        words = reason if isinstance(error, RayUnavailable) else f"Ray is down: {context.ray_detail}"
        return _tried_again(record, State.FAILED, words, context.now, effects, wanted=not is_to_leave)
    if isinstance(error, TritonUnavailable):  # its supervisor brings it back
        record = replace(record, tries=replace(tries, lost_at=context.now))
        return _tried_again(record, State.UNLOADED, reason, context.now + _AFTER_OUTAGE_S, effects, wanted=not is_to_leave)
    if isinstance(error, FolderChanged | GivenUp):
        # A crash, if there was one, is forgotten: its process read what was being written, or ended itself.
        tries = put_off(replace(tries, crashes=tries.crashes[:-1]), context)
        record = replace(record, tries=tries)
        record, looks = look_again(record) if isinstance(error, FolderChanged) else (record, ())
        return _tried_again(record, State.UNLOADED, reason, tries.put_off_until, (*effects, *looks), wanted=not is_to_leave)
    record, counted = count(record, State.FAILED, reason, context, its_own=its_own)
    return record, (*effects, *counted)


def _tried_again(record: Record, state: State, reason: str, at: float, effects: tuple[Effect, ...], *, wanted: bool) -> Step:
    """Nobody's failure: it is tried again, unless a user asked for its unload meanwhile."""
    record = replace(record, phase=Absent(state=state, reason=reason), tries=replace(record.tries, retry_at=at))
    return wanting(record, Demand.RESTORE) if wanted else record, (*effects, UnloadIsOver())


def _ray_is_why(attempt: Attempt, event: NotLoaded, context: Context) -> bool:
    """Not the model's failure: Ray is away, and when it is back the plan loads the model again."""
    if not attempt.placement.by_ray:
        return False
    return isinstance(event.error, RayUnavailable) or (context.ray_outages != attempt.ray_outages and not attempt.broke_ray)


ignore((Absent, AdapterFolder, Unloading), NotLoaded)

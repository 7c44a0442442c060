"""Accidents and readings: a process died, Triton or Ray went away, a reading shows what nobody asked for."""

from __future__ import annotations

from dataclasses import replace

from modelium.brain import usage as use
from modelium.brain.engine.memory import IMPORTED_BYTES
from modelium.brain.runtimes.choice import SUPPORTS
from modelium.controller.life.attempts import begun
from modelium.controller.life.context import Context
from modelium.controller.life.effects import (
    Discard,
    Effect,
    EndProcesses,
    Grant,
    How,
    Level,
    RememberMeasurement,
    Say,
    StopWatching,
    UnloadIsOver,
    Watch,
)
from modelium.controller.life.events import Checked, Outgrew, ProcessDied, RayLost, Read, ServerLost
from modelium.controller.life.leaving import drained, without_memory, without_reload
from modelium.controller.life.phases import (
    PHASES,
    Absent,
    AdapterFolder,
    Cause,
    Draining,
    Loaded,
    Loading,
    Phase,
    Serving,
    Unloading,
)
from modelium.controller.life.record import Record, Tries
from modelium.controller.life.table import Step, ignore, on
from modelium.controller.life.tries import count, wanting
from modelium.values import Decision, Demand, DeviceKind, State, Verb
from modelium.values.replacing import replaced

_CRASH_WINDOW_S = 300.0
_REMEMBERED_CRASHES = 8
_SAME_OUTAGE_S = 10.0
_STEADY_AFTER_S = 30.0
_ONE_BY_ONE_S = 5.0
_DYING_S = 2.0
_NOT_IN_TRITON = ("", "UNAVAILABLE")


def _crashed_now(record: Record, context: Context) -> Tries:
    """One crash more. What served for a while is not of the kind that dies again and again."""
    steady = context.now - record.past.loaded_at > _STEADY_AFTER_S
    before = () if steady else record.tries.crashes
    return replace(record.tries, crashes=(*before, context.now)[-_REMEMBERED_CRASHES:])


# -- processes -------------------------------------------------------------------------------------------------------


@on(ProcessDied, Loaded)
def die(record: Record, phase: Loaded, event: ProcessDied, context: Context) -> Step:
    """A process of what serves ended."""
    if event.number != phase.serving.number:
        return record, ()
    return crashed(record, phase, f"its process {event.pid} died", context)


# Where an unload is under way, that is what it is for; what loads fails by itself.
ignore((Absent, AdapterFolder, Loading, Draining, Unloading), ProcessDied)


def crashed(record: Record, phase: Loaded, detail: str, context: Context) -> Step:
    """Its process died though Triton calls it READY: load it anew beside the corpse, a plain load would do nothing."""
    serving = phase.serving
    tries = _crashed_now(record, context)
    recent = sum(1 for at in tries.crashes if at > context.now - _CRASH_WINDOW_S)
    past = replace(record.past, deaths=record.past.deaths + 1)
    record = without_reload(replace(record, tries=tries, past=past), phase.reload)
    phase = replace(phase, reload=None, doubted=False)
    record = replace(record, phase=phase)
    if recent > context.load_retries:
        words = f"{detail}, the {recent}th time in {_CRASH_WINDOW_S:.0f} s"
        record = without_memory(replace(record, tries=replace(tries, failures=context.load_retries)))
        record, counted = count(record, State.FAILED, words, context)
        return record, (StopWatching(), Discard(), *counted)
    said = Say(f"{detail}; loading it again", Level.WARNING)
    if serving.placement.engine is not None and serving.placement.device_kind is not DeviceKind.HOST:
        # It starts alone there (``load_order``), and that is for the plan to see to. Its entry is written anew, so that the
        # load is a real one: Triton still calls the corpse READY.
        record = wanting(replace(record, past=replace(past, entry=None)), Demand.RESTORE)
        words = f"{detail}; it is loaded again in its turn"
        record, effects = drained(record, phase, Cause.DIED, words, context)
        return record, (StopWatching(), said, *effects)
    revision = record.folder.profile or serving.profile
    record, attempt, load = begun(record, revision, serving.placement, How.AFTER_DEATH, context)
    loads = Loading(attempt=attempt, reason=f"{detail}; loading it again")
    return replace(record, phase=loads), (StopWatching(), said, load)


@on(Checked, Loaded)
def see_whether_it_serves(record: Record, phase: Loaded, event: Checked, context: Context) -> Step:
    """A request had found it gone."""
    if not phase.doubted or event.number != phase.serving.number:
        return record, ()
    if event.serves:
        return replace(record, phase=replace(phase, doubted=False)), (Grant(),)
    if event.died:
        return crashed(record, phase, event.detail, context)
    return lost(record, event.detail)


ignore((Absent, AdapterFolder, Loading, Draining, Unloading), Checked)


def lost(record: Record, detail: str) -> Step:
    """Triton unloaded it without being asked by us."""
    words = f"Triton does not serve it any more: {detail}"
    record = replace(without_memory(record), phase=Absent(state=State.UNLOADED, reason=words))
    return record, (StopWatching(), Say(words, Level.WARNING))


# -- readings --------------------------------------------------------------------------------------------------------


@on(Read, Loaded)
def read(record: Record, phase: Loaded, event: Read, context: Context) -> Step:
    """What a reading says of a model that was loaded before the reading began.

    Processes of a reload that failed may be in it while they die, and Triton's index shows that failure for a moment.
    """
    past = record.past
    if event.started_at < max(past.loaded_at, past.reload_failed_at + _DYING_S):
        return record, ()
    effects: tuple[Effect, ...] = ()
    if event.completed is not None:
        window = use.observe(record.use.window, completed=event.completed, now=context.now, window_s=context.usage_window_s)
        record = replaced(record, use=replaced(record.use, window=window))
    if phase.doubted or phase.reload is not None:
        return record, ()
    if event.processes is not None:
        serving = phase.serving
        departing = serving.departing & frozenset(event.processes)
        found = tuple(process for process in event.processes if process not in departing)
        if not serving.processes and not found:
            return crashed(record, phase, "its process died", context)  # before anybody could watch it
        if not serving.processes:
            effects = (Watch(number=serving.number, processes=found),)
        serving = replace(serving, departing=departing, replicas=event.replicas, processes=serving.processes or found)
        record, serving = _as_it_was_loaded(record, serving, event.born)
        record = replace(record, phase=replace(phase, serving=serving))
        if event.held and not departing:
            record, weighed = _weigh(record, serving, event.held, orphaned=event.orphaned)
            effects = (*effects, *weighed)
    if event.in_triton in _NOT_IN_TRITON:
        if event.in_triton == "":  # Triton is another one than before: nobody unloaded this, it was lost
            record = wanting(record, Demand.RESTORE)
        return lost(record, event.triton_says or "it was never asked to")
    return record, effects


ignore((Absent, AdapterFolder, Loading, Draining, Unloading), Read)


def _as_it_was_loaded(record: Record, serving: Serving, born: bool | None) -> tuple[Record, Serving]:
    """A nursery was expected and did not listen yet, or the other way round: what it takes is then learned of that manner.

    What an engine is promised follows from its plan, in which its imports are counted or not.
    """
    place = serving.placement
    tells = place.device_kind is DeviceKind.HOST and SUPPORTS[place.runtime].is_born
    if born is None or born == place.born or not tells:
        return record, serving
    footprint = place.footprint
    if place.engine is not None and record.memory.stated is None:
        own = -IMPORTED_BYTES if born else IMPORTED_BYTES
        footprint = replace(footprint, estimated_bytes=footprint.estimated_bytes + own)
    placement = replace(place, born=born, footprint=footprint)
    memory = replace(record.memory, measured=record.memory.learned.get(placement.manner))
    return replace(record, memory=memory), replace(serving, placement=placement)


def _weigh(record: Record, serving: Serving, held: int, *, orphaned: bool) -> Step:
    """Keep the largest measurement of this revision: a model grows with its first large batch.

    A vllm engine was given what was planned for it, cache pages that it has not touched yet included. What the user states is
    kept free, used or not. What an orphan shared with its nursery is its own until it is loaded anew, and says nothing of the
    model.
    """
    memory, place = record.memory, serving.placement
    measured, manner = max(held, memory.measured or 0), place.manner
    promised = memory.held
    if memory.stated is None and not place.exclusive:
        planned = place.footprint.estimated_bytes if place.engine or place.replicas else 0
        promised = max(measured, planned)
    if orphaned and place.device_kind is DeviceKind.HOST:
        return replace(record, memory=replace(memory, weighed=held, held=promised)), ()
    learned = {**memory.learned, manner: measured}
    memory = replace(memory, weighed=held, measured=measured, learned=learned, held=promised)
    note = RememberMeasurement(fingerprint=serving.profile.fingerprint, manner=manner, measured_bytes=measured)
    return replace(record, memory=memory), (note,)


@on(Outgrew, Loaded)
def outgrow(record: Record, phase: Loaded, event: Outgrew, context: Context) -> Step:
    """As if it had died of itself, so that it is not loaded again and again; it goes at once, for what it answers just now may
    be what makes it grow.
    """
    decision = Decision(at=context.now, model=record.key, verb=Verb.UNLOAD, rule=event.rule, reason=event.reason)
    # Its entry is written anew, so that its load is a real one; what it took is an accident, and nothing to plan with.
    past = replace(record.past, deaths=record.past.deaths + 1, entry=None)
    manner = phase.serving.placement.manner
    others = {other: size for other, size in record.memory.learned.items() if other != manner}
    memory, tries = replace(record.memory, measured=None, learned=others), _crashed_now(record, context)
    record = replace(record, past=past, memory=memory, tries=tries).remembering(decision)
    record, effects = drained(record, phase, Cause.OUTGREW, event.reason, context, rule=event.rule)
    fingerprint = phase.serving.profile.fingerprint
    note = RememberMeasurement(fingerprint=fingerprint, manner=manner, measured_bytes=memory.expected)
    return record, (Say(event.reason, Level.ERROR), note, *effects)


# -- outages ---------------------------------------------------------------------------------------------------------


@on(RayLost, Loading)
def lose_ray_while_it_loads(record: Record, phase: Loading, event: RayLost, context: Context) -> Step:
    """Its load would wait for a Ray that does not answer; it fails now. Alone in loading, it may be the cause."""
    if not phase.attempt.placement.by_ray:
        return record, ()
    attempt = replace(phase.attempt, broke_ray=phase.attempt.broke_ray or event.alone)
    return replace(record, phase=replace(phase, attempt=attempt)), (EndProcesses(),)


@on(RayLost, Loaded)
def lose_ray(record: Record, phase: Loaded, event: RayLost, context: Context) -> Step:
    """The process in front of it is ended, and it is brought back when Ray is."""
    if not phase.serving.placement.by_ray:
        return record, ()
    # Its entry is written anew, so that its load is a real one: Triton calls the corpse READY.
    past = replace(record.past, deaths=record.past.deaths + 1, entry=None)
    record = wanting(replace(record, past=past), Demand.RESTORE)
    record, effects = drained(record, phase, Cause.RAY_DOWN, f"Ray is down: {event.detail}", context)
    return record, (*effects, EndProcesses()) if phase.reload is not None else effects


@on(RayLost, Draining)
def lose_ray_while_it_drains(record: Record, phase: Draining, event: RayLost, context: Context) -> Step:
    """It is on its way out already; a reload beside it would wait for Ray for ever."""
    ends = phase.reload is not None and phase.serving.placement.by_ray
    return record, (EndProcesses(),) if ends else ()


ignore((Absent, AdapterFolder, Unloading), RayLost)


@on(ServerLost, *PHASES)
def lose_server(record: Record, phase: Phase, event: ServerLost, context: Context) -> Step:
    """Everything Triton had loaded is gone. What was loaded or loading is brought back when it is up again.

    The model that was loading when Triton died may be the cause: that counts as its failure. Several that were are brought back
    one by one, so that the cause is alone the next time. Its own recent crash was one of Triton's.
    """
    crashes = tuple(at for at in record.tries.crashes if at <= context.now - _SAME_OUTAGE_S)
    record = without_memory(replace(record, tries=replace(record.tries, crashes=crashes)))  # also what could not be unloaded
    loaded_then = event.alone or event.place is not None
    if not record.occupies and not (loaded_then and isinstance(phase, Absent) and phase.state.may_load):
        return record, ()
    leaving = isinstance(phase, Draining | Unloading)
    record = replace(record, wish=replace(record.wish, leave=False))
    if event.alone:
        record, effects = count(record, State.UNLOADED, f"Triton died while it loaded: {event.detail}", context)
    else:
        retry_at = context.now + _ONE_BY_ONE_S * event.place if event.place is not None else 0.0
        down = Absent(state=State.UNLOADED, reason=f"Triton is down: {event.detail}")
        record = replace(record, phase=down, tries=replace(record.tries, retry_at=retry_at))
        effects = (UnloadIsOver(),)
    if not leaving and not record.folder.gone and record.tries.retry_at is not None:
        record = wanting(record, Demand.RESTORE)
    return record, (StopWatching(), *effects)


def was_loading(record: Record, now: float) -> bool:
    """Whether it loads, or did when Triton went away: often the load's own call breaks first.

    Not if its process has just died: that may have been the first sign of Triton's end, and its load the answer to that.
    """
    if any(at > now - _SAME_OUTAGE_S for at in record.tries.crashes):
        return False
    return isinstance(record.phase, Loading) or record.tries.lost_at > now - _SAME_OUTAGE_S

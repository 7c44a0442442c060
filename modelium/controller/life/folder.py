"""What lies in the watch directory: scans, analyses and revisions. What enters: what was seen. What leaves: a record whose
folder is that, and what has to be looked at or loaded because of it.
"""

from __future__ import annotations

from dataclasses import replace

from modelium.controller.life.context import Context
from modelium.controller.life.effects import Analyze, Effect, Reject, Wake
from modelium.controller.life.events import Analyzed, Attached, FolderGone, FolderSeen, Revised, Unusable
from modelium.controller.life.leaving import drained, with_newest_due
from modelium.controller.life.obstacles import obstacle
from modelium.controller.life.phases import (
    PHASES,
    Absent,
    AdapterFolder,
    Cause,
    Draining,
    Loaded,
    Loading,
    Phase,
    Standing,
    Unloading,
)
from modelium.controller.life.record import Record
from modelium.controller.life.table import Step, ignore, on
from modelium.controller.life.tries import forgiven, pardoned, wanted_at_discovery, wanting
from modelium.errors import NotServable
from modelium.values import AdapterProfile, Demand, Incomplete, ModelProfile, State, Unsupported

_REMOVED = "its folder was removed"


def look_again(record: Record) -> Step:
    """At a folder that changed, before any scan saw it; not twice at once."""
    if record.folder.analyzing or record.folder.gone:
        return record, ()
    return replace(record, folder=replace(record.folder, analyzing=True)), (_analysis_of(record),)


def _analysis_of(record: Record) -> Analyze:
    wish, folder = record.wish, record.folder
    wanted = wish.pinned or wish.always_loaded or bool(record.use.waiting) or folder.profile is not None
    return Analyze(candidate=folder.candidate, soon=wanted or folder.served_before)


def is_as_before(record: Record, event: FolderSeen) -> bool:
    """A scan says nothing new: thousands of folders lie there, and each scan names them all."""
    folder, candidate = record.folder, event.candidate
    known = (folder.candidate.signature, folder.candidate.note, folder.candidate.conflict, folder.candidate.path)
    return (
        known == (candidate.signature, candidate.note, candidate.conflict, candidate.path)
        and folder.analyzed_signature == candidate.signature
        and record.state is not State.INCOMPLETE
    )


@on(FolderSeen, *PHASES)
def see(record: Record, phase: Phase, event: FolderSeen, context: Context) -> Step:
    """A scan found the folder. One that came back while the model was on its way out is found anew when that is gone."""
    candidate = event.candidate
    if record.folder.gone:
        return record, ()
    record = replace(record, folder=replace(record.folder, candidate=candidate))
    if candidate.conflict is not None:
        if record.occupies:
            return record, ()
        record = replace(record, phase=Absent(state=State.UNSUPPORTED, reason=candidate.conflict))
        return record, _refusals(record, context)
    # An adapter's base is found without looking at the adapter again.
    again = event.again and isinstance(phase, Absent) and phase.state is State.INCOMPLETE
    if candidate.signature != record.folder.analyzed_signature or again:
        return look_again(record)
    return record, ()


@on(FolderGone, Absent, AdapterFolder)
def remove_what_is_not_loaded(record: Record, phase: Absent | AdapterFolder, event: FolderGone, context: Context) -> Step:
    """The end of the pass forgets it."""
    return replace(_gone(record), phase=Absent(state=phase.state, reason=_REMOVED)), (Wake(),)


@on(FolderGone, Loaded)
def remove_what_is_loaded(record: Record, phase: Loaded, event: FolderGone, context: Context) -> Step:
    """It drains."""
    if record.folder.gone:
        return record, ()
    return drained(_gone(record), phase, Cause.REMOVED, _REMOVED, context)


@on(FolderGone, Loading, Draining, Unloading)
def remove_when_it_is_over(record: Record, phase: Loading | Draining | Unloading, event: FolderGone, context: Context) -> Step:
    """The end of what is under way brings it out."""
    return replace(_gone(record), phase=replace(phase, reason=_REMOVED)), ()


def _gone(record: Record) -> Record:
    return replace(record, folder=replace(record.folder, gone=True), wish=replace(record.wish, want=Demand.NONE))


# -- analyses --------------------------------------------------------------------------------------------------------


@on(Analyzed, *PHASES)
def analyzed(record: Record, phase: Phase, event: Analyzed, context: Context) -> Step:
    """Apply what the analyzers found; where the folder has changed since, look again."""
    folder = replace(record.folder, analyzing=False)
    if folder.gone:
        return replace(record, folder=folder), ()
    record = replace(record, folder=replace(folder, analyzed_signature=event.signature))
    record, effects = _apply(record, event, context)
    if record.folder.candidate.signature != event.signature:
        record, looks = look_again(record)
        effects = (*effects, *looks)
    return record, effects


@on(Unusable, *PHASES)
def unusable(record: Record, phase: Phase, event: Unusable, context: Context) -> Step:
    """What one folder says must not leave it, or the others, without an answer."""
    folder = replace(record.folder, analyzing=False, unrevised=False, analyzed_signature=event.signature)
    return _refuse(replace(record, folder=folder), event.words, context)


def _apply(record: Record, event: Analyzed, context: Context) -> Step:
    match event.analysis:
        case Incomplete(why=why, missing=missing):
            record = replace(record, folder=replace(record.folder, missing=missing))
            return _not_yet(record, why, context)
        case Unsupported(why=why, hint=hint):
            record = replace(record, folder=replace(record.folder, missing=()))
            return _refuse(record, f"{why}; {hint}" if hint else why, context)
        case AdapterProfile() as profile:
            record = replace(record, folder=replace(record.folder, missing=()))
            return _become_adapter(record, profile)
        case ModelProfile() as profile:
            return _become_model(record, profile, event, context), ()


def _not_yet(record: Record, why: str, context: Context) -> Step:
    attached = isinstance(record.phase, AdapterFolder) and record.phase.standing is Standing.ATTACHED
    if record.occupies or attached:
        return replace(record, revision_error=f"a new revision is not complete yet: {why}"), ()
    record = replace(_forget_revision(record, context), phase=Absent(state=State.INCOMPLETE, reason=why))
    return record, _refusals(record, context)


def _refusals(record: Record, context: Context) -> tuple[Effect, ...]:
    """To who waits, in the words that who comes now is told."""
    reason = obstacle(record, context.now)
    return (Reject(reason),) if reason is not None else ()


def _refuse(record: Record, words: str, context: Context) -> Step:
    if record.occupies:
        return replace(record, revision_error=f"the new revision cannot be served: {words}"), ()
    record = replace(_forget_revision(record, context), phase=Absent(state=State.UNSUPPORTED, reason=words))
    return record, (Reject(NotServable(f"{record.key!r} cannot be served: {words}")),)


def _become_adapter(record: Record, profile: AdapterProfile) -> Step:
    if record.occupies:
        words = "its folder holds a LoRA adapter now: remove the folder, then drop the adapter"
        return replace(record, revision_error=words), ()
    known = record.phase if isinstance(record.phase, AdapterFolder) else None
    new = AdapterFolder(profile=profile, standing=Standing.WAITS, reason="a LoRA adapter")
    record = replace(
        record,
        phase=replace(known, profile=profile) if known is not None else new,
        folder=replace(record.folder, plain=None, profile=None, unrevised=False),
        wish=replace(record.wish, want=Demand.NONE),
        tries=forgiven(record.tries),
        revision_error="",
    )
    effects: tuple[Effect, ...] = (Reject(NotServable(f"{record.key!r} is a LoRA adapter, not a model")),)
    return record, effects


def _become_model(record: Record, profile: ModelProfile, event: Analyzed, context: Context) -> Record:
    """It is revised when adapters are settled: with all of them at once, not with each in turn."""
    folder = record.folder
    folder = replace(
        folder, missing=(), touched=folder.touched or event.seal != folder.seal, seal=event.seal, plain=profile, unrevised=True
    )
    return replace(_no_adapter(record, context), folder=folder)


def _forget_revision(record: Record, context: Context) -> Record:
    record = _no_adapter(record, context)
    return replace(record, folder=replace(record.folder, plain=None, profile=None, unrevised=False))


def _no_adapter(record: Record, context: Context) -> Record:
    """What is discovered there now is wanted as any other folder (an adapter is wanted by its base only)."""
    phase = record.phase
    if not isinstance(phase, AdapterFolder):
        return record
    return wanted_at_discovery(replace(record, phase=Absent(state=phase.state, reason=phase.reason)), context)


@on(Attached, AdapterFolder)
def attach(record: Record, phase: AdapterFolder, event: Attached, context: Context) -> Step:
    """Where a LoRA adapter stands among the models that are here."""
    return replace(record, phase=replace(phase, standing=event.standing, reason=event.reason, base=event.base)), ()


# -- revisions -------------------------------------------------------------------------------------------------------


@on(Revised, Absent, Loading, Loaded, Draining, Unloading)
def revise(record: Record, phase: Absent | Loading | Loaded | Draining | Unloading, event: Revised, context: Context) -> Step:
    """A complete revision, adapters included. The same as before: nothing but a copy that was touched."""
    known, profile, touched = record.folder.profile, event.profile, record.folder.touched
    record = replace(record, folder=replace(record.folder, touched=False, unrevised=False))
    if known is not None and (known.fingerprint, known.path) == (profile.fingerprint, profile.path):
        return _same_revision(record, touched, context)
    record = replace(
        record,
        folder=replace(record.folder, profile=profile),
        tries=replace(forgiven(record.tries), crashes=()),
        memory=replace(
            record.memory,
            measured=event.remembered.measured_bytes,
            learned=event.remembered.measured,
            estimated=event.estimated_bytes,
        ),
        past=replace(record.past, entry=None, load_seconds=event.remembered.load_seconds or 0.0),
        revision_error="",
    )
    if isinstance(record.phase, Loaded):
        return with_newest_due(record, record.phase, context), (Wake(),)
    if not isinstance(record.phase, Absent):
        return record, ()
    return _discovered(record, record.phase, event, context, is_first=known is None)


def _same_revision(record: Record, touched: bool, context: Context) -> Step:
    phase, profile = record.phase, record.folder.profile
    if isinstance(phase, Loaded):
        if profile is not None and phase.serving.profile.fingerprint == profile.fingerprint:
            return replace(record, revision_error=""), ()
        if touched:  # that revision failed, and perhaps it loads now
            return with_newest_due(record, phase, context), (Wake(),)
    if touched and record.state is State.FAILED and record.tries.retry_at is None:
        return pardoned(record, context)
    return record, ()


def _discovered(record: Record, phase: Absent, event: Revised, context: Context, *, is_first: bool) -> Step:
    was_broken = phase.state.is_broken
    waits = record.tries.put_off and phase.state is State.UNLOADED
    record = replace(record, phase=Absent(state=State.UNLOADED, reason=phase.reason if waits else "not loaded yet"))
    if was_broken:
        record = wanted_at_discovery(record, context)
    remembered = event.remembered
    if remembered.loaded:
        record = wanting(record, Demand.RESTORE)
    if not waits and not context.load_on_discovery and record.demand is Demand.NONE:
        words = "not loaded yet: its first request loads it (orchestration.load_on_discovery: false)"
        record = replace(record, phase=Absent(state=State.UNLOADED, reason=words))
    if event.ready_in_triton or not remembered.quarantine or not is_first or record.wish.user_loads:
        return record, ()  # a user may know better
    if remembered.quarantine_seal not in ("", record.folder.seal):
        return pardoned(record, context)  # while Modelium was off
    words = f"in quarantine until its folder changes: {remembered.quarantine}"
    failed = replace(record.tries, retry_at=None)
    record = replace(record, phase=Absent(state=State.FAILED, reason=words), tries=failed)
    return record, _refusals(record, context)


ignore((Absent, Loading, Loaded, Draining, Unloading), Attached)

"""Failures and the next try: a record enters, the same with one failure more, or with fewer, leaves."""

from __future__ import annotations

from dataclasses import replace

from modelium.brain import lifecycle
from modelium.controller.life.context import Context
from modelium.controller.life.effects import Effect, Level, LiftQuarantine, Reject, RememberQuarantine, Say, UnloadIsOver
from modelium.controller.life.phases import Absent
from modelium.controller.life.record import Record, Tries
from modelium.controller.life.table import Step
from modelium.errors import (
    EntryError,
    FolderChanged,
    LoadFailed,
    MachineTrouble,
    ModeliumError,
    OutOfMemory,
    RayUnavailable,
    TritonUnavailable,
)
from modelium.values import Demand, Placement, State

_MEMORY_TRIES = 3
_MOMENT_S = 0.5


def forgiven(tries: Tries) -> Tries:
    """Count from nothing. A folder that was being written to is still left in peace for a while."""
    return replace(tries, failures=0, excused=0, of_memory=0, retry_at=tries.put_off_until)


def wanting(record: Record, demand: Demand) -> Record:
    """Wanted at least so much."""
    return replace(record, wish=replace(record.wish, want=max(record.wish.want, demand)))


def wanted_at_discovery(record: Record, context: Context) -> Record:
    """As any folder that appears."""
    return wanting(record, Demand.DISCOVERY if context.load_on_discovery else Demand.NONE)


def put_off(tries: Tries, context: Context) -> Tries:
    """Who writes to a folder has a moment to end; one that is written to without pause is tried ever less often."""
    times = tries.put_off + 1
    wait_s = _MOMENT_S if times == 1 else lifecycle.back_off(times - 1, first_s=context.retry_backoff_s)
    return replace(tries, put_off=times, put_off_until=context.now + wait_s)


def blame(tries: Tries, error: ModeliumError, placement: Placement, context: Context) -> tuple[Tries, bool]:
    """Whether a failed load is the model's own failure. Want of memory is the machine's until it looks like the model's: a
    folder that asks for more than there is would else be loaded for ever, and others unloaded for it each time.
    """
    if not isinstance(error, OutOfMemory):
        others = EntryError | MachineTrouble | FolderChanged | RayUnavailable | TritonUnavailable
        return replace(tries, of_memory=0), not isinstance(error, others)
    tries = replace(tries, of_memory=tries.of_memory + 1)
    nodes = {device.node for device in context.devices if device.id in placement.devices}
    sizes = [
        device.total_bytes
        for device in context.devices
        if device.id in placement.devices or (device.is_host and device.node in nodes)
    ]
    return tries, tries.of_memory >= _MEMORY_TRIES or (bool(sizes) and error.asked_bytes > max(sizes))


def count(record: Record, state: State, reason: str, context: Context, *, its_own: bool = True) -> Step:
    """One failure more: back-off, then quarantine until the folder changes.

    What is not the model's own failure (a full disk) is tried again for ever, at most a minute apart.
    """
    tries, effects = replace(record.tries, failures=record.tries.failures + 1), list[Effect]()
    if its_own:
        own = tries.failures - tries.excused
        retry_at = lifecycle.next_try(
            failures=own, retries=context.load_retries, backoff_s=context.retry_backoff_s, now=context.now
        )
    else:
        tries = replace(tries, excused=tries.excused + 1)
        retry_at = context.now + lifecycle.back_off(tries.failures, first_s=context.retry_backoff_s)
    wish = record.wish
    if retry_at is None:
        state, wish = State.FAILED, replace(wish, want=Demand.NONE)
        if (profile := record.folder.profile) is not None:
            effects.append(RememberQuarantine(fingerprint=profile.fingerprint, reason=reason, seal=record.folder.seal))
    often = "once" if tries.failures == 1 else f"{tries.failures} times"
    effects.append(Say(f"failed {often}: {reason}", Level.WARNING))
    if state is State.FAILED:
        when = "in quarantine until its folder changes" if retry_at is None else f"next try in {retry_at - context.now:.1f} s"
        effects.append(Reject(LoadFailed(f"{record.key!r} failed to load ({when}): {reason}")))
    effects.append(UnloadIsOver())
    phase = Absent(state=state, reason=reason)
    return replace(record, phase=phase, tries=replace(tries, retry_at=retry_at), wish=wish), tuple(effects)


def pardoned(record: Record, context: Context) -> Step:
    """The folder was touched: its rights, or what lies beside the weights. Perhaps it loads now."""
    profile = record.folder.profile
    tries = replace(forgiven(record.tries), crashes=())
    phase = Absent(state=State.UNLOADED, reason="its folder was touched: not loaded yet")
    record = wanted_at_discovery(replace(record, tries=tries, phase=phase), context)
    return record, (LiftQuarantine(fingerprint=profile.fingerprint),) if profile is not None else ()

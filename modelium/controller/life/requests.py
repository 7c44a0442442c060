"""Requests and users: leases, waiting, pins."""

from __future__ import annotations

from modelium.brain import usage as use
from modelium.controller.life.context import Context
from modelium.controller.life.effects import Check, Grant, Level, Preload, Say, Wake
from modelium.controller.life.events import (
    Asked,
    CalledBack,
    FoundGone,
    LeaseReturned,
    LeaseTaken,
    Pinned,
    UserLoadBegan,
    UserLoadEnded,
    WaitingChanged,
)
from modelium.controller.life.leaving import called_back, told_of_preload
from modelium.controller.life.phases import PHASES, Absent, AdapterFolder, Draining, Loaded, Loading, Phase, Unloading
from modelium.controller.life.record import Record
from modelium.controller.life.table import Step, ignore, on
from modelium.controller.life.tries import forgiven
from modelium.values import State
from modelium.values.replacing import replaced


@on(Asked, *PHASES)
def ask(record: Record, phase: Phase, event: Asked, context: Context) -> Step:
    """Its rhythm is told by arrivals, without what they wait for."""
    return _asked(replaced(record, use=replaced(record.use, window=use.ask(record.use.window, context.now))))


def _asked(record: Record) -> Step:
    if record.wish.sent_away:
        record = replaced(record, wish=replaced(record.wish, sent_away=False))
    return told_of_preload(record, Preload.USED)


@on(WaitingChanged, *PHASES)
def change_waiting(record: Record, phase: Phase, event: WaitingChanged, context: Context) -> Step:
    """Its demand is as old as the first request that waits."""
    wish = record.wish
    if event.waiting and not record.use.waiting:
        wish = replaced(wish, since=context.now)
    return replaced(record, use=replaced(record.use, waiting=event.waiting), wish=wish), ()


@on(LeaseReturned, *PHASES)
def give_back(record: Record, phase: Phase, event: LeaseReturned, context: Context) -> Step:
    """Also when the model is gone, or another one by now."""
    leases, window = record.use.leases - 1, use.touch(record.use.window, context.now)
    record = replaced(record, use=replaced(record.use, leases=leases, window=window))
    wakes = not leases and (event.room_is_wanted or isinstance(phase, Draining))
    return record, (Wake(),) if wakes else ()


@on(Pinned, *PHASES)
def pin(record: Record, phase: Phase, event: Pinned, context: Context) -> Step:
    """It is wanted from now on, or not any more."""
    return replaced(record, wish=replaced(record.wish, pinned=event.pinned, since=context.now)), (Wake(),)


@on(UserLoadBegan, *PHASES)
def begin_user_load(record: Record, phase: Phase, event: UserLoadBegan, context: Context) -> Step:
    """A failure lifts an earlier quarantine: the user may know better."""
    tries = record.tries
    if record.state is State.FAILED or tries.put_off:
        tries = forgiven(replaced(tries, put_off=0, put_off_until=0.0, crashes=()))
    wish = replaced(record.wish, user_loads=record.wish.user_loads + 1)
    return replaced(record, tries=tries, wish=wish), ()


@on(UserLoadEnded, *PHASES)
def end_user_load(record: Record, phase: Phase, event: UserLoadEnded, context: Context) -> Step:
    """What others want of it stays: a load that timed out while Triton was down must not keep the model from coming back."""
    return replaced(record, wish=replaced(record.wish, user_loads=record.wish.user_loads - 1)), ()


@on(LeaseTaken, Loaded, Draining)
def take(record: Record, phase: Loaded | Draining, event: LeaseTaken, context: Context) -> Step:
    """While it drains only who waited for its load gets one."""
    leases, window = record.use.leases + 1, record.use.window
    if not event.comes:
        return replaced(record, use=replaced(record.use, leases=leases)), ()
    return _asked(replaced(record, use=replaced(record.use, leases=leases, window=use.ask(window, context.now))))


@on(CalledBack, Draining)
def call_back(record: Record, phase: Draining, event: CalledBack, context: Context) -> Step:
    """Who waits already is answered too."""
    stays = called_back(record, phase, context, is_waited_for=event.is_waited_for)
    return (record, ()) if stays is None else (stays, (Grant(), Wake()))


@on(FoundGone, Loaded)
def doubt(record: Record, phase: Loaded, event: FoundGone, context: Context) -> Step:
    """Until that was looked at, nobody gets a lease."""
    if phase.doubted:
        return record, ()
    check = Check(number=phase.serving.number, processes=phase.serving.processes)
    return replaced(record, phase=replaced(phase, doubted=True)), (Say(f"{event.detail}; looking", Level.WARNING), check)


ignore((Absent, AdapterFolder, Loading, Draining, Unloading), FoundGone)

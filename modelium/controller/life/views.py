"""A record as others see it: what the brain plans with, and what users read."""

from __future__ import annotations

from modelium.brain.usage import usage
from modelium.controller.life.phases import Loaded
from modelium.controller.life.record import Record
from modelium.values import Demand, Footprint, ModelStatus, ModelView, State, Usage


def view_of(record: Record, now: float, window_s: float) -> ModelView:
    """What the brain may look at. ``window_s``: over which requests per second are counted."""
    memory, past = record.memory, record.past
    return ModelView(
        name=record.key,
        state=record.state,
        profile=record.folder.profile,
        footprint=Footprint(estimated_bytes=memory.estimated, measured_bytes=memory.measured),
        placement=record.placement,
        usage=usage_of(record, now, window_s),
        pinned=record.wish.pinned,
        always_loaded=record.wish.always_loaded,
        demand=record.demand,
        demand_since=record.wish.since,
        waiting=record.waits_for_load,
        retry_at=record.tries.retry_at,
        loaded_at=past.loaded_at,
        load_seconds=past.load_seconds,
        learned=memory.learned,
        bytes_held=memory.held,
    )


def usage_of(record: Record, now: float, window_s: float) -> Usage:
    """How it was used."""
    return usage(record.use.window, in_flight=record.use.leases, now=now, window_s=window_s)


def was_only_used(before: Record, after: Record) -> bool:
    """Is it loaded, wanted by nobody, and would ``view_of`` say another use of it and nothing else?"""
    if not isinstance(after.phase, Loaded) or not after.memory.held or after.demand or before.waits_for_load:
        return False
    if (
        after.phase is before.phase
        and after.memory is before.memory
        and after.past is before.past
        and after.folder is before.folder
        and after.wish is before.wish
        and after.tries is before.tries
    ):
        return True  # the usual case: it was asked, or answered
    return isinstance(before.phase, Loaded) and not before.demand and _beside_use(before) == _beside_use(after)


def _beside_use(record: Record) -> tuple[object, ...]:
    """All that ``view_of`` looks at, but for use."""
    memory, past, wish = record.memory, record.past, record.wish
    of_memory = memory.held, memory.estimated, memory.measured, memory.learned
    of_wish = wish.pinned, wish.always_loaded, wish.since
    of_past = past.loaded_at, past.load_seconds, record.tries.retry_at
    return record.folder.profile, record.placement, of_memory, of_wish, of_past


def status_of(record: Record, now: float, window_s: float) -> ModelStatus:
    """What users see. ``window_s``: over which requests per second are counted."""
    seen = usage_of(record, now, window_s)
    serving, memory, past, retry_at = record.serving, record.memory, record.past, record.tries.retry_at
    # Who is asked for nothing is not tried again by itself, but nobody may ask before that time either.
    waits_for_retry = retry_at is not None and (record.demand > Demand.NONE or retry_at > now)
    waits_for_retry = waits_for_retry and record.state is State.FAILED
    footprint = Footprint(estimated_bytes=memory.estimated, measured_bytes=memory.measured)
    return ModelStatus(
        name=record.key,
        label=record.folder.candidate.label,
        path=record.folder.candidate.path,
        state=record.state,
        reason=record.phase.reason,
        profile=serving.profile if serving is not None else record.folder.profile,
        placement=record.placement,
        footprint=footprint if memory.estimated else None,
        promised_bytes=memory.held,
        held_bytes=memory.weighed if serving is not None else None,
        replicas=len(serving.replicas) if serving is not None else 0,
        missing=record.folder.missing,
        qps=seen.qps if serving is not None else 0.0,
        idle_s=seen.idle_s(now) if serving is not None else None,
        leases=record.use.leases,
        waiting=record.use.waiting,
        requests=seen.requests,
        pinned=record.wish.pinned,
        failures=record.tries.failures,
        retry_in_s=max(0.0, (retry_at or 0.0) - now) if waits_for_retry else None,
        quarantined=record.state is State.FAILED and retry_at is None,
        revision_error=record.revision_error or record.folder.candidate.note,
        load_seconds=past.load_seconds,
        unload_seconds=past.unload_seconds,
        loads=past.loads,
        unloads=past.unloads,
        decisions=past.decisions,
    )

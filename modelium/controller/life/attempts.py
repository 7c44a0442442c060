"""The beginning of a load, of whatever kind: a record and what is to be loaded enter, an attempt and the order for it leave."""

from __future__ import annotations

from dataclasses import replace

from modelium.controller.life.context import Context
from modelium.controller.life.effects import How, Load
from modelium.controller.life.phases import Attempt
from modelium.controller.life.record import Record
from modelium.repository import entry_basis
from modelium.values import ModelProfile, Placement


def begun(
    record: Record, profile: ModelProfile, placement: Placement, how: How, context: Context
) -> tuple[Record, Attempt, Load]:
    """The record with one number more, and with the entry that this load needs; an entry that is as it was is not written."""
    number, written = record.past.numbered + 1, (profile.fingerprint, entry_basis(placement))
    attempt = Attempt(number=number, profile=profile, placement=placement, ray_outages=context.ray_outages)
    writes = how is How.BESIDE or (how is How.PLAIN and record.past.entry != written)
    load = Load(number=number, profile=profile, placement=placement, write=writes, how=how, source=record.folder.source)
    entry = record.past.entry if how is How.AFTER_DEATH else written
    return replace(record, past=replace(record.past, numbered=number, entry=entry)), attempt, load

"""Loads before anybody asks: what is expected, and what became of it."""

from __future__ import annotations

from dataclasses import replace

from modelium.controller.life.context import Context
from modelium.controller.life.events import Expected
from modelium.controller.life.phases import Absent, AdapterFolder, Draining, Loaded, Loading, Unloading
from modelium.controller.life.record import Record
from modelium.controller.life.table import Step, ignore, on
from modelium.values import Demand, State


@on(Expected, Absent)
def expect(record: Record, phase: Absent, event: Expected, context: Context) -> Step:
    """Wanted where nobody else wants it, or not any more."""
    before, after = (Demand.NONE, Demand.EXPECTED) if event.soon else (Demand.EXPECTED, Demand.NONE)
    if record.wish.want is not before or (event.soon and phase.state is not State.UNLOADED):
        return record, ()
    return replace(record, wish=replace(record.wish, want=after, since=context.now)), ()


ignore((AdapterFolder, Loading, Loaded, Draining, Unloading), Expected)

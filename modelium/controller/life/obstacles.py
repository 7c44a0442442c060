"""Whether a request may wait for a model: a record enters, the words for why that would be in vain leave."""

from __future__ import annotations

from modelium.controller.life.phases import Absent, AdapterFolder
from modelium.controller.life.record import Record
from modelium.errors import NotServable
from modelium.values import State


def obstacle(record: Record, now: float) -> NotServable | None:
    """Why waiting for this model would be in vain; None when it is worth waiting."""
    name, phase, retry_at = record.key, record.phase, record.tries.retry_at
    if isinstance(phase, AdapterFolder):
        return NotServable(f"{name!r} is a LoRA adapter, which answers through its base: ask for BASE:ADAPTER")
    if record.folder.gone:
        return NotServable(f"{name!r}: its folder was removed")
    if not isinstance(phase, Absent):
        return None
    if phase.state is State.FAILED:
        if retry_at is None:
            return NotServable(
                f"{name!r} failed to load and is in quarantine until its folder changes (or POST /models/{name}/load): "
                f"{phase.reason}"
            )
        if retry_at > now:
            return NotServable(f"{name!r} failed to load, next try in {retry_at - now:.1f} s: {phase.reason}")
        return None
    if phase.state is not State.UNLOADED and record.folder.was_looked_at:
        return NotServable(f"{name!r} is {phase.state}: {phase.reason}")
    return None

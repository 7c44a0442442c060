"""Weights that are read before anybody asks for their model. What enters: the records, the host's memory, ``now``. What leaves:
files that the kernel reads, one model's at a time, and what became of that.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from modelium.brain.preload import spare_bytes
from modelium.controller.background import Background
from modelium.controller.life.record import Record
from modelium.controller.models import Models
from modelium.controller.page_cache import find_files, read_ahead
from modelium.controller.preloads import InTurn, is_due, silent_since
from modelium.metrics import Recorder
from modelium.values import Device, Policies

_EVERY_S = 5.0
_KEPT_S = 900.0  # the kernel may have dropped it by then


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """``silent_since``: when the silence began for which it was read. ``size``: 0 where there was nothing, or no room."""

    at: float
    silent_since: float
    size: int


class ReadAheads:
    """Looks every few seconds for a model that is expected and not loaded, once in each of its silences."""

    def __init__(self, models: Models, background: Background, recorder: Recorder, policies: Policies) -> None:
        self._models = models
        self._in_turn = InTurn(models)
        self._background = background
        self._recorder = recorder
        self._pressure_fraction = policies.pressure_fraction
        self._look_at = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._read: dict[str, _Read] = {}

    def look(self, now: float, host: Device, *, promised: int) -> asyncio.Task[None] | None:
        """The reading that began, if one did. ``promised``: bytes of the host's memory that loads under way may still take."""
        if now < self._look_at or (self._reading is not None and not self._reading.done()):
            return None
        self._look_at = now + _EVERY_S
        self._settle(now)
        cached = sum(read.size for read in self._read.values())
        room = spare_bytes(host, promised=promised + cached, pressure_fraction=self._pressure_fraction)
        if not room:
            return None
        due = (model.record for model in self._in_turn.some() if is_due(model.record, now))
        record = next((record for record in due if not self._was_read(record)), None)
        if record is None:
            return None
        self._reading = self._background.spawn(self._read_one(record, now, room), f"read ahead {record.key}")
        return self._reading

    async def _read_one(self, record: Record, now: float, room: int) -> None:
        profile = record.folder.profile
        assert profile is not None, "only what was looked at is due"
        files = await asyncio.to_thread(find_files, profile, record.folder.candidate.root)
        size = sum(files.values())
        fits = 0 < size <= room
        self._read[record.key] = _Read(at=now, silent_since=silent_since(record), size=size if fits else 0)
        if fits:
            self._recorder.read_ahead("begun", size)
            await read_ahead(files)

    def _was_read(self, record: Record) -> bool:
        read = self._read.get(record.key)
        return read is not None and read.silent_since == silent_since(record)

    def _settle(self, now: float) -> None:
        """Forget what was loaded since, and what is too old to count on."""
        for key, read in list(self._read.items()):
            model = self._models.get(key)
            used = model is not None and model.record.past.loaded_at > read.at
            if used or model is None or now > read.at + _KEPT_S:
                if read.size:
                    self._recorder.read_ahead("used" if used else "wasted", 0)
                if used or model is None or silent_since(model.record) != read.silent_since:
                    del self._read[key]
                else:
                    self._read[key] = _Read(at=read.at, silent_since=read.silent_since, size=0)

"""What survives a restart: pins, what was loaded, learned footprints, load times and arrivals, quarantines.

What enters are facts as they become known, what leaves is ``ledger.json`` (written whole, then renamed) and the facts again
at the next start. Memory of the past is a help, never a condition: a broken file is set aside, a full disk is said once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from modelium.brain.arrivals import HOURS, WIDTHS, turned
from modelium.guarded.directories import make_private
from modelium.values import Arrivals

_log = logging.getLogger(__name__)

SCHEMA = 1
_DAY_S = 24 * 3600.0
_FORGET_AFTER_S = 90 * _DAY_S
_MOST_REVISIONS = 5_000
_MOST_RHYTHMS = 5_000
_FADED = 0.001
_ARRIVALS_EVERY_S = 300.0  # they change with each visit: what is lost in a crash is minutes of months


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was learned about one revision of a model.

    ``measured``: bytes by the manner of its placement (``Placement.manner``); ``measured_bytes``: the last of them, or one of a
    manner that is not known. ``loaded``: it was when this was last heard of, so a restart brings it back. ``quarantine``: why
    it is not tried again until its folder changes; ``quarantine_seal``: as that was then, its rights and times included (""
    where that is not known).
    """

    measured_bytes: int | None = None
    measured: dict[str, int] = field(default_factory=dict)
    load_seconds: float | None = None
    loaded: bool = False
    quarantine: str | None = None
    quarantine_seal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Revision:
    name: str
    fingerprint: str
    seen_at: float
    facts: Facts = Facts()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rhythm:
    """A model's arrivals. ``gaps``: by width, those with a weight; ``hours``: of the day in UTC."""

    name: str
    gaps: Mapping[int, float]
    hours: tuple[float, ...]
    span_s: float

    @property
    def arrivals(self) -> Arrivals:
        """As they were; nothing of what no longer fits."""
        gaps = tuple(self.gaps.get(width, 0.0) for width in range(WIDTHS)) if self.gaps else ()
        weights = [*gaps, *self.hours, self.span_s]
        if len(self.hours) != HOURS or not all(0 <= weight < math.inf for weight in weights):
            return Arrivals()
        return Arrivals(gaps=gaps, hours=self.hours, span_s=self.span_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Book:
    """The file as it lies on disk."""

    schema: int = SCHEMA
    owner: str = ""
    pinned: tuple[str, ...] = ()
    revisions: tuple[_Revision, ...] = ()
    rhythms: tuple[_Rhythm, ...] = ()  # the latest last


_BOOK = TypeAdapter(_Book)


class Ledger:
    """Facts in memory, written by ``save`` when something changed. One owner (the controller), no locks.

    ``owner``: a word by which this Modelium knows its own on a machine, or a cluster, that it shares with others.

    ``clock`` gives wall-clock seconds: they have to mean something after a restart. ``ticks``: the clock that arrivals' hours
    are counted on while Modelium runs; its zero means nothing afterwards, so they are kept by the hours of the day.
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self._clock = clock
        self._hours_ahead = round((clock() - ticks()) / 3600) % HOURS
        self.owner = uuid.uuid4().hex[:12]
        self._pinned: set[str] = set()
        self._revisions: dict[tuple[str, str], _Revision] = {}
        self._arrivals: dict[str, Arrivals] = {}  # the latest last
        self._arrivals_due_at = clock() + _ARRIVALS_EVERY_S
        self._arrived = False
        self._loaded: dict[str, str] = {}  # of each model, the fingerprint of the revision that is
        self._changed = False
        self._failing = False

    @classmethod
    def load(cls, path: Path, *, clock: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic) -> Ledger:
        """The ledger of ``path``; an empty one when there is none or it cannot be read (then it is set aside)."""
        ledger = cls(path, clock=clock, ticks=ticks)
        try:
            book = _BOOK.validate_json(path.read_bytes())
            if book.schema != SCHEMA:
                raise ValueError(f"it has schema {book.schema}, this version reads {SCHEMA}")
        except FileNotFoundError:
            return ledger
        except OSError as error:
            _log.warning("%s cannot be read (%s); starting without what was learned earlier", path, error.strerror)
            return ledger
        except ValueError as error:  # pydantic's ValidationError is one
            aside = path.with_suffix(".broken.json")
            with contextlib.suppress(OSError):
                path.replace(aside)
            _log.warning("%s is broken and set aside as %s: %s", path, aside.name, str(error).splitlines()[0])
            return ledger
        ledger.owner = book.owner or ledger.owner
        ledger._changed = not book.owner
        ledger._pinned = set(book.pinned)
        ledger._arrivals = {each.name: turned(each.arrivals, -ledger._hours_ahead) for each in book.rhythms}
        for revision in book.revisions:
            ledger._revisions[revision.name, revision.fingerprint] = revision
            ledger._note_loaded(revision)
        return ledger

    def keep_owner(self) -> None:
        """Write it down before anything is called after it."""
        if not self.path.exists():
            self._changed = True
            self.save()

    def pinned(self, name: str) -> bool:
        """Did the user pin it?"""
        return name in self._pinned

    def names(self) -> frozenset[str]:
        """Of what was loaded, or tried."""
        return frozenset(name for name, _ in self._revisions)

    def facts(self, name: str, fingerprint: str) -> Facts:
        """What is known of one revision; empty facts when nothing is. Asking keeps them from being forgotten."""
        revision = self._revisions.get((name, fingerprint))
        if revision is None:
            return Facts()
        if self._clock() - revision.seen_at > _DAY_S:  # once a day is often enough to write that it is still there
            self._keep(name, fingerprint, revision.facts)
        return revision.facts

    def remember_pin(self, name: str, pinned: bool) -> None:
        """The user pinned it, or took the pin away."""
        if pinned != (name in self._pinned):
            (self._pinned.add if pinned else self._pinned.discard)(name)
            self._changed = True

    def arrivals(self, name: str) -> Arrivals:
        """What was learned of when it is asked, by an earlier Modelium too."""
        return self._arrivals.get(name, Arrivals())

    def remember_arrivals(self, name: str, arrivals: Arrivals) -> None:
        """What is learned of when it is asked. It alone is written every few minutes only, and at the end."""
        if arrivals is not self._arrivals.get(name) and arrivals != Arrivals():
            self._arrivals.pop(name, None)
            self._arrivals[name] = arrivals
            self._arrived = True

    def remember_load(self, name: str, fingerprint: str, *, load_seconds: float) -> None:
        """A load that went well. It ends a quarantine, and takes the place of any other revision that was loaded."""
        if (other := self._loaded.get(name, fingerprint)) != fingerprint:
            self.remember_unload(name, other)
        facts = self._known(name, fingerprint)
        self._learn(name, fingerprint, replace(_free(facts), load_seconds=load_seconds, loaded=True))

    def remember_unload(self, name: str, fingerprint: str) -> None:
        """It is not to be loaded after a restart."""
        self._learn(name, fingerprint, replace(self._known(name, fingerprint), loaded=False))

    def remember_measurement(self, name: str, fingerprint: str, measured_bytes: int, *, manner: str) -> None:
        """What the model was measured to hold on its device, when it was served in that manner."""
        facts = self._known(name, fingerprint)
        measured = facts.measured | {manner: measured_bytes}
        self._learn(name, fingerprint, replace(facts, measured_bytes=measured_bytes, measured=measured))

    def remember_quarantine(self, name: str, fingerprint: str, reason: str, *, seal: str = "") -> None:
        """It is not tried again until its folder changes; ``seal``: the rights and times of its files then."""
        facts = replace(self._known(name, fingerprint), loaded=False, quarantine=reason, quarantine_seal=seal)
        self._learn(name, fingerprint, facts)

    def lift_quarantine(self, name: str, fingerprint: str) -> None:
        """It may be tried again."""
        self._learn(name, fingerprint, _free(self._known(name, fingerprint)))

    def save(self, *, all_of_it: bool = False) -> bool:
        """Write if anything changed; False when that failed: it stays in memory and the next ``save`` tries again.

        ``all_of_it``: also arrivals that are not due to be written yet.
        """
        if not self._changed and not (self._arrived and (all_of_it or self._clock() >= self._arrivals_due_at)):
            return True
        self._forget()
        book = _Book(
            owner=self.owner,
            pinned=tuple(sorted(self._pinned)),
            revisions=tuple(self._revisions.values()),
        )
        rhythms = [_told(name, turned(each, self._hours_ahead)) for name, each in self._arrivals.items()]
        try:
            _write(self.path, json.dumps({**asdict(book), "rhythms": rhythms}))
        except OSError as error:
            if not self._failing:
                _log.warning("%s cannot be written (%s); it is kept in memory and tried again", self.path, error.strerror)
            self._failing = True
            return False
        if self._failing:
            _log.info("%s is written again", self.path)
        self._changed = self._arrived = self._failing = False
        self._arrivals_due_at = self._clock() + _ARRIVALS_EVERY_S
        return True

    def _known(self, name: str, fingerprint: str) -> Facts:
        revision = self._revisions.get((name, fingerprint))
        return Facts() if revision is None else revision.facts

    def _learn(self, name: str, fingerprint: str, facts: Facts) -> None:
        if facts != self._known(name, fingerprint):
            self._keep(name, fingerprint, facts)

    def _keep(self, name: str, fingerprint: str, facts: Facts) -> None:
        revision = _Revision(name=name, fingerprint=fingerprint, seen_at=self._clock(), facts=facts)
        self._revisions[name, fingerprint] = revision
        self._note_loaded(revision)
        self._changed = True

    def _note_loaded(self, revision: _Revision) -> None:
        if revision.facts.loaded:
            self._loaded[revision.name] = revision.fingerprint
        elif self._loaded.get(revision.name) == revision.fingerprint:
            del self._loaded[revision.name]

    def _forget(self) -> None:
        now = self._clock()
        recent = [revision for revision in self._revisions.values() if now - revision.seen_at < _FORGET_AFTER_S]
        recent.sort(key=lambda revision: revision.seen_at, reverse=True)
        self._revisions = {(r.name, r.fingerprint): r for r in recent[:_MOST_REVISIONS]}
        for name in list(self._arrivals)[: max(0, len(self._arrivals) - _MOST_RHYTHMS)]:
            del self._arrivals[name]


def _told(name: str, arrivals: Arrivals) -> dict[str, object]:
    """A ``_Rhythm`` as it is written: weights are rounded, and what has faded is left out. (``asdict`` takes long for many.)"""
    gaps = {width: round(weight, 3) for width, weight in enumerate(arrivals.gaps) if weight >= _FADED}
    hours = [round(weight, 2) for weight in arrivals.hours]
    return {"name": name, "gaps": gaps, "hours": hours, "span_s": round(arrivals.span_s)}


def _free(facts: Facts) -> Facts:
    return replace(facts, quarantine=None, quarantine_seal="")


def _write(path: Path, text: str) -> None:
    """Whole or not at all, also when the power fails: written beside, flushed to the disk, renamed."""
    make_private(path.parent)
    beside = path.with_suffix(".tmp")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise

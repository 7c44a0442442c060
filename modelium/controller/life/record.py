"""What is known of one model, in parts, and who changes which.

===================  =================================================  ======================================================
part                 what it is                                         what changes it
===================  =================================================  ======================================================
``folder``           what lies in the watch directory                   scans, analyses, revisions (``folder.py``)
``phase``            where the model is in its life, and what serves    nearly every event: it is what the table is about
``tries``            failures so far, and when the next try is          the ends of work (``failing.py``, ``tries.py``), pardons
``wish``             who wants it loaded                                users and requests; what was lost is wanted back
``use``              leases, waiting requests, how often it is asked    requests (``requests.py``), readings
``memory``           what it holds, or was promised, in bytes           decisions, the ends of work, readings
``past``             what was learned, counted and written              decisions, the ends of work
``revision_error``   why the newest revision is not what serves         analyses, reloads that were refused, failed or done
===================  =================================================  ======================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from modelium.brain.usage import UsageWindow
from modelium.controller.life.phases import (
    Absent,
    Attempt,
    Draining,
    Loaded,
    Phase,
    Serving,
)
from modelium.values import (
    Candidate,
    Decision,
    Demand,
    MissingPart,
    ModelProfile,
    Placement,
    State,
)
from modelium.values.replacing import replaced

_REMEMBERED_DECISIONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """``plain`` is the newest complete revision, ``profile`` the same with the adapters that are attached to it."""

    candidate: Candidate
    served_before: bool = False  # by an earlier Modelium
    gone: bool = False
    missing: tuple[MissingPart, ...] = ()
    analyzed_signature: str = ""
    analyzing: bool = False
    plain: ModelProfile | None = None
    profile: ModelProfile | None = None
    seal: str = ""  # the signature of the folder as ``plain`` was found in it
    unrevised: bool = False  # ``plain`` is newer than ``profile``
    touched: bool = False  # files of the model have been written to since ``profile`` was last compared with ``plain``

    @property
    def source(self) -> Candidate | None:
        """The folder as it was when ``profile`` was found in it."""
        if self.profile is None or not self.seal:
            return None
        return replace(self.candidate, path=self.profile.path, signature=self.seal)

    @property
    def was_looked_at(self) -> bool:
        """And that is settled: what was found waits for no revision."""
        return (bool(self.analyzed_signature) and not self.unrevised) or self.candidate.conflict is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """``failures``: loads that failed in a row; ``excused``: of these, the machine's; ``of_memory``: of the last ones, in a
    row, those for want of memory. ``put_off``: in a row, reloads that failed, and loads that met a folder that was
    being written to.
    ``retry_at``: the instant of the next try, None: not until the folder changes. ``crashes``: instants. ``lost_at``: when
    Triton last went away during a load of it.
    """

    failures: int = 0
    excused: int = 0
    of_memory: int = 0
    put_off: int = 0
    put_off_until: float = 0.0
    retry_at: float | None = 0.0
    crashes: tuple[float, ...] = ()
    lost_at: float = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Who wants it loaded. ``user_loads``: users' loads that wait; ``leave``: a user wants it out, as soon as it is loaded.
    ``sent_away``: by a user, and nobody has asked since.
    """

    want: Demand = Demand.NONE
    since: float = 0.0
    pinned: bool = False
    always_loaded: bool = False
    user_loads: int = 0
    leave: bool = False
    sent_away: bool = False

    @property
    def demand(self) -> Demand:
        """The strongest of them."""
        if self.user_loads:
            return Demand.USER
        return max(self.want, Demand.POLICY) if self.pinned or self.always_loaded else self.want


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """``window``: how often it was asked lately. ``leases``: requests under way. ``waiting``: those that wait, for its load or,
    while it serves, for one of its leases."""

    window: UsageWindow = field(default_factory=UsageWindow)
    leases: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes, on each device of the placement. ``stated``: by its user; ``held``: taken or promised, so nobody else's;
    ``weighed``: what its processes held at the last reading, None while it is not loaded. ``measured``: the most of that, in
    the manner in which it is served now, and ``learned``: in each (``Placement.manner``).
    """

    stated: int | None = None
    estimated: int = 0
    measured: int | None = None
    learned: Mapping[str, int] = field(default_factory=dict)
    held: int = 0
    weighed: int | None = None

    @property
    def expected(self) -> int:
        """What its user states, or its files let expect; not what it was once seen to take: that may have been too much."""
        return self.stated or self.estimated


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """``deaths``: of processes that served it. ``preloaded``: it was loaded before anybody asked, and nobody has. ``entry``:
    the fingerprint and the placement that the entry on disk was written from. ``placement``: the last one.
    """

    numbered: int = 0  # the last number that a load or an unload got
    loads: int = 0
    unloads: int = 0
    loaded_at: float = 0.0
    reload_failed_at: float = float("-inf")
    load_seconds: float = 0.0
    unload_seconds: float = 0.0
    deaths: int = 0
    preloaded: bool = False
    placement: Placement | None = None
    entry: tuple[str, Placement] | None = None
    decisions: tuple[Decision, ...] = ()


_NEW = Absent(state=State.INCOMPLETE, reason="found, not looked at yet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """``key`` is the served name; the later of two folders with one name gets a key that no name can have."""

    key: str
    folder: Folder
    phase: Phase = _NEW
    tries: Tries = Tries()
    wish: Wish = Wish()
    use: Use = Use()
    memory: Memory = Memory()
    past: Past = Past()
    revision_error: str = ""  # why the newest revision is not what serves

    @property
    def state(self) -> State:
        """What users see as its state."""
        return self.phase.state

    @property
    def demand(self) -> Demand:
        """Who wants it loaded, strongest."""
        return Demand.REQUEST if self.waits_for_load else self.wish.demand

    @property
    def waits_for_load(self) -> int:
        """How many requests wait for its load. Who waits for a lease of a model that serves is no reason to load it or to keep
        it: its leases are."""
        return self.use.waiting if not self.takes_requests else 0

    @property
    def takes_requests(self) -> bool:
        """May a request have a lease right now?"""
        return isinstance(self.phase, Loaded) and not self.phase.doubted and not self.folder.gone

    @property
    def occupies(self) -> bool:
        """Is its memory taken or promised, or work under way?"""
        return self.state.occupies

    @property
    def serving(self) -> Serving | None:
        """What Triton answers with, where it does."""
        return self.phase.serving if isinstance(self.phase, Loaded | Draining) else None

    @property
    def reload(self) -> Attempt | None:
        """The newer revision that loads beside the one that serves."""
        return self.phase.reload if isinstance(self.phase, Loaded | Draining) else None

    @property
    def placement(self) -> Placement | None:
        """Where it is, or was last."""
        return self.phase.placement or self.past.placement

    @property
    def reload_is_due_at(self) -> float | None:
        """When the newest revision is to be loaded beside the one that serves; None: not."""
        return self.phase.reload_at if isinstance(self.phase, Loaded) and self.phase.reload is None else None

    def remembering(self, decision: Decision) -> Record:
        """With a decision as the newest; unchanged where it only repeats the last one."""
        last = self.past.decisions[0] if self.past.decisions else None
        if last is not None and (last.verb, last.rule) == (decision.verb, decision.rule) and decision.placement is None:
            return self
        kept = (decision, *self.past.decisions)[:_REMEMBERED_DECISIONS]
        return replaced(self, past=replaced(self.past, decisions=kept))

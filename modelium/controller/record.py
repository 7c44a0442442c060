"""What the controller knows of one model. Only the controller changes it; others get a ``ModelView`` or a ``ModelStatus``."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from modelium.brain import lifecycle
from modelium.brain.usage import UsageWindow, usage
from modelium.controller.leases import Lease
from modelium.devices import Process, Replica
from modelium.values import (
    AdapterProfile,
    Candidate,
    Decision,
    Demand,
    Footprint,
    MissingPart,
    ModelProfile,
    ModelStatus,
    ModelView,
    Placement,
    State,
)

_REMEMBERED_DECISIONS = 20


@dataclass(slots=True, eq=False)
class Model:
    """``key`` is the served name; the later of two folders with one name gets a key that no name can have.

    ``profile`` is the folder's newest complete revision, ``serving`` the one that Triton answers with. ``generation`` grows
    whenever work under way becomes history (the server died, a process died), so that its end is recognised as stale.
    """

    key: str
    candidate: Candidate
    state: State = State.INCOMPLETE
    reason: str = "found, not looked at yet"
    profile: ModelProfile | None = None
    plain: ModelProfile | None = None  # the same without the adapters that are attached to it
    adapter: AdapterProfile | None = None  # it is none itself, but an adapter for another model
    serving: ModelProfile | None = None
    loading: ModelProfile | None = None
    next_placement: Placement | None = None  # of the revision that loads beside
    missing: tuple[MissingPart, ...] = ()
    placement: Placement | None = None
    estimated_bytes: int = 0
    measured_bytes: int | None = None
    bytes_held: int = 0  # taken or promised; what others may not be promised
    weighed_bytes: int | None = None  # what its processes held at the last reading; None while it is not loaded
    window: UsageWindow = field(default_factory=UsageWindow)
    want: Demand = Demand.NONE
    want_since: float = 0.0
    user_loads: int = 0  # users' loads that wait for it
    pinned: bool = False
    always_loaded: bool = False
    removing: bool = False
    suspect: bool = False  # a request found it gone: no leases until it was looked at
    reloading: bool = False  # a newer revision loads beside the one that serves
    revision_error: str = ""
    failures: int = 0  # of its loads, in a row
    excused: int = 0  # of these, how many were the machine's fault
    memory_failures: int = 0  # of these, how many of the last ones, in a row, were for want of memory
    put_off: int = 0  # loads in a row that were none of its failures: its folder was written to
    put_off_until: float = 0.0
    crashes: deque[float] = field(default_factory=lambda: deque(maxlen=8))
    retry_at: float | None = 0.0  # of one that is LOADED: of its newest revision, and 0 when that is not due
    leases: int = 0
    waiters: deque[asyncio.Future[Lease]] = field(default_factory=deque)
    unload_rule: str = ""  # why it is on its way out: "evict.6", "user", "removed", "revision"
    yields_to: str = ""  # the model whose request waits for its room
    drain_until: float = 0.0
    loaded_at: float = 0.0
    load_seconds: float = 0.0
    loads: int = 0
    unloads: int = 0
    generation: int = 0
    processes: tuple[Process, ...] = ()
    replicas: tuple[Replica, ...] = ()  # Ray's, of this machine: not watched, Ray replaces them
    departing: frozenset[Process] = frozenset()  # of the copy that the last load replaced; Triton drains it
    lost_at: float = float("-inf")  # when Triton was last lost while it loaded this
    deaths: int = 0  # of processes that served it
    ray_outages: int = 0  # of Ray's, when its load began
    broke_ray: bool = False  # it was alone in loading when Ray went down
    exit_watches: list[Callable[[], None]] = field(default_factory=list)
    entry: tuple[str, Placement] | None = None  # what the entry on disk was written from: fingerprint and placement
    analyzed_signature: str = ""
    profile_seal: str = ""  # of the folder as ``profile`` was found in it
    touched: bool = False  # files of the model have been written to since ``revise`` last saw it
    analyzing: bool = False
    decisions: deque[Decision] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_DECISIONS))

    @property
    def demand(self) -> Demand:
        """Who wants it loaded, strongest."""
        if self.waiters:
            return Demand.REQUEST
        wishes = [self.want]
        if self.pinned or self.always_loaded:
            wishes.append(Demand.POLICY)
        if self.user_loads:
            wishes.append(Demand.USER)
        return max(wishes)

    @property
    def serves(self) -> bool:
        """May a request have a lease right now?"""
        return self.state is State.LOADED and not self.suspect and not self.removing

    @property
    def occupies(self) -> bool:
        """Is its memory taken or promised?"""
        return self.state in lifecycle.OCCUPYING

    @property
    def source(self) -> Candidate | None:
        """Its folder as it was when ``profile`` was found in it."""
        if self.profile is None or not self.profile_seal:
            return None
        return replace(self.candidate, path=self.profile.path, signature=self.profile_seal)

    def become(self, state: State, reason: str) -> None:
        """Change state; raises ``IllegalTransition`` when the table does not have it."""
        self.state = lifecycle.advance(self.key, self.state, state)
        self.reason = reason

    def forgive(self) -> None:
        """Count its failures from nothing. A folder that was being written to is still left in peace for a while."""
        self.failures, self.excused, self.memory_failures = 0, 0, 0
        self.retry_at = self.put_off_until

    def stop_watching(self) -> None:
        """Forget the processes: their ends mean nothing from now on."""
        for cancel in self.exit_watches:
            cancel()
        self.exit_watches.clear()
        self.processes, self.replicas = (), ()

    def remember(self, decision: Decision) -> bool:
        """Keep a decision; False when it only repeats the last one."""
        last = self.decisions[0] if self.decisions else None
        if last is not None and (last.verb, last.rule) == (decision.verb, decision.rule) and decision.placement is None:
            return False
        self.decisions.appendleft(decision)
        return True

    def view(self, now: float, window_s: float) -> ModelView:
        return ModelView(
            name=self.key,
            state=self.state,
            profile=self.profile,
            footprint=Footprint(estimated_bytes=self.estimated_bytes, measured_bytes=self.measured_bytes),
            placement=self.placement,
            usage=usage(self.window, in_flight=self.leases, now=now, window_s=window_s),
            pinned=self.pinned,
            always_loaded=self.always_loaded,
            demand=self.demand,
            demand_since=self.want_since,
            waiting=len(self.waiters),
            retry_at=self.retry_at,
            loaded_at=self.loaded_at,
            load_seconds=self.load_seconds,
            bytes_held=self.bytes_held,
        )

    def status(self, now: float, window_s: float) -> ModelStatus:
        seen = usage(self.window, in_flight=self.leases, now=now, window_s=window_s)
        serving = self.state in lifecycle.SERVING
        waits_for_retry = self.state is State.FAILED and self.retry_at is not None and self.demand > Demand.NONE
        return ModelStatus(
            name=self.key,
            label=self.candidate.label,
            path=self.candidate.path,
            state=self.state,
            reason=self.reason,
            profile=(self.serving if serving else None) or self.profile,
            placement=self.placement,
            footprint=Footprint(estimated_bytes=self.estimated_bytes, measured_bytes=self.measured_bytes)
            if self.estimated_bytes
            else None,
            promised_bytes=self.bytes_held,
            held_bytes=self.weighed_bytes,
            replicas=len(self.replicas),
            missing=self.missing,
            qps=seen.qps if serving else 0.0,
            idle_s=seen.idle_s(now) if serving else None,
            leases=self.leases,
            waiting=len(self.waiters),
            requests=seen.requests,
            pinned=self.pinned,
            failures=self.failures,
            retry_in_s=max(0.0, (self.retry_at or 0.0) - now) if waits_for_retry else None,
            quarantined=self.state is State.FAILED and self.retry_at is None,
            revision_error=self.revision_error or self.candidate.note,
            load_seconds=self.load_seconds,
            loads=self.loads,
            unloads=self.unloads,
            decisions=tuple(self.decisions),
        )

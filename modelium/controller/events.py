"""What may arrive in the controller's queue. An event only causes a pass; what is decided depends on what is observed then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelium.controller.life.events import Analyzed, WorkEnd
from modelium.devices import Process, Replica
from modelium.triton.client import IndexEntry, ModelStatistics
from modelium.values import Candidate, NurseryStatus, Unclaimed, WatchDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """``incoming/`` as it was. ``lag_s``: from the file event that caused the scan to its end, None for a periodic scan."""

    candidates: tuple[Candidate, ...]
    seconds: float
    lag_s: float | None = None
    directories: tuple[WatchDirectory, ...] = ()
    unclaimed: tuple[Unclaimed, ...] = ()


@dataclass(frozen=True, slots=True)
class About:
    """Something happened to the model whose key this is. Where there is no such model any more, it is history."""

    key: str
    event: WorkEnd | Analyzed


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A reading of Triton and of the processes. ``held``: bytes by model. ``processes`` is None where none can be seen.

    ``replicas``: those of Ray's, apart from the processes in Triton: when one of them ends, Ray replaces it. ``residues``: by
    device, what Triton itself holds, or nobody (``brain.leaks``). ``born``: the models with processes that a nursery forked;
    ``orphaned``: those of them whose nursery has ended.
    """

    generation: int  # of the server: readings of an earlier one say nothing
    started_at: float  # models loaded later than this were perhaps not seen
    statistics: Mapping[str, ModelStatistics]
    index: Mapping[str, IndexEntry]
    processes: Mapping[str, tuple[Process, ...]] | None
    held: Mapping[str, int]
    replicas: Mapping[str, tuple[Replica, ...]] = field(default_factory=dict)
    residues: Mapping[str, int] = field(default_factory=dict)
    nursery: NurseryStatus | None = None
    born: frozenset[str] = frozenset()
    orphaned: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLeft:
    """Nothing of the model is loaded any more. ``grown``: by device, by how much its residue (``brain.leaks``) grew over the
    load and the unload; ``residues``: what that is now."""

    model: str
    grown: Mapping[str, int]
    residues: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUp:
    """``owned``: the entries of ours in the repository, name → fingerprint."""

    version: str
    index: Mapping[str, IndexEntry]
    owned: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerDown:
    """Triton is gone, and everything that it had loaded."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RayUp:
    """Models can be deployed on Ray."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayDown:
    """Ray is gone, and every replica with it."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """Nothing but a pass: a lease is wanted or was given back, a timer ran out, a user asked for something."""


Event = Scanned | About | Measured | MemoryLeft | ServerUp | ServerDown | RayDown | RayUp | Wake

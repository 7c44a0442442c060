"""What may arrive in the controller's queue. An event only causes a pass; what is decided depends on what is observed then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelium.devices import Process, Replica
from modelium.errors import ModeliumError
from modelium.triton.client import IndexEntry, ModelStatistics
from modelium.values import Analysis, Candidate, Unclaimed, WatchDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """``incoming/`` as it was. ``lag_s``: from the file event that caused the scan to its end, None for a periodic scan."""

    candidates: tuple[Candidate, ...]
    seconds: float
    lag_s: float | None = None
    directories: tuple[WatchDirectory, ...] = ()
    unclaimed: tuple[Unclaimed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Analyzed:
    """``key``: of the model's record; ``signature``: of the candidate that was analyzed.

    ``seal``: the signature that the folder had when the analysis began; a scan may not have seen its last change yet.
    """

    key: str
    signature: str
    analysis: Analysis
    seal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A load or a reload ended well. ``generation``: the model's when the work began; other generations are history.

    ``older``: the model's processes from before the load; Triton lets them go when their last request is answered.
    """

    key: str
    generation: int
    seconds: float
    older: frozenset[Process] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFailed:
    key: str
    generation: int
    seconds: float
    error: ModeliumError


@dataclass(frozen=True, slots=True, kw_only=True)
class Unloaded:
    """Triton says UNAVAILABLE, the processes are gone, the memory is back."""

    key: str
    generation: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UnloadFailed:
    key: str
    generation: int
    seconds: float
    error: ModeliumError


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A reading of Triton and of the processes. ``held``: bytes by model. ``processes`` is None where none can be seen.

    ``replicas``: those of Ray's, apart from the processes in Triton: when one of them ends, Ray replaces it.
    """

    generation: int  # of the server: readings of an earlier one say nothing
    started_at: float  # models loaded later than this were perhaps not seen
    statistics: Mapping[str, ModelStatistics]
    index: Mapping[str, IndexEntry]
    processes: Mapping[str, tuple[Process, ...]] | None
    held: Mapping[str, int]
    replicas: Mapping[str, tuple[Replica, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessDied:
    key: str
    generation: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A model that a request found gone was looked at. ``serves``: Triton says READY and its processes live."""

    key: str
    generation: int
    serves: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUp:
    """``owned``: the entries of ours in the repository, name → fingerprint."""

    version: str
    index: Mapping[str, IndexEntry]
    owned: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerDown:
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RayUp:
    """Models can be deployed on Ray."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayDown:
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """Nothing but a pass: a lease is wanted or was given back, a timer ran out, a user asked for something."""


Event = (
    Scanned
    | Analyzed
    | Loaded
    | LoadFailed
    | Unloaded
    | UnloadFailed
    | Measured
    | ProcessDied
    | Checked
    | ServerUp
    | ServerDown
    | RayDown
    | RayUp
    | Wake
)

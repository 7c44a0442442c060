"""What can be seen from outside: the gateway's, the metrics' and the CLI's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from modelium.values.decisions import Decision
from modelium.values.models import MissingPart, ModelProfile
from modelium.values.places import Fleet, Footprint, Placement
from modelium.values.states import State
from modelium.values.watched import Unclaimed, WatchDirectory


class LoadStage(StrEnum):
    """Where a load is."""

    PREPARING = "preparing"  # the folder is compared with what was analyzed, and the entry is written
    LOADING = "loading"  # Triton was asked: processes start, and weights are read


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadingStatus:
    """A load under way, for ``seconds`` now. ``progress``: an estimate from 0 to 1, by what the last load took, and
    ``remaining_s`` by the same; None where there was none."""

    stage: LoadStage
    seconds: float
    progress: float | None = None
    remaining_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One model as users see it: ``GET /models/{name}``, ``modelium status`` and the metrics are made from this."""

    name: str
    label: str
    path: Path
    state: State
    reason: str
    profile: ModelProfile | None = None
    placement: Placement | None = None
    footprint: Footprint | None = None
    promised_bytes: int = 0  # what is kept for it on each of its devices; 0 while it occupies nothing
    held_bytes: int | None = None  # there, by its processes, at the last reading; None where that cannot be known
    missing: tuple[MissingPart, ...] = ()
    qps: float = 0.0
    idle_s: float | None = None  # None while not loaded
    leases: int = 0
    waiting: int = 0
    requests: int = 0
    pinned: bool = False
    failures: int = 0
    retry_in_s: float | None = None
    quarantined: bool = False
    revision_error: str = ""  # a newer revision failed to load; the old one goes on serving
    load_seconds: float = 0.0  # the last ones that went well
    unload_seconds: float = 0.0
    loads: int = 0
    unloads: int = 0
    decisions: tuple[Decision, ...] = ()  # the last ones, newest first
    replicas: int = 0  # of Ray's, that run on this machine
    waits_for: str = ""  # what its load waits for before it begins, in words
    base: str = ""  # of a LoRA adapter that is attached: the model that answers with it
    loading: LoadingStatus | None = None  # while it loads


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a name in a request means: a model, and the LoRA adapter to answer with ("" for none)."""

    model: str
    adapter: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """Triton as the controller knows it."""

    up: bool = False
    version: str = ""
    restarts: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NurseryStatus:
    """The processes that models' processes are forked from. ``children``: those of models that live. ``held_bytes``: what the
    nursery has of the host's memory, alone or together with them: no model's footprint contains it. These three are of the
    last reading, 0 before the first one. ``importing``: the runtimes whose nursery imports what it needs now: loads wait."""

    processes: int
    children: int
    held_bytes: int
    importing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that can be seen from outside, at one instant of the monotonic clock."""

    now: float
    models: tuple[ModelStatus, ...]
    fleet: Fleet
    server: ServerStatus
    scanned: bool = False  # the first scan of incoming/ is over
    ray_restarts: int = 0
    directories: tuple[WatchDirectory, ...] = ()
    unclaimed: tuple[Unclaimed, ...] = ()
    turn_age_s: float = 0.0  # since the controller's loop began a turn
    longest_pause_s: float = 0.0  # of the event loop, in the last minute
    nursery: NurseryStatus | None = None  # None where there is none
    waiting_by_key: Mapping[str, int] = field(default_factory=dict)  # requests that wait, by the names of their API keys

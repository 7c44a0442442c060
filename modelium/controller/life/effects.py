"""What a step asks for. Effects are values; ``Models`` does what they say, in their order, after the record has changed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from modelium.brain.runtimes.support import Ending
from modelium.devices import Process
from modelium.errors import ModeliumError
from modelium.values import Candidate, Decision, ModelProfile, Placement


class How(Enum):
    """How a model is loaded."""

    PLAIN = "plain"
    BESIDE = "beside"  # an older revision serves, and goes on until this one is loaded
    AFTER_DEATH = "after death"  # Triton calls the corpse READY: a plain load would do nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Analyze:
    """``soon``: somebody wants it, or it served before: it goes before what strangers drop."""

    candidate: Candidate
    soon: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Write the entry if ``write``, and load it. ``source``: the folder as it was looked at; a change is seen."""

    number: int
    profile: ModelProfile
    placement: Placement
    write: bool
    how: How
    source: Candidate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unload:
    """Unload, verify, and remove the entry if ``remove``. ``processes`` have to be gone before its memory is free; ``ending``
    says how they may end."""

    number: int
    processes: tuple[Process, ...]
    remove: bool
    ending: Ending = Ending.BY_THEMSELVES


@dataclass(frozen=True, slots=True, kw_only=True)
class Bury:
    """End what is left of a model one of whose processes died; ends as an unload does."""

    number: int


@dataclass(frozen=True, slots=True)
class EndProcesses:
    """Of a load that waits for something that will not come: it fails then."""


@dataclass(frozen=True, slots=True)
class Discard:
    """Ask Triton to forget it; nobody waits for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Find out whether it still serves."""

    number: int
    processes: tuple[Process, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Tell when one of these ends."""

    number: int
    processes: tuple[Process, ...]


@dataclass(frozen=True, slots=True)
class StopWatching:
    """The ends of its processes mean nothing from now on."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Take a reading of Triton and of all processes."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease to each request that waits."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Waiting is in vain: each request that waits gets this error."""

    error: ModeliumError


@dataclass(frozen=True, slots=True)
class UnloadIsOver:
    """Who waits for the unload is told."""


@dataclass(frozen=True, slots=True)
class Wake:
    """A pass, soon."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Its folder is gone and it occupies nothing: the record and the entry go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberLoad:
    """Kept over restarts, like the four that follow."""

    fingerprint: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberUnload:
    """It is not loaded any more: a restart does not bring it back."""

    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberMeasurement:
    """What its processes were seen to take, in bytes. ``manner``: of its placement."""

    fingerprint: str
    manner: str
    measured_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberQuarantine:
    """It is not tried again until its folder, sealed as it is now, changes."""

    fingerprint: str
    reason: str
    seal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftQuarantine:
    """It may be tried again."""

    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CountLoad:
    """``outcome``: "ok" or "failed", after so many seconds."""

    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CountUnload:
    """``rule``: why, as in ``modelium_model_unloads_total``; after so many seconds. ``killed``: its processes had to be."""

    rule: str
    seconds: float
    killed: bool = False


@dataclass(frozen=True, slots=True)
class CountDecision:
    """A decision that does not only repeat the last one."""

    decision: Decision


class Preload(StrEnum):
    """What became of a load before anybody asked."""

    BEGUN = "begun"
    USED = "used"
    WASTED = "wasted"


@dataclass(frozen=True, slots=True, kw_only=True)
class CountPreload:
    """``seconds``: what the load took."""

    outcome: Preload
    seconds: float


class Level(Enum):
    """Of a log line."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Say:
    """A line for the log; the model's name goes before it."""

    words: str
    level: Level = Level.INFO


# What the world is asked for; what those who wait, the loop and the log are told; what is kept over restarts and counted.
Asks = Analyze | Load | Unload | Bury | EndProcesses | Discard | Check | Watch | StopWatching | Measure
Tells = Grant | Reject | UnloadIsOver | Wake | Forget | Say
Notes = (
    RememberLoad
    | RememberUnload
    | RememberMeasurement
    | RememberQuarantine
    | LiftQuarantine
    | CountLoad
    | CountUnload
    | CountDecision
    | CountPreload
)
Effect = Asks | Tells | Notes

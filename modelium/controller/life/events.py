"""What may happen to one model: what its folder is, what was decided about it, who asks for it, what became of it.

The ends of work (``WorkEnd``) carry the number of the load or the unload that they belong to; an event of an earlier one is
history and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelium.controller.life.phases import Standing
from modelium.devices import Process, Replica
from modelium.errors import ModeliumError
from modelium.ledger import Facts as Remembered
from modelium.values import Analysis, Candidate, Decision, ModelProfile, Placement

# -- its folder ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSeen:
    """``again``: what is missing may have become final; look at an incomplete folder even if nothing was written to it."""

    candidate: Candidate
    again: bool = False


@dataclass(frozen=True, slots=True)
class FolderGone:
    """Its folder was removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Analyzed:
    """``signature``: of the candidate that was analyzed; ``seal``: what the folder's was when the analysis began."""

    signature: str
    analysis: Analysis
    seal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """A defect of Modelium came out when it used what was found in the folder as it was with this ``signature``."""

    words: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Revised:
    """A complete revision, adapters included. ``remembered``: of this revision, from before. ``ready_in_triton``: Triton has a
    model of this name from before we looked.
    """

    profile: ModelProfile
    remembered: Remembered
    estimated_bytes: int
    ready_in_triton: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """Where a LoRA adapter is, what it waits for, or why its base does not take it. ``base``: where it is attached."""

    standing: Standing
    reason: str
    base: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundInTriton:
    """Triton had it loaded when we came. ``placement``: where, if it is the very revision that is in the folder."""

    profile: ModelProfile | None = None
    placement: Placement | None = None


# -- decisions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadDecided:
    """Load this revision there."""

    decision: Decision
    profile: ModelProfile
    placement: Placement


@dataclass(frozen=True, slots=True)
class UnloadDecided:
    """Unload it by policy, or for somebody who waits."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class RefusalDecided:
    """Nothing here can serve it: an answer, not an error."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class RuntimeFound:
    """Something here can serve it now, which was not so before."""


@dataclass(frozen=True, slots=True)
class WaitDecided:
    """It is wanted and has to wait; the reason says for what."""

    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadDecided:
    """The newest revision: ``placement`` beside the one that serves. None: there is no room for both."""

    profile: ModelProfile
    placement: Placement | None


@dataclass(frozen=True, slots=True)
class ReloadRefused:
    """Nothing here can serve the newest revision."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PassEnds:
    """``is_waited_for``: somebody still waits for the room that this model gives up. ``disturbs``: an engine measures the
    device that it would give memory back to.
    """

    is_waited_for: bool = False
    disturbs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgrew:
    """It took far more of the host's memory than was expected, where others are short of it."""

    rule: str
    reason: str


# -- requests and users ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for it came, whether it is answered at once or waits."""


@dataclass(frozen=True, slots=True)
class Expected:
    """``soon``: its next request is expected; else it is not any more."""

    soon: bool


@dataclass(frozen=True, slots=True)
class CalledBack:
    """A request came while it drains. ``is_waited_for``: somebody waits for its room."""

    is_waited_for: bool


@dataclass(frozen=True, slots=True)
class WaitingChanged:
    """So many requests wait for it now."""

    waiting: int


@dataclass(frozen=True, slots=True)
class LeaseTaken:
    """One more request is sent to it. ``comes``: it came just now (``Asked``), and needs not wait."""

    comes: bool = False


@dataclass(frozen=True, slots=True)
class LeaseReturned:
    """``room_is_wanted``: somebody waits for room that models in use hold."""

    room_is_wanted: bool = False


@dataclass(frozen=True, slots=True)
class FoundGone:
    """A request that held a lease found the model or Triton gone."""

    detail: str


@dataclass(frozen=True, slots=True)
class UserLoadBegan:
    """A user waits for its load, and may know better than its failures."""


@dataclass(frozen=True, slots=True)
class UserLoadEnded:
    """However it ended."""


@dataclass(frozen=True, slots=True)
class UserUnloads:
    """A user wants it out of memory."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """A user pinned or unpinned it."""

    pinned: bool


# -- the ends of work, and accidents ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HasLoaded:
    """``older``: the model's processes from before the load; Triton lets them go when their last request is answered."""

    number: int
    seconds: float
    older: frozenset[Process] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class NotLoaded:
    """A load or a reload came to nothing."""

    number: int
    seconds: float
    error: ModeliumError


@dataclass(frozen=True, slots=True, kw_only=True)
class HasUnloaded:
    """Triton says UNAVAILABLE, the processes are gone, the memory is back. ``killed``: they did not go by themselves."""

    number: int
    seconds: float
    killed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NotUnloaded:
    """Nobody knows whether its memory is free."""

    number: int
    seconds: float
    error: ModeliumError


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessDied:
    """A process of what serves ended."""

    number: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A model that a request found gone was looked at. ``died``: one of its processes did; else Triton does not have it."""

    number: int
    serves: bool
    died: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A reading of it. ``started_at``: what was loaded later was perhaps not seen. ``processes``: None where none can be seen;
    ``held``: bytes. ``born``: of a nursery; None where that cannot be seen. ``orphaned``: of one that has ended. ``in_triton``:
    the state that Triton's index has for it, "" for none, None where it has no such entry.
    """

    started_at: float
    completed: int | None = None
    processes: tuple[Process, ...] | None = None
    replicas: tuple[Replica, ...] = ()
    held: int = 0
    born: bool | None = None
    orphaned: bool = False
    in_triton: str | None = "READY"
    triton_says: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLost:
    """Triton is down, and what it had loaded is gone. ``alone``: this was the only model that loaded, so it may be the cause.
    ``place``: among several that loaded, in which they are brought back one by one; None: it was not loading.
    """

    detail: str
    alone: bool = False
    place: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RayLost:
    """Ray is down, and the replicas with it. ``alone``: this was the only model that loaded on it."""

    detail: str
    alone: bool = False


WorkEnd = HasLoaded | NotLoaded | HasUnloaded | NotUnloaded | ProcessDied | Checked
LifeEvent = (
    FolderSeen
    | FolderGone
    | Analyzed
    | Unusable
    | Revised
    | Attached
    | FoundInTriton
    | LoadDecided
    | UnloadDecided
    | RefusalDecided
    | RuntimeFound
    | WaitDecided
    | ReloadDecided
    | ReloadRefused
    | PassEnds
    | Outgrew
    | Asked
    | Expected
    | CalledBack
    | WaitingChanged
    | LeaseTaken
    | LeaseReturned
    | FoundGone
    | UserLoadBegan
    | UserLoadEnded
    | UserUnloads
    | Pinned
    | WorkEnd
    | Read
    | ServerLost
    | RayLost
)

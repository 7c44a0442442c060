"""The phases of a model's life, each with what only it has: what loads, what serves, why it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, get_args

from modelium.devices import Process, Replica
from modelium.values import AdapterProfile, ModelProfile, Placement, State


class Cause(StrEnum):
    """Why a model leaves memory. The value is the ``rule`` of ``modelium_model_unloads_total``; ``POLICY`` and ``TURN`` stand
    for the rule of the decision.
    """

    POLICY = "policy"  # nobody waits for its room, or who waits does not need a turn
    TURN = "turn"  # another one's turn has come
    USER = "user"
    REMOVED = "removed"  # its folder is gone
    REVISION = "revision"  # the next revision does not fit beside it
    DIED = "crash"  # its process died, and it is started anew by the plan
    RAY_DOWN = "ray"
    OUTGREW = "bound.1"  # it took far more memory than was expected

    @property
    def by_policy(self) -> bool:
        """Whether a request that comes now may call it back."""
        return self in (Cause.POLICY, Cause.TURN)

    @property
    def is_burial(self) -> bool:
        """Whether its processes are ended by us, not by Triton."""
        return self in (Cause.DIED, Cause.RAY_DOWN, Cause.OUTGREW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A load under way. ``number``: of this load, so that the end of an earlier one is told apart."""

    number: int
    profile: ModelProfile
    placement: Placement
    ray_outages: int = 0  # of Ray's, when it began
    broke_ray: bool = False  # it was alone in loading when Ray went down


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What Triton answers with. ``number``: of the load that brought it. ``departing``: processes of the copy before it, which
    Triton drains. ``replicas``: Ray's, on this machine; they are not watched, since Ray replaces them.
    """

    number: int
    profile: ModelProfile
    placement: Placement
    processes: tuple[Process, ...] = ()
    replicas: tuple[Replica, ...] = ()
    departing: frozenset[Process] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """``rule``: of the decision, or the cause. ``yields_to``: the model whose request waits for the room. ``until``: the
    instant at which it goes whoever still uses it. ``moves``: it is loaded again at once, where there is room.
    """

    cause: Cause
    rule: str
    until: float
    yields_to: str = ""
    moves: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """Nothing of it is loaded: INCOMPLETE, UNSUPPORTED, UNLOADED or FAILED."""

    placement: ClassVar[None] = None
    state: State
    reason: str


class Standing(StrEnum):
    """Of a LoRA adapter."""

    WAITS = "waits"  # its base is not here
    REFUSED = "refused"  # its base cannot take it
    ATTACHED = "attached"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFolder:
    """The folder is no model, but a LoRA adapter: it answers through its base, where it is ``ATTACHED`` to one."""

    placement: ClassVar[None] = None
    profile: AdapterProfile
    standing: Standing
    reason: str
    base: str = ""

    @property
    def state(self) -> State:
        """What users see as its state."""
        return _STATE_OF_STANDING[self.standing]


_STATE_OF_STANDING: Mapping[Standing, State] = {
    Standing.WAITS: State.INCOMPLETE,
    Standing.REFUSED: State.UNSUPPORTED,
    Standing.ATTACHED: State.UNLOADED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """``attempt`` is under way and nothing serves."""

    state: ClassVar[State] = State.LOADING
    attempt: Attempt
    reason: str

    @property
    def placement(self) -> Placement:
        """Where it will be."""
        return self.attempt.placement


@dataclass(frozen=True, slots=True, kw_only=True)
class _Serving:
    """Something of it is loaded."""

    serving: Serving
    reason: str

    @property
    def placement(self) -> Placement:
        """Where it is."""
        return self.serving.placement


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded(_Serving):
    """``reload``: a newer revision loads beside it. ``reload_at``: when the newest revision is to be loaded, None: it is what
    serves, or has failed. ``doubted``: a request found it gone; nobody gets a lease until that was looked at.
    """

    state: ClassVar[State] = State.LOADED
    reload: Attempt | None = None
    reload_at: float | None = None
    doubted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining(_Serving):
    """It answers what was begun, and gives no new leases."""

    state: ClassVar[State] = State.DRAINING
    leaving: Leaving
    reload: Attempt | None = None
    doubted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unloading(_Serving):
    """Triton was asked to unload it. ``number``: of this unload."""

    state: ClassVar[State] = State.UNLOADING
    number: int
    leaving: Leaving


Phase = Absent | AdapterFolder | Loading | Loaded | Draining | Unloading
PHASES = get_args(Phase)

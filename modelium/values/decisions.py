"""What a plan depends on, and what it says. Instants are readings of the controller's monotonic clock, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from modelium.values.arrivals import Arrivals
from modelium.values.language import JsonValue
from modelium.values.models import ModelProfile
from modelium.values.places import Fleet, Footprint, Placement, Runtime
from modelium.values.problem import Problem
from modelium.values.ray import RayOptions
from modelium.values.states import State
from modelium.values.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Use of one model as the brain sees it.

    ``qps``: requests per second over the window, from Triton's statistics, so traffic straight to Triton counts.
    ``last_used_at``: the *end* of the last request, or the load if there was none since. ``in_flight``: leases plus what
    Triton reports as pending. ``requests``: since Modelium started. ``asked``: somebody wanted it at least once, not its
    discovery alone. ``gap_s``: from one visit to the next, typically; 0 while there were fewer than two. ``arrivals``: all that
    was learned of these gaps. ``silent_since``: when it was last asked, or ended an answer, whatever was loaded since; None
    where that is not known.
    """

    qps: float = 0.0
    last_used_at: float = 0.0
    in_flight: int = 0
    requests: int = 0
    asked: bool = True
    gap_s: float = 0.0
    arrivals: Arrivals = field(default_factory=Arrivals)
    silent_since: float | None = None

    def idle_s(self, now: float) -> float:
        """Seconds without use; 0 while a request is in flight: a model that answers is not idle."""
        return 0.0 if self.in_flight else max(0.0, now - self.last_used_at)

    def silent_s(self, now: float) -> float:
        """Seconds since anybody used it: a load is no use."""
        since = self.last_used_at if self.silent_since is None else self.silent_since
        return 0.0 if self.in_flight else max(0.0, now - since)


class Demand(IntEnum):
    """Who wants a model loaded, weakest first. Only POLICY and above may push another model out."""

    NONE = 0
    EXPECTED = 1  # its next request is expected: load it if there is room
    DISCOVERY = 2  # it was dropped: load it if there is room
    RESTORE = 3  # it was loaded when Triton or Modelium went down
    POLICY = 4  # always_loaded or pinned
    USER = 5  # POST /models/NAME/load
    REQUEST = 6  # a request waits for it


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """One model in a snapshot: what ``plan()`` may look at.

    ``waiting``: requests that wait for it; ``demand``: who wants it loaded, since ``demand_since``; ``retry_at``: a failed
    load is not tried before this instant (None: quarantined until the folder changes).
    ``bytes_held``: what it occupies, or was promised, on each of ``placement.devices`` now; 0 when unloaded.
    """

    name: str
    state: State
    profile: ModelProfile | None
    footprint: Footprint
    placement: Placement | None = None
    usage: Usage = field(default_factory=Usage)
    pinned: bool = False
    always_loaded: bool = False
    demand: Demand = Demand.NONE
    demand_since: float = 0.0
    waiting: int = 0
    retry_at: float | None = 0.0
    loaded_at: float = 0.0
    load_seconds: float = 0.0  # the last measured load, 0 when never loaded
    learned: Mapping[str, int] = field(default_factory=dict)  # bytes that were measured, by ``Placement.manner``
    bytes_held: int = 0


class Eviction(StrEnum):
    """Which of the models that may go is unloaded first, and how often any goes (``brain/policies/`` has the judgement)."""

    LEARNED = "learned"  # the one whose absence costs least, by when it is likely to be asked next
    LRU = "lru"  # the longest unused
    RULES = "rules"  # rules 1 to 5 to the letter, also for requests; of those the cheapest to bring back
    GDSF = "gdsf"  # the least by requests, load time and size
    NEVER = "never"  # nothing is ever unloaded by policy

    @classmethod
    def _missing_(cls, value: object) -> Eviction | None:
        """The names that two of them had first."""
        return {"cheapest": cls.LEARNED, "longest_unused": cls.LRU}.get(str(value))


class EvictForRequests(StrEnum):
    """Which models may go for somebody who waits: what is not in use (``SWAP``), or only what was idle for long (``IDLE``)."""

    SWAP = "swap"
    IDLE = "idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """The knobs of eviction, from ``orchestration.policies``."""

    evict_after_idle_seconds: float = 300.0
    pressure_fraction: float = 0.9  # a device is under pressure when more than this part of its budget is taken
    eviction: Eviction = Eviction.LEARNED
    preload: bool = False  # what is expected to be asked soon is loaded where there is room
    read_ahead: bool = False  # the weights of what is expected are read into the page cache, where memory is free
    move_idle: bool = True  # what goes for somebody, and is expected soon, is loaded again where there is room
    unload_without_pressure: bool = False  # rule 5 to the letter: what was idle for over twice the threshold goes
    evict_for_requests: EvictForRequests = EvictForRequests.SWAP
    min_residence_seconds: float | None = None  # how long a loaded model stays, whoever waits; None: turns.residence_s
    turn_seconds: float = 10.0  # who waited that long has its turn: what is always in use takes no new requests and goes
    kv_concurrency: int = 1  # how many requests of full length a language model's KV cache is planned for, beside typical ones
    typical_tokens: int = 2048  # of a usual request, prompt and answer
    fit_context: bool = True  # False: a language model whose whole context does not fit is too big
    min_context: int = 4096  # the shortest that is planned for a model that has more
    kv_floor_bytes: int = 64 * 2**20
    kv_ceiling_bytes: int = 32 * 2**30
    correct_estimates: bool = True
    corrections: Mapping[str, float] = field(default_factory=dict)  # of estimates, by kind (brain.placement.corrections)
    loads_per_device: int = 2  # loads that may run side by side on one device (vLLM engines: always one)
    ray: RayOptions = field(default_factory=RayOptions)  # of models that do not say otherwise

    @property
    def evicts(self) -> bool:
        """Is anything ever unloaded by policy?"""
        return self.eviction is not Eviction.NEVER

    @property
    def swaps(self) -> bool:
        """May what is not in use go for somebody who waits, however short it was idle?"""
        return self.evict_for_requests is EvictForRequests.SWAP and self.eviction is not Eviction.RULES

    @property
    def unloads_idle(self) -> bool:
        """Does a model go that was idle for long, where nobody needs its room?"""
        return self.unload_without_pressure or self.eviction is Eviction.RULES

    @property
    def relieved_fraction(self) -> float:
        """The part of a device's budget above which idle models go although nobody waits for room there: all of it, so that
        they go only for what other programs take."""
        return self.pressure_fraction if self.unloads_idle else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmFacts:
    """What was learned of the server's vLLM. Nothing (all empty) where it cannot be asked: an external Triton."""

    version: str = ""
    architectures: frozenset[str] = frozenset()
    lora: frozenset[str] = frozenset()
    quantizations: frozenset[str] = frozenset()
    missing: Problem | None = None  # why there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the connected Triton can run, and what the configuration allows."""

    backends: frozenset[str] = frozenset({"python", "onnxruntime"})
    vllm_enabled: bool = True
    onnx_enabled: bool = True
    ray_enabled: bool = False
    ray_missing: str = ""  # why the model runtime cannot use Ray, where it could
    ray_packages: frozenset[str] | None = None  # that a replica can import; None: a cluster elsewhere does not say
    vllm_version: str = ""  # of the vLLM whose architectures these are; "" when none was asked
    vllm_architectures: frozenset[str] = frozenset()  # that it serves; empty: the generated table is used
    vllm_lora: frozenset[str] = frozenset()  # those of them that take LoRA adapters
    vllm_quantizations: frozenset[str] = frozenset()  # that it reads
    vllm_missing: str = ""  # why the server has no vllm backend, where one could be
    gpu: bool = True  # an NVIDIA GPU is here; on the host's processor vLLM reads fewer quantizations
    nursery: bool = False  # a nursery forks the processes of models


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOverride:
    """``models: {NAME: …}`` of modelium.yaml: what the user decided by hand. None means: decide for me.

    ``device``: the only one it may be on; ``devices``: those it may be on, any where there are none. ``exclusive``: it takes
    all that models may use of each of its devices.
    """

    runtime: Runtime | None = None
    device: str | None = None
    devices: frozenset[str] = frozenset()
    exclusive: bool = False
    task: Task | None = None
    pin: bool = False
    allow_custom_code: bool = False
    onnx_file: str | None = None  # which ONNX graph of a transformers folder
    max_batch_size: int | None = None
    instance_count: int | None = None
    memory_bytes: int | None = None
    engine_args: Mapping[str, JsonValue] = field(default_factory=dict)  # vLLM's own names; they win over the plan
    base: str | None = None  # of a LoRA adapter: the served name of the model it belongs to
    ray: RayOptions = field(default_factory=RayOptions)

    @property
    def names_devices(self) -> bool:
        """Did the user say where it may be?"""
        return self.device is not None or bool(self.devices)

    def allows(self, device: str) -> bool:
        """May it be there?"""
        if self.device is not None:
            return device == self.device
        return not self.devices or device in self.devices

    def stated_bytes(self, budget_bytes: int) -> int | None:
        """What the user says that it takes of a device with that budget."""
        return budget_bytes if self.exclusive else self.memory_bytes


_NOTHING_BY_HAND = ModelOverride()


def override_of(overrides: Mapping[str, ModelOverride], name: str) -> ModelOverride:
    """What the user decided about the model of this name."""
    return overrides.get(name, _NOTHING_BY_HAND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """All that a plan may depend on. Time is an argument."""

    now: float
    models: tuple[ModelView, ...]
    fleet: Fleet
    policies: Policies
    overrides: Mapping[str, ModelOverride] = field(default_factory=dict)
    capabilities: Capabilities = field(default_factory=lambda: Capabilities())


class Verb(StrEnum):
    """What is to be done with a model."""

    LOAD = "load"
    UNLOAD = "unload"
    KEEP = "keep"
    WAIT = "wait"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """What was known of a model when it was weighed against others that might go.

    ``kept_by``: what kept it from going at all, "size" where it frees too little, "nothing" where it might have gone; "" for
    the one that goes. ``harm``: of losing it, as the policy judges; of ``learned`` the seconds that requests wait, for each
    second of its stay. ``next_s``: when its next request is expected, from then; None where too little is known, or none is.
    """

    model: str
    goes: bool
    kept_by: str
    harm: float
    idle_s: float
    qps: float
    next_s: float | None
    load_s: float
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A decision about one model with its reason; ``rule`` is the number in the docstring of the function that made it.

    ``placement`` is set on LOAD; ``beneficiary`` on UNLOAD: the model that waits for the room, and ``moves_to``: the device
    with free room where it is to be loaded again without being asked. ``weighed``: on UNLOAD the model, and some that might
    have gone instead, the next to go first; on KEEP the model. The log of decisions, ``modelium why`` and the tests all read
    this value.
    """

    at: float
    model: str
    verb: Verb
    rule: str  # "evict.5", "plan.3" …
    reason: str
    placement: Placement | None = None
    beneficiary: str = ""
    moves_to: str = ""
    weighed: tuple[Weighed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now: ``actions`` (LOAD, UNLOAD) in order, and a decision for every model that was considered.

    ``room_is_wanted``: a request, a user or a policy waits for room that other models hold, so the end of a request may change
    the plan. ``again_at``: the instant at which the passing of time alone does; None when it does not.
    """

    actions: tuple[Decision, ...] = ()
    decisions: tuple[Decision, ...] = ()
    pressure: Mapping[str, str] = field(default_factory=dict)  # device id → why it is under pressure
    again_at: float | None = None
    room_is_wanted: bool = False

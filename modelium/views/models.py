"""One model as it is told: a summary in a list of all, everything about it alone, and what was decided about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from modelium import values
from modelium.brain.words import context_in_words
from modelium.names import printable
from modelium.signatures import Signature, signature
from modelium.values import State
from modelium.views.fields import Age, Of
from modelium.views.language import Engine, Language

_LONGEST_REASON = 2_000


@dataclass(frozen=True, kw_only=True)
class Described:
    """A profile, to be told with the tensors of who serves it."""

    profile: values.ModelProfile
    by_vllm: bool = False

    @cached_property
    def signature(self) -> Signature:
        """The tensors of its task."""
        return signature(self.profile, by_vllm=self.by_vllm)


_tensor = Of[values.Tensor]()
_pooling = Of[values.Pooling]()
_profile = Of[Described]("profile")
_signature = Of[Described]("signature")
_replicas = Of[values.Replicas]()
_placement = Of[values.Placement]()
_part = Of[values.MissingPart]()
_decision = Of[values.Decision]()
_decisions = Of[values.ModelStatus]()
_weighed = Of[values.Weighed]()
_plan = Of[values.Plan]()
_loading = Of[values.LoadingStatus]()
_status = Of[values.ModelStatus]()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or an output."""

    name: str = _tensor.needed()
    datatype: str = _tensor.needed()
    dims: tuple[int, ...] = _tensor(())
    optional: bool = _tensor(False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """How token embeddings become one."""

    mode: str = _pooling.needed()
    normalize: bool = _pooling(False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The part of a profile that a list of models has room for."""

    task: str = _profile.needed()
    library: str = _profile("")
    architecture: str = _profile.needed()
    parameters: int = _profile(0)
    weight_bytes: int = _profile(0)
    dtype: str = _profile("")


@dataclass(frozen=True, slots=True, kw_only=True)
class FullProfile(Profile):
    """All of it. ``inputs`` and ``outputs`` are those of who serves it, or would."""

    task_source: str = _profile("")
    model_type: str = _profile("")
    weight_format: str = _profile("")
    weight_files: tuple[str, ...] = _profile(())
    quantization: str | None = _profile(None)
    max_length: int | None = _profile(None)
    labels: tuple[str, ...] = _profile(())
    embedding_width: int | None = _profile(None)
    pooling: Pooling | None = _profile(None)
    is_llm: bool = _profile(False)
    needs_custom_code: bool = _profile(False)
    pickled: bool = _profile(False)
    opset: int | None = _profile(None, lambda told: told.profile.onnx.opset if told.profile.onnx is not None else None)
    fingerprint: str = _profile("")
    language: Language | None = _profile(None)
    columns: tuple[str, ...] = _profile(
        (), lambda told: told.profile.tabular.columns if told.profile.tabular is not None else ()
    )
    import_path: str | None = _profile(
        None, lambda told: told.profile.app.import_path if told.profile.app is not None else None
    )
    batches: bool = _signature(True)
    decoupled: bool = _signature(False)
    inputs: tuple[Tensor, ...] = _signature(())
    outputs: tuple[Tensor, ...] = _signature(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """Of a model that Ray serves: how many copies, and what each asks of its node."""

    min: int = _replicas(1, lambda replicas: replicas.minimum)
    max: int = _replicas(1, lambda replicas: replicas.maximum)
    target_ongoing_requests: float = _replicas(0.0)
    cpus: float = _replicas(0.0, lambda replicas: replicas.bundles[0].cpus)
    gpus: float = _replicas(0.0, lambda replicas: replicas.bundles[0].gpus)
    memory_bytes: int = _replicas(0, lambda replicas: replicas.bundles[0].memory_bytes)
    ranks: int = _replicas(1, lambda replicas: len(replicas.bundles))


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a model is, or was last, and how."""

    runtime: str = _placement("")
    device: str = _placement("", lambda placement: placement.device_id)
    devices: tuple[str, ...] = _placement(())
    max_batch_size: int = _placement(0)
    instance_count: int = _placement(1)
    estimated_bytes: int = _placement(0, lambda placement: placement.footprint.estimated_bytes)
    measured_bytes: int | None = _placement(None, lambda placement: placement.footprint.measured_bytes)
    reason: str = _placement("")
    engine: Engine | None = _placement(None)
    replicas: Replicas | None = _placement(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A file that is not whole yet."""

    file: str = _part.needed()
    present_bytes: int = _part.needed()
    expected_bytes: int | None = _part(None)
    detail: str = _part("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """A model as it was weighed, when one had to go. ``harm``: of losing it, as the policy judges."""

    model: str = _weighed.needed()
    goes: bool = _weighed(False)
    kept_by: str = _weighed("")
    harm: float = _weighed(0.0)
    idle_s: float = _weighed(0.0)
    qps: float = _weighed(0.0)
    next_s: float | None = _weighed(None)
    load_s: float = _weighed(0.0)
    bytes: int = _weighed(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A decision and its reason."""

    model: str = _decision("")
    verb: str = _decision.needed()
    rule: str = _decision.needed()
    reason: str = _decision.needed()
    device: str | None = _decision(None, lambda made: made.placement.device_id if made.placement is not None else None)
    age_s: Age | None = _decision(None, lambda made: made.at)
    beneficiary: str = _decision("")
    moves_to: str = _decision("")
    weighed: tuple[Weighed, ...] = _decision(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How far a load is. ``progress``: an estimate from 0 to 1, by what the model's last load took."""

    stage: str = _loading.needed()
    seconds: float = _loading(0.0)
    progress: float | None = _loading(None)
    remaining_s: float | None = _loading(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """``GET /models/{model}/decisions``: what was decided about it, and who made room for it; the newest first."""

    name: str = _decisions.needed()
    state: str = _decisions.needed()
    reason: str = _decisions("")
    decisions: tuple[Decision, ...] = _decisions(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``GET /plan``: what the next pass would do, and why nothing else."""

    actions: tuple[Decision, ...] = _plan(())
    decisions: tuple[Decision, ...] = _plan(())
    pressure: dict[str, str] = _plan({})


def _devices(status: values.ModelStatus) -> tuple[str, ...]:
    return status.placement.devices if status.placement is not None else ()


def _context(status: values.ModelStatus) -> str:
    return context_in_words(status.placement.engine if status.placement is not None else None)


def _adapters(status: values.ModelStatus) -> list[str]:
    language = status.profile.language if status.profile is not None else None
    return [adapter.name for adapter in language.adapters] if language is not None else []


def _described(status: values.ModelStatus) -> Described | None:
    if status.profile is None:
        return None
    return Described(profile=status.profile, by_vllm=status.placement is not None and status.placement.by_vllm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One line of ``GET /models``. ``estimate_error``: 0.1 when a tenth too much was estimated. ``base``: of a LoRA adapter
    that is attached. ``context``: that it is shorter than the model's, and why. ``measured_bytes``: the most that was
    measured; ``promised_bytes``: what is kept for it now; ``held_bytes``: what it holds now, where that is known."""

    name: str = _status.needed()
    label: str = _status("", lambda status: printable(status.label))
    state: str = _status.needed()
    reason: str = _status("", lambda status: printable(status.reason, longest=_LONGEST_REASON))
    waits_for: str = _status("")
    profile: Profile | None = _status(None, _described)
    runtime: str | None = _status(None, lambda status: status.placement.runtime.value if status.placement is not None else None)
    device: str | None = _status(None, lambda status: status.placement.device_id if status.placement is not None else None)
    devices: tuple[str, ...] = _status((), _devices)
    context: str = _status("", _context)
    estimated_bytes: int | None = _status(
        None, lambda status: status.footprint.estimated_bytes if status.footprint is not None else None
    )
    measured_bytes: int | None = _status(
        None, lambda status: status.footprint.measured_bytes if status.footprint is not None else None
    )
    promised_bytes: int = _status(0)
    held_bytes: int | None = _status(None)
    estimate_error: float | None = _status(
        None, lambda status: status.footprint.error if status.footprint is not None else None
    )
    replicas: int = _status(0)
    qps: float = _status(0.0)
    idle_s: float | None = _status(None)
    leases: int = _status(0)
    waiting: int = _status(0)
    requests: int = _status(0)
    pinned: bool = _status(False)
    adapters: tuple[str, ...] = _status((), _adapters)
    base: str | None = _status(None, lambda status: status.base or None)
    load_seconds: float = _status(0.0)
    unload_seconds: float = _status(0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Summary):
    """``GET /models/{name}``: everything that is known about one model. A summary is read as one, too."""

    profile: FullProfile | None = _status(None, _described)
    path: str = _status("", lambda status: printable(str(status.path), longest=None))
    missing: tuple[Part, ...] = _status(())
    failures: int = _status(0)
    retry_in_s: float | None = _status(None)
    quarantined: bool = _status(False)
    revision_error: str = _status("", lambda status: printable(status.revision_error, longest=_LONGEST_REASON))
    loads: int = _status(0)
    unloads: int = _status(0)
    placement: Placement | None = _status(None)
    loading: Loading | None = _status(None)
    decisions: tuple[Decision, ...] = _status(())

    @property
    def is_hindered(self) -> bool:
        """Something keeps it from being served: its reason says what. Of a state that this version does not know, no."""
        return self._state is not None and self._state.is_hindered

    @property
    def is_broken(self) -> bool:
        """It will not serve by itself."""
        return self._state is not None and self._state.is_broken

    @property
    def _state(self) -> State | None:
        return State.__members__.get(self.state)

    @property
    def where(self) -> str:
        """Its device, or all that its engine is spread over."""
        return ", ".join(self.devices) or self.device or ""

    @property
    def engine(self) -> Engine | None:
        """How its engine was started, or would be; None where it has none."""
        return self.placement.engine if self.placement is not None else None

    @property
    def memory_bytes(self) -> int | None:
        """What it holds now; where that is not known, what it is expected to take."""
        if self.held_bytes is not None:
            return self.held_bytes
        return self.estimated_bytes if self.measured_bytes is None else self.measured_bytes

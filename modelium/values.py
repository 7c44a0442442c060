"""The words everybody shares: frozen values, no behaviour beyond arithmetic on their own fields.

What enters: nothing. What leaves: the types that every other room takes and returns. Sizes are in bytes, durations and
instants in seconds; an instant is a reading of one monotonic clock that the controller owns (``now`` everywhere).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from pathlib import Path


class Task(StrEnum):
    """What a model does, in Hugging Face's words for ``pipeline_tag``. ``TENSORS`` is a bare graph (ONNX)."""

    FEATURE_EXTRACTION = "feature-extraction"
    SENTENCE_SIMILARITY = "sentence-similarity"
    TEXT_CLASSIFICATION = "text-classification"
    TOKEN_CLASSIFICATION = "token-classification"
    FILL_MASK = "fill-mask"
    QUESTION_ANSWERING = "question-answering"
    ZERO_SHOT_CLASSIFICATION = "zero-shot-classification"
    TEXT_GENERATION = "text-generation"
    TRANSLATION = "translation"
    SUMMARIZATION = "summarization"
    TEXT2TEXT_GENERATION = "text2text-generation"
    IMAGE_CLASSIFICATION = "image-classification"
    OBJECT_DETECTION = "object-detection"
    IMAGE_FEATURE_EXTRACTION = "image-feature-extraction"
    AUTOMATIC_SPEECH_RECOGNITION = "automatic-speech-recognition"
    AUDIO_CLASSIFICATION = "audio-classification"
    TENSORS = "tensors"


class Runtime(StrEnum):
    """Who executes the model inside Triton: the name of the Triton backend, or ``ray`` behind the python backend."""

    VLLM = "vllm"
    ONNXRUNTIME = "onnxruntime"
    PYTHON = "python"
    RAY = "ray"


class State(StrEnum):
    """Where a model is in its life. ``brain.lifecycle`` holds the one table of legal transitions."""

    INCOMPLETE = "INCOMPLETE"
    UNSUPPORTED = "UNSUPPORTED"
    UNLOADED = "UNLOADED"
    LOADING = "LOADING"
    LOADED = "LOADED"
    DRAINING = "DRAINING"
    UNLOADING = "UNLOADING"
    FAILED = "FAILED"


class WeightFormat(StrEnum):
    """How the weights lie on disk. ``PICKLE`` is a torch zip or legacy pickle: read with ``weights_only=True``."""

    SAFETENSORS = "safetensors"
    PICKLE = "pickle"
    ONNX = "onnx"
    GGUF = "gguf"


class PoolingMode(StrEnum):
    """How token embeddings become one sentence embedding (sentence-transformers' words)."""

    MEAN = "mean"
    CLS = "cls"
    MAX = "max"
    LAST_TOKEN = "lasttoken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """Pooling of a sentence-transformers folder (``modules.json``): the mode, and whether vectors are L2-normalised."""

    mode: PoolingMode
    normalize: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One input or output as Triton sees it.

    ``datatype`` is KServe's word (``FP32``, ``INT64``, ``BYTES`` …); ``dims`` excludes the batch dimension when the
    model batches, -1 is a dimension of any size; ``optional`` holds for inputs only.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxGraph:
    """The signature of an ONNX file, from its protobuf alone. ``dims`` of the tensors *include* the first dimension.

    ``dynamic_batch``: the first dimension of every input and output is symbolic. ``external_data``: side files that hold
    tensors, relative to the ONNX file. ``file``: the ONNX file, relative to the model's path ("" when it is the path).
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    dynamic_batch: bool
    opset: int
    external_data: tuple[str, ...] = ()
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """What a folder is, read from headers and JSON only.

    ``parameters`` and ``weight_bytes`` are exact: from the tensors' headers, never from file sizes. ``labels`` are in id
    order. ``max_length`` is in tokens (text), None where the model has no such limit. ``fingerprint`` identifies the
    revision: it changes when any file that matters changes.
    """

    name: str
    path: Path
    task: Task
    library: str  # transformers · sentence-transformers · onnx
    architecture: str  # "BertModel"; for ONNX the producer or "onnx"
    model_type: str = ""
    weight_format: WeightFormat = WeightFormat.SAFETENSORS
    parameters: int = 0
    weight_bytes: int = 0
    dtype: str = "float32"
    quantization: str | None = None
    max_length: int | None = None
    labels: tuple[str, ...] = ()
    embedding_width: int | None = None
    pooling: Pooling | None = None
    is_llm: bool = False  # a decoder that generates text: vLLM's ground
    needs_custom_code: bool = False
    onnx: OnnxGraph | None = None
    task_source: str = ""  # why this task: "architectures: BertModel", "README pipeline_tag" …
    fingerprint: str = ""

    @property
    def label_count(self) -> int:
        return len(self.labels)

    @property
    def pickled(self) -> bool:
        return self.weight_format is WeightFormat.PICKLE


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingPart:
    """A file that is not whole yet. ``expected_bytes`` is None where only its presence is known to be required."""

    file: str
    present_bytes: int
    expected_bytes: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incomplete:
    """A copy under way: what is missing, as a sentence for the user and as parts for a progress bar."""

    name: str
    path: Path
    why: str
    missing: tuple[MissingPart, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """A folder that cannot be served, and what would change that."""

    name: str
    path: Path
    why: str
    hint: str = ""


Analysis = ModelProfile | Incomplete | Unsupported


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something in ``incoming/`` that may be a model: the watcher's output, the analyzers' input.

    ``name`` is the served name (``[A-Za-z0-9._-]+``); ``label`` is what the user sees (``org/name``). ``signature`` is a
    cheap digest of the file names, sizes and mtimes: equal signatures mean that nothing has to be read again.
    ``conflict`` is set on the later of two candidates with one name. ``newest_mtime`` is wall-clock seconds.
    """

    name: str
    label: str
    path: Path
    root: Path  # the watch directory it came from; links that leave it are refused
    signature: str
    newest_mtime: float
    conflict: str | None = None


class DeviceKind(StrEnum):
    HOST = "host"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A place for models. ``used_bytes`` is what is really taken now (by anybody); ``budget_bytes`` is what models may use.

    ``index`` is NVML's and Triton's GPU ordinal, -1 for the host.
    """

    id: str  # "host" · "cuda:0"
    kind: DeviceKind
    index: int
    name: str
    total_bytes: int
    used_bytes: int
    budget_bytes: int
    uuid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Every device of this machine, the host included."""

    devices: tuple[Device, ...]

    def get(self, device_id: str) -> Device | None:
        return next((d for d in self.devices if d.id == device_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Memory of one model on its device. What was measured once is what the next placement uses (rule 7)."""

    estimated_bytes: int
    measured_bytes: int | None = None

    @property
    def bytes(self) -> int:
        return self.estimated_bytes if self.measured_bytes is None else self.measured_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How and where a model is to be served: everything the entry needs besides the profile."""

    runtime: Runtime
    device_id: str
    device_kind: DeviceKind
    device_index: int
    footprint: Footprint
    max_batch_size: int
    instance_count: int = 1
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Use of one model as the brain sees it.

    ``qps``: requests per second over the window, from Triton's statistics, so traffic straight to Triton counts.
    ``last_used_at``: the *end* of the last request, or the load if there was none since. ``in_flight``: leases plus what
    Triton reports as pending. ``requests``: since Modelium started.
    """

    qps: float = 0.0
    last_used_at: float = 0.0
    in_flight: int = 0
    requests: int = 0

    def idle_s(self, now: float) -> float:
        """Seconds without use; 0 while a request is in flight (rule 5)."""
        return 0.0 if self.in_flight else max(0.0, now - self.last_used_at)


class Demand(IntEnum):
    """Who wants a model loaded, weakest first. Only POLICY and above may push another model out."""

    NONE = 0
    DISCOVERY = 1  # it was dropped: load it if there is room
    RESTORE = 2  # it was loaded when Triton or Modelium went down
    POLICY = 3  # always_loaded or pinned
    USER = 4  # POST /models/NAME/load
    REQUEST = 5  # a request waits for it


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """One model in a snapshot: what ``plan()`` may look at.

    ``waiting``: requests that wait for it; ``demand``: who wants it loaded, since ``demand_since``; ``retry_at``: a failed
    load is not tried before this instant (None: quarantined until the folder changes).
    ``bytes_held``: what it occupies, or was promised, on ``placement.device_id`` now; 0 when unloaded.
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
    bytes_held: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """The knobs of eviction, from ``orchestration.policies``."""

    evict_after_idle_seconds: float = 300.0
    pressure_fraction: float = 0.9  # a device is under pressure when more than this part of its budget is taken
    evict: bool = True  # False: nothing is ever unloaded by policy
    cost_aware: bool = True  # False: victims in order of idle time alone
    loads_per_device: int = 2  # loads that may run side by side on one device (vLLM engines: always one)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """All that a plan may depend on. Time is an argument."""

    now: float
    models: tuple[ModelView, ...]
    fleet: Fleet
    policies: Policies
    overrides: Mapping[str, ModelOverride] = field(default_factory=dict)
    capabilities: Capabilities = field(default_factory=lambda: Capabilities())


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the connected Triton can run, and what the configuration allows."""

    backends: frozenset[str] = frozenset({"python", "onnxruntime"})
    vllm_enabled: bool = True
    onnx_enabled: bool = True
    ray_enabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOverride:
    """``models: {NAME: …}`` of modelium.yaml: what the user decided by hand. None means: decide for me."""

    runtime: Runtime | None = None
    device: str | None = None
    task: Task | None = None
    pin: bool = False
    allow_custom_code: bool = False
    max_batch_size: int | None = None
    instance_count: int | None = None
    memory_bytes: int | None = None


class Verb(StrEnum):
    LOAD = "load"
    UNLOAD = "unload"
    KEEP = "keep"
    WAIT = "wait"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A decision about one model with its reason; ``rule`` is the number in the docstring of the function that made it.

    ``placement`` is set on LOAD. The log of decisions, ``modelium why`` and the tests all read this value.
    """

    at: float
    model: str
    verb: Verb
    rule: str  # "evict.5", "place.2" …
    reason: str
    placement: Placement | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now: ``actions`` (LOAD, UNLOAD) in order, and a decision for every model that was considered."""

    actions: tuple[Decision, ...] = ()
    decisions: tuple[Decision, ...] = ()
    pressure: Mapping[str, str] = field(default_factory=dict)  # device id → why it is under pressure


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
    load_seconds: float = 0.0
    loads: int = 0
    unloads: int = 0
    decisions: tuple[Decision, ...] = ()  # the last ones, newest first


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """Triton as the controller knows it."""

    up: bool = False
    version: str = ""
    restarts: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that can be seen from outside, at one instant of the monotonic clock."""

    now: float
    models: tuple[ModelStatus, ...]
    fleet: Fleet
    server: ServerStatus
    scanned: bool = False  # the first scan of incoming/ is over

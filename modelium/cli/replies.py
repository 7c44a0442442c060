"""The gateway's JSON as the verbs read it: bytes enter, checked values leave. Unknown fields pass: the gateway may be newer."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from modelium.errors import ModeliumError
from modelium.values import State


class NotUnderstood(ModeliumError):
    """The reply is not what this version of the verbs knows."""

    type = "not_understood"


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Decision(_Reply):
    model: str = ""
    verb: str
    rule: str
    reason: str
    age_s: float | None = None


class Part(_Reply):
    file: str
    present_bytes: int
    expected_bytes: int | None = None
    detail: str = ""


class LayerGroup(_Reply):
    kind: str
    layers: int
    kv_heads: int = 0
    head_size: int = 0
    latent_width: int = 0
    window: int | None = None
    state_bytes: int = 0


class Adapter(_Reply):
    name: str
    rank: int = 0
    base: str = ""


class Language(_Reply):
    attention: str = ""
    layers: int = 0
    layer_groups: tuple[LayerGroup, ...] = ()
    hidden_size: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_size: int = 0
    kv_bytes_per_token: int = 0
    context_length: int | None = None
    rope_scaling: str = ""
    vocabulary: int = 0
    tied_embeddings: bool = False
    experts: int = 0
    experts_per_token: int = 0
    active_parameters: int = 0
    dtype: str = ""
    quantization: str = ""
    quantization_bits: int = 0
    encoder_decoder: bool = False
    modalities: tuple[str, ...] = ()
    chat_template: bool = False
    generation_defaults: dict[str, JsonValue] = {}
    adapters: tuple[Adapter, ...] = ()


class PlanLine(_Reply):
    name: str
    value: str
    reason: str = ""


class Engine(_Reply):
    devices: tuple[str, ...] = ()
    max_num_seqs: int = 0
    total_bytes: int = 0
    plan: tuple[PlanLine, ...] = ()


class Replicas(_Reply):
    min: int = 1
    max: int = 1
    target_ongoing_requests: float = 0
    cpus: float = 0
    gpus: float = 0
    memory_bytes: int = 0
    ranks: int = 1


class Placement(_Reply):
    engine: Engine | None = None
    replicas: Replicas | None = None


class Profile(_Reply):
    task: str
    architecture: str
    library: str = ""
    parameters: int = 0
    weight_bytes: int = 0
    dtype: str = ""
    quantization: str | None = None
    max_length: int | None = None
    embedding_width: int | None = None
    labels: tuple[str, ...] = ()
    language: Language | None = None


class Model(_Reply):
    name: str
    label: str = ""
    path: str = ""
    state: str
    reason: str = ""
    profile: Profile | None = None
    runtime: str | None = None
    device: str | None = None
    devices: tuple[str, ...] = ()
    estimated_bytes: int | None = None
    measured_bytes: int | None = None
    missing: tuple[Part, ...] = ()
    qps: float = 0
    idle_s: float | None = None
    leases: int = 0
    waiting: int = 0
    requests: int = 0
    pinned: bool = False
    failures: int = 0
    retry_in_s: float | None = None
    quarantined: bool = False
    revision_error: str = ""
    load_seconds: float = 0
    loads: int = 0
    unloads: int = 0
    decisions: tuple[Decision, ...] = ()
    placement: Placement | None = None
    adapters: tuple[str, ...] = ()
    base: str | None = None
    replicas: int = 0

    @property
    def is_hindered(self) -> bool:
        """Something keeps it from being served: its reason says what. Of a state that this version does not know, no."""
        known = State.__members__.get(self.state)
        return known is not None and known.is_hindered

    @property
    def is_broken(self) -> bool:
        """It will not serve by itself."""
        known = State.__members__.get(self.state)
        return known is not None and known.is_broken

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
        """Measured where it was, else estimated."""
        return self.estimated_bytes if self.measured_bytes is None else self.measured_bytes


class Server(_Reply):
    up: bool
    restarts: int = 0
    detail: str = ""


class Node(_Reply):
    address: str = ""
    cpus: float = 0
    free_cpus: float = 0
    gpus: float = 0
    free_gpus: float = 0
    memory_bytes: int = 0
    used_bytes: int = 0


class Ray(_Reply):
    state: str
    detail: str = ""
    version: str = ""
    here: bool = True
    restarts: int = 0
    nodes: tuple[Node, ...] = ()


class Device(_Reply):
    id: str
    used_bytes: int
    budget_bytes: int


class WatchDirectory(_Reply):
    path: str
    suspended: str = ""


class Unclaimed(_Reply):
    path: str
    advice: str


class Models(_Reply):
    models: tuple[Model, ...]
    devices: tuple[Device, ...] = ()
    triton: Server | None = None
    ray: Ray | None = None
    scanned: bool = True
    directories: tuple[WatchDirectory, ...] = ()
    unclaimed: tuple[Unclaimed, ...] = ()


class Plan(_Reply):
    actions: tuple[Decision, ...] = ()
    decisions: tuple[Decision, ...] = ()
    pressure: dict[str, str] = {}


Reply = TypeVar("Reply", bound=_Reply)


def models(body: bytes) -> Models:
    return _read(Models, body)


def model(body: bytes) -> Model:
    return _read(Model, body)


def plan(body: bytes) -> Plan:
    return _read(Plan, body)


def decisions_json(model: Model) -> str:
    """The decisions alone, for ``why --json``."""
    return json.dumps([decision.model_dump() for decision in model.decisions], indent=2)


def _read(kind: type[Reply], body: bytes) -> Reply:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise NotUnderstood(
            f"the gateway's reply is not understood at {place or 'its start'}: {first['msg']}; is it another version?"
        ) from None

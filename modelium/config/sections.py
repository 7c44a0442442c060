"""The sections of ``modelium.yaml``, each with its keys, their kinds and their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from modelium.config.fields import (
    Bytes,
    HeaderName,
    HeaderValue,
    HostName,
    OptionalPath,
    OptionalPort,
    Port,
    RayAddress,
    Seconds,
    Variables,
    WebOrigin,
)
from modelium.config.secrets import read_secret
from modelium.hosts import is_loopback
from modelium.values import EvictForRequests, Eviction, RayOptions, Runtime, Task


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GatewaySettings(_Section):
    """``gateway:`` where it listens, whom it lets in, what a request may cost."""

    host: str = "127.0.0.1"
    port: Port = 8080
    grpc_port: OptionalPort = 8081  # None: no gRPC
    api_keys_file: OptionalPath = None
    allowed_hosts: tuple[HostName, ...] = ()
    cors_origins: tuple[WebOrigin, ...] = ()
    request_timeout_seconds: Seconds = 300
    max_request_timeout_seconds: Seconds = 3600
    max_body_bytes: Bytes = 64 * 2**20
    max_buffered_bytes: Bytes = 256 * 2**20
    max_connections: Annotated[int, Field(ge=1)] = 4096
    header_timeout_seconds: Seconds = 20
    stall_timeout_seconds: Seconds = 60
    idle_timeout_seconds: Seconds = 300
    max_waiting: Annotated[int, Field(ge=1)] = 512
    max_waiting_per_model: Annotated[int, Field(ge=1)] = 256
    max_waiting_per_key: Annotated[int, Field(ge=1)] = 256
    trace_bytes: Bytes = 32 * 2**20  # 0: no trace
    kserve_ready: Literal["can_load", "loaded"] = "can_load"
    shared_memory: bool = False
    strict: bool = False  # unknown parameters of /v1 are refused

    @model_validator(mode="after")
    def _one_body_fits(self) -> GatewaySettings:
        if self.max_buffered_bytes < self.max_body_bytes:
            raise ValueError("max_buffered_bytes must be at least max_body_bytes: one body would be too much")
        return self

    @property
    def open_to_all(self) -> bool:
        """Whether somebody on another machine may ask without a key."""
        return self.api_keys_file is None and not is_loopback(self.host)


class TritonSettings(_Section):
    """``triton:`` where Triton is, or how it is started, and where its entries lie."""

    mode: Literal["embedded", "external"] = "embedded"
    http_url: str = "127.0.0.1:8000"
    grpc_url: str = "127.0.0.1:8001"
    metrics_url: str = "127.0.0.1:8002"
    model_repository: Path = Path("./models/repository")
    state_directory: Path = Path("./models/.modelium")
    runtime_directory: Path = Path("./.runtime")
    path_mapping: dict[str, str] = {}
    backends: tuple[str, ...] = ()  # empty: what the embedded server has, or python + onnxruntime for an external one
    headers: dict[HeaderName, HeaderValue] = {}  # of an external server whose APIs are restricted
    environment: Variables = {}
    nursery: bool = True  # models are born of a process that has imported torch and transformers already (embedded)
    load_timeout_seconds: Seconds = 600
    unload_timeout_seconds: Seconds = 60

    def sent_headers(self) -> dict[str, str]:
        """The headers with their secrets, read now. Raises ``ConfigError`` for a file that cannot be read."""
        found = {name: read_secret(f"triton.headers.{name}", value) for name, value in self.headers.items()}
        return {name: value for name, value in found.items() if value}


class VllmSettings(_Section):
    """``vllm:`` how its engines are planned."""

    enabled: bool = True
    fit_context: bool = True
    min_context: Annotated[int, Field(ge=16)] = 4096
    kv_concurrency: Annotated[int, Field(ge=1)] = 1
    typical_tokens: Annotated[int, Field(ge=16)] = 2048
    kv_cache_floor: Bytes = 64 * 2**20
    kv_cache_ceiling: Bytes = 32 * 2**30

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.kv_cache_floor > self.kv_cache_ceiling:
            raise ValueError("kv_cache_floor is above kv_cache_ceiling")
        return self


class OnnxSettings(_Section):
    """``onnx:`` whether graphs are served by onnxruntime."""

    enabled: bool = True


class RayModelSettings(_Section):
    """``models: {NAME: {ray: …}}``. None: as ``ray:`` says for all models."""

    min_replicas: Annotated[int, Field(ge=0)] | None = None
    max_replicas: Annotated[int, Field(ge=1)] | None = None
    target_ongoing_requests: Annotated[float, Field(gt=0)] | None = None
    cpus_per_replica: Annotated[float, Field(ge=0)] | None = None
    gpus_per_replica: Annotated[float, Field(ge=0)] | None = None

    @field_validator("gpus_per_replica")
    @classmethod
    def _check_share(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and not value.is_integer():
            raise ValueError(f"{value:g}: a share of one GPU, or a whole number of them")
        return value

    def options(self) -> RayOptions:
        """As the brain takes them."""
        return RayOptions(**{name: getattr(self, name) for name in RayOptions.__slots__})

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min_replicas is not None and self.max_replicas is not None and self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is above max_replicas")
        return self


class RaySettings(RayModelSettings):
    """``ray:`` which cluster, and how much of it each model gets unless it says more."""

    enabled: bool = False
    address: RayAddress = "auto"
    dashboard_url: str | None = None
    on_this_machine: bool | None = None  # None: whether all its nodes have addresses of this machine's
    object_store_memory: Annotated[Bytes, Field(ge=80 * 2**20)] = 128 * 2**20

    @property
    def own(self) -> bool:
        """A Ray of Modelium's own, on this machine."""
        return self.address == "auto"

    @property
    def dashboard(self) -> str:
        """Where the cluster at ``address`` says what it has: by default Ray's own port on its head."""
        return self.dashboard_url or f"http://{self.address.rpartition(':')[0]}:8265"


class DiscoverySettings(_Section):
    """``orchestration.model_discovery:`` where folders are looked for, and how often."""

    watch_directories: tuple[Path, ...] = (Path("./models/incoming"),)
    scan_interval_seconds: Seconds = 30
    settle_seconds: Seconds = 2


class PolicySettings(_Section):
    """``orchestration.policies:`` what stays loaded, and what goes for whom."""

    always_loaded: tuple[str, ...] = ()
    eviction: Eviction | None = None  # None: as ``modelium_brain`` says
    evict_after_idle_seconds: Seconds = 300
    correct_estimates: bool = True
    preload: bool = False
    read_ahead: bool = False
    move_idle: bool = True
    unload_without_pressure: bool = False
    evict_for_requests: EvictForRequests = EvictForRequests.SWAP
    min_residence_seconds: Annotated[float, Field(ge=0)] | None = None  # None: the model's own, see brain/turns.py
    turn_seconds: Seconds = 10
    check_interval_seconds: Seconds = 10
    memory_pressure_fraction: Annotated[float, Field(gt=0, le=1)] = 0.9
    drain_timeout_seconds: Seconds = 30
    load_retries: Annotated[int, Field(ge=0)] = 3
    retry_backoff_seconds: Seconds = 1


class OrchestrationSettings(_Section):
    """``orchestration:`` what is loaded by itself, and when it goes."""

    model_discovery: DiscoverySettings = DiscoverySettings()
    load_on_discovery: bool = True
    policies: PolicySettings = PolicySettings()


class DeviceSettings(_Section):
    """``devices:`` how much of their memory models may use."""

    host_memory: Bytes | None = None  # None: three quarters of the machine's memory
    gpu_memory_fraction: Annotated[float, Field(gt=0, le=1)] = 0.9


class BrainSettings(_Section):
    """What ``orchestration.policies.eviction`` was called first; the brain decides either way."""

    enabled: bool = True
    fallback_to_rules: bool = True

    @property
    def eviction(self) -> Eviction:
        """The same in the words of ``orchestration.policies.eviction``."""
        if self.enabled:
            return Eviction.LEARNED
        return Eviction.LRU if self.fallback_to_rules else Eviction.NEVER


class MetricsSettings(_Section):
    """``metrics:`` where Prometheus finds them."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 9090


# The families of tool calls that the gateway can read (modelium/gateway/openai/tool_calls/families.py).
ToolParser = Literal[
    "deepseek", "glm45", "granite", "hermes", "internlm", "jamba", "kimi_k2", "llama3_json", "llama4_pythonic", "mistral",
    "phi4_mini", "qwen3_coder",
]  # fmt: skip


class ModelSettings(_Section):
    """``models.NAME:`` what the user knows better than the analysis."""

    runtime: Runtime | None = None
    device: str | None = None
    devices: tuple[str, ...] = ()
    exclusive: bool = False
    task: Task | None = None
    pin: bool = False
    allow_custom_code: bool = False
    onnx_file: str | None = None
    max_batch_size: Annotated[int, Field(ge=1)] | None = None
    instance_count: Annotated[int, Field(ge=1)] | None = None
    max_in_flight: Annotated[int, Field(ge=1)] | None = None
    memory: Bytes | None = None
    engine_args: dict[str, JsonValue] = {}
    tool_parser: ToolParser | None = None
    base: str | None = None  # of a LoRA adapter: the served name of its base model
    ray: RayModelSettings = RayModelSettings()

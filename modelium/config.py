"""``modelium.yaml``: what enters is YAML and ``MODELIUM__…`` environment variables, what leaves is a checked ``Settings``.

An unknown key is an error that names its place and the nearest known key. ``modelium.example.yaml`` documents every key
and a test holds the two together.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from modelium.brain.engine_args import RUNTIME_VLLM, VLLM_VERSIONS, find_fault
from modelium.errors import ConfigError
from modelium.values import Capabilities, ModelOverride, Policies, RayFacts, RayOptions, Runtime, Task, VllmFacts

_NOT_ASKED = VllmFacts()
_NO_RAY_ASKED = RayFacts()
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_bytes(value: object) -> object:
    """``"12GiB"`` → 12884901888. Whole numbers pass; anything else is left for pydantic to refuse.

    >>> parse_bytes("1.5 GiB")
    1610612736
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", value.lower())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{value!r} is not a size; write it like 12GiB, 512MiB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2]])


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


def check_ray_address(value: object) -> object:
    """``auto`` or ``HOST:PORT``, the port being that of the cluster's GCS.

    >>> check_ray_address("ray-head:6379")
    'ray-head:6379'
    """
    if value == "auto" or not isinstance(value, str):
        return value
    if value.startswith("ray://"):
        raise ValueError("Ray's client protocol (ray://) cannot carry Ray Serve: give the GCS of the cluster, HOST:6379")
    host, colon, port = value.rpartition(":")
    if not (colon and host and port.isdigit()):
        raise ValueError(f"{value!r} is neither auto nor HOST:PORT, like ray-head:6379")
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _no_path(value: object) -> object:
    """An empty text is no path: a container's environment names every variable, set or not."""
    return None if value == "" else value


class GatewaySettings(_Section):
    host: str = "127.0.0.1"
    port: Port = 8080
    api_keys_file: Annotated[Path | None, BeforeValidator(_no_path)] = None
    request_timeout_seconds: Seconds = 300
    max_body_bytes: Bytes = 64 * 2**20
    max_waiting: Annotated[int, Field(ge=1)] = 512

    @property
    def open_to_all(self) -> bool:
        """Whether somebody on another machine may ask without a key."""
        return self.api_keys_file is None and self.host not in ("127.0.0.1", "::1", "localhost")


class TritonSettings(_Section):
    mode: Literal["embedded", "external"] = "embedded"
    http_url: str = "127.0.0.1:8000"
    grpc_url: str = "127.0.0.1:8001"
    metrics_url: str = "127.0.0.1:8002"
    model_repository: Path = Path("./models/repository")
    state_directory: Path = Path("./models/.modelium")
    runtime_directory: Path = Path("./.runtime")
    path_mapping: dict[str, str] = {}
    backends: tuple[str, ...] = ()  # empty: what the embedded server has, or python + onnxruntime for an external one
    load_timeout_seconds: Seconds = 600
    unload_timeout_seconds: Seconds = 60


class VllmSettings(_Section):
    enabled: bool = True
    kv_concurrency: Annotated[int, Field(ge=1)] = 4
    kv_cache_floor: Bytes = 64 * 2**20
    kv_cache_ceiling: Bytes = 32 * 2**30

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.kv_cache_floor > self.kv_cache_ceiling:
            raise ValueError("kv_cache_floor is above kv_cache_ceiling")
        return self


class OnnxSettings(_Section):
    enabled: bool = True


class RayModelSettings(_Section):
    """``models: {NAME: {ray: …}}``. None: as ``ray:`` says for all models."""

    min_replicas: Annotated[int, Field(ge=0)] | None = None
    max_replicas: Annotated[int, Field(ge=1)] | None = None
    target_ongoing_requests: Annotated[float, Field(gt=0)] | None = None
    cpus_per_replica: Annotated[float, Field(ge=0)] | None = None
    gpus_per_replica: Annotated[float, Field(ge=0)] | None = None

    def options(self) -> RayOptions:
        """As the brain takes them."""
        return RayOptions(**{name: getattr(self, name) for name in RayOptions.__slots__})

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min_replicas is not None and self.max_replicas is not None and self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is above max_replicas")
        return self


class RaySettings(RayModelSettings):
    enabled: bool = False
    address: Annotated[str, BeforeValidator(check_ray_address)] = "auto"
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
    watch_directories: tuple[Path, ...] = (Path("./models/incoming"),)
    scan_interval_seconds: Seconds = 30
    settle_seconds: Seconds = 2


class PolicySettings(_Section):
    always_loaded: tuple[str, ...] = ()
    evict_after_idle_seconds: Seconds = 300
    check_interval_seconds: Seconds = 10
    memory_pressure_fraction: Annotated[float, Field(gt=0, le=1)] = 0.9
    drain_timeout_seconds: Seconds = 30
    load_retries: Annotated[int, Field(ge=0)] = 3
    retry_backoff_seconds: Seconds = 1


class OrchestrationSettings(_Section):
    model_discovery: DiscoverySettings = DiscoverySettings()
    load_on_discovery: bool = True
    policies: PolicySettings = PolicySettings()


class DeviceSettings(_Section):
    host_memory: Bytes | None = None  # None: three quarters of the machine's memory
    gpu_memory_fraction: Annotated[float, Field(gt=0, le=1)] = 0.9


class BrainSettings(_Section):
    enabled: bool = True
    fallback_to_rules: bool = True


class MetricsSettings(_Section):
    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 9090


# The families of tool calls that the gateway can read (modelium/gateway/openai/tool_calls/families.py).
ToolParser = Literal[
    "deepseek", "glm45", "granite", "hermes", "internlm", "jamba", "kimi_k2", "llama3_json", "llama4_pythonic", "mistral",
    "phi4_mini", "qwen3_coder",
]  # fmt: skip


class ModelSettings(_Section):
    runtime: Runtime | None = None
    device: str | None = None
    task: Task | None = None
    pin: bool = False
    allow_custom_code: bool = False
    max_batch_size: Annotated[int, Field(ge=1)] | None = None
    instance_count: Annotated[int, Field(ge=1)] | None = None
    memory: Bytes | None = None
    engine_args: dict[str, JsonValue] = {}
    tool_parser: ToolParser | None = None
    base: str | None = None  # of a LoRA adapter: the served name of its base model
    ray: RayModelSettings = RayModelSettings()


class Settings(BaseSettings):
    """The whole of ``modelium.yaml``. Environment variables win over the file, the file over the defaults."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix="MODELIUM__",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    gateway: GatewaySettings = GatewaySettings()
    triton: TritonSettings = TritonSettings()
    vllm: VllmSettings = VllmSettings()
    onnx: OnnxSettings = OnnxSettings()
    ray: RaySettings = RaySettings()
    orchestration: OrchestrationSettings = OrchestrationSettings()
    devices: DeviceSettings = DeviceSettings()
    modelium_brain: BrainSettings = BrainSettings()
    metrics: MetricsSettings = MetricsSettings()
    models: dict[str, ModelSettings] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first, then the file's values (passed as init arguments)."""
        return (EnvSettingsSource(settings_cls), init_settings)

    @model_validator(mode="after")
    def _check_engine_args(self) -> Self:
        """Every fault at its own place. A Triton elsewhere has a vLLM of its own: any recorded version may know the name."""
        versions = (RUNTIME_VLLM,) if self.triton.mode == "embedded" else VLLM_VERSIONS
        faults = [
            InitErrorDetails(
                type=PydanticCustomError("engine_arg", "{fault}", {"fault": fault}),
                loc=("models", model, "engine_args", name),
                input=value,
            )
            for model, chosen in self.models.items()
            for name, value in chosen.engine_args.items()
            if (fault := find_fault(name, value, versions=versions)) is not None
        ]
        if faults:
            raise ValidationError.from_exception_data("engine_args", faults)
        return self

    def policies(self) -> Policies:
        """The part of the configuration that the brain takes as an argument."""
        policies = self.orchestration.policies
        return Policies(
            evict_after_idle_seconds=policies.evict_after_idle_seconds,
            pressure_fraction=policies.memory_pressure_fraction,
            evict=self.modelium_brain.enabled or self.modelium_brain.fallback_to_rules,
            cost_aware=self.modelium_brain.enabled,
            kv_concurrency=self.vllm.kv_concurrency,
            kv_floor_bytes=self.vllm.kv_cache_floor,
            kv_ceiling_bytes=self.vllm.kv_cache_ceiling,
            ray=self.ray.options(),
        )

    def overrides(self) -> dict[str, ModelOverride]:
        """Per-model overrides as the brain takes them."""
        return {
            name: ModelOverride(
                runtime=m.runtime,
                device=m.device,
                task=m.task,
                pin=m.pin,
                allow_custom_code=m.allow_custom_code,
                max_batch_size=m.max_batch_size,
                instance_count=m.instance_count,
                memory_bytes=m.memory,
                engine_args=m.engine_args,
                base=m.base,
                ray=m.ray.options(),
            )
            for name, m in self.models.items()
        }

    def capabilities(
        self,
        backends: frozenset[str],
        vllm: VllmFacts = _NOT_ASKED,
        ray: RayFacts = _NO_RAY_ASKED,
        *,
        gpu: bool = True,
    ) -> Capabilities:
        """What may be used, given the backends that the connected Triton has (and that entries can be written for)."""
        return Capabilities(
            backends=backends,
            vllm_enabled=self.vllm.enabled,
            onnx_enabled=self.onnx.enabled,
            ray_enabled=self.ray.enabled,
            ray_missing=ray.missing,
            ray_packages=ray.packages,
            vllm_version=vllm.version,
            vllm_architectures=vllm.architectures,
            vllm_lora=vllm.lora,
            vllm_quantizations=vllm.quantizations,
            vllm_missing=vllm.missing,
            gpu=gpu,
        )


def load_settings(path: Path | None = None) -> Settings:
    """Read ``path`` (default: ``./modelium.yaml`` if it is there, else the defaults) and the environment.

    Raises ``ConfigError`` with the place of each fault and the nearest known key.
    """
    if path is None:
        default = Path("modelium.yaml")
        path = default if default.is_file() else None
    data: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        if loaded is not None and not isinstance(loaded, dict):
            raise ConfigError(f"{path}: expected a mapping at the top, found {type(loaded).__name__}")
        data = loaded or {}
    _refuse_unknown_environment()
    try:
        return Settings(**data)
    except ValidationError as error:
        where = str(path) if path is not None else "environment"
        raise ConfigError("\n".join(f"{where}: {_explain(fault)}" for fault in error.errors())) from error


def _refuse_unknown_environment() -> None:
    known = {f"MODELIUM__{name.upper()}" for name in Settings.model_fields}
    for variable in os.environ:
        if variable.startswith("MODELIUM__"):
            head = "__".join(variable.split("__")[:2])
            if head not in known:
                near = difflib.get_close_matches(head, known, n=1)
                raise ConfigError(
                    f"environment variable {variable}: no such section" + (f"; did you mean {near[0]}?" if near else "")
                )


def _explain(fault: Any) -> str:
    location = [str(part) for part in fault["loc"]]
    place = ".".join(location)
    if fault["type"] == "extra_forbidden":
        known = _keys_at(location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(sorted(known))}"
        return f"{place}: unknown key; {hint}"
    if fault["type"] == "engine_arg":
        return f"{place}: {fault['msg']}"
    return f"{place}: {fault['msg'].removeprefix('Value error, ')}" + (
        f" (found {fault['input']!r})" if not isinstance(fault["input"], dict) else ""
    )


def _keys_at(location: list[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in location:
        if model is Settings and part == "models":
            model = ModelSettings
            continue
        field = model.model_fields.get(part)
        if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return list(model.model_fields)

"""All sections together, and what the brain takes of them."""

from __future__ import annotations

from typing import Self

from pydantic import ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from modelium.brain.engine.args import RUNTIME_VLLM, VLLM_VERSIONS, find_fault
from modelium.config.sections import (
    BrainSettings,
    DeviceSettings,
    GatewaySettings,
    MetricsSettings,
    ModelSettings,
    OnnxSettings,
    OrchestrationSettings,
    RaySettings,
    TritonSettings,
    VllmSettings,
)
from modelium.values import Capabilities, ModelOverride, Policies, RayFacts, VllmFacts

_NOT_ASKED = VllmFacts()
_NO_RAY_ASKED = RayFacts()


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
            eviction=policies.eviction or self.modelium_brain.eviction,
            correct_estimates=policies.correct_estimates,
            preload=policies.preload,
            read_ahead=policies.read_ahead,
            move_idle=policies.move_idle,
            unload_without_pressure=policies.unload_without_pressure,
            evict_for_requests=policies.evict_for_requests,
            min_residence_seconds=policies.min_residence_seconds,
            turn_seconds=policies.turn_seconds,
            kv_concurrency=self.vllm.kv_concurrency,
            typical_tokens=self.vllm.typical_tokens,
            fit_context=self.vllm.fit_context,
            min_context=self.vllm.min_context,
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
                devices=frozenset(m.devices),
                exclusive=m.exclusive,
                task=m.task,
                pin=m.pin,
                allow_custom_code=m.allow_custom_code,
                onnx_file=m.onnx_file,
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
            ray_missing=str(ray.missing or ""),
            ray_packages=ray.packages,
            vllm_version=vllm.version,
            vllm_architectures=vllm.architectures,
            vllm_lora=vllm.lora,
            vllm_quantizations=vllm.quantizations,
            vllm_missing=str(vllm.missing or ""),
            gpu=gpu,
            nursery=self.triton.nursery and self.triton.mode == "embedded",
        )

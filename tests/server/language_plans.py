"""The tiny language models as Modelium plans them for the host, and what their key-value caches must be.

What enters: a model's name and the directory of the models. What leaves: what the repository writes its entry from, and checks
of what an engine wrote and logged, in Triton (``test_vllm_backend.py``) and without it (``test_vllm_alone.py``).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from modelium.brain.engine.plan import plan_engine
from modelium.brain.placement.memory import kv_bytes_per_token
from modelium.repository import ModelRepository
from modelium.values import (
    Adapter,
    Device,
    DeviceKind,
    EnginePlan,
    Footprint,
    JsonValue,
    LanguageModel,
    ModelOverride,
    ModelProfile,
    Placement,
    Runtime,
)
from tests.models.language import ADAPTER, GPT2, LATENT, LLAMA, MIXTURE, PICTURES, Written
from tests.server.conftest import profile_of

GIB = 2**30
HOST = Device(id="host", kind=DeviceKind.HOST, index=-1, name="host", total_bytes=16 * GIB, used_bytes=0, budget_bytes=8 * GIB)
# Some CPUs have a faster kernel for MLA, which knows bfloat16 only; this one is the same everywhere.
MORE_ARGUMENTS: dict[str, dict[str, JsonValue]] = {LATENT: {"attention_backend": "CPU_MLA"}}
BLOCKS = {LLAMA: 128, GPT2: 128, MIXTURE: 128, LATENT: 16, PICTURES: 128}  # vLLM's own on the CPU, in tokens
# Counted by hand: layers × KV heads × 2 × head size × 4 bytes; for MLA layers × (512 + 64) × 4.
BYTES_PER_TOKEN = {LLAMA: 1024, GPT2: 1536, MIXTURE: 1024, LATENT: 4608, PICTURES: 1024}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A model with the plan of its engine."""

    profile: ModelProfile
    language: LanguageModel
    override: ModelOverride
    plan: EnginePlan

    def write(self, repository: ModelRepository) -> Path:
        """Its entry in the repository."""
        placement = Placement(
            runtime=Runtime.VLLM,
            device_id="host",
            device_kind=DeviceKind.HOST,
            device_index=-1,
            footprint=Footprint(estimated_bytes=self.plan.total_bytes),
            max_batch_size=0,
            engine=self.plan,
        )
        return repository.write(self.profile, placement, override=self.override)

    def check_cache(self, logged: str) -> None:
        """The cache is as large as was planned, and a token costs it what was computed, says the engine's log."""
        said = re.findall(r"KV cache size: ([\d,]+) tokens", logged)
        assert len(said) == 1, f"{self.profile.name} says {said} about its cache: {logged}"
        tokens = int(said[0].replace(",", ""))
        a_token, block = kv_bytes_per_token(self.language, kv_dtype_bytes=4), BLOCKS[self.profile.name]
        assert a_token == self.plan.kv_bytes_per_token == BYTES_PER_TOKEN[self.profile.name]
        given = self.plan.engine_args["kv_cache_memory_bytes"]
        assert isinstance(given, int)
        assert tokens == given // (a_token * block) * block
        assert tokens == self.plan.kv_tokens


def plan(name: str, models: Path) -> Planned:
    """The model of that name with its adapters, on the host, in float32, where the order of summing decides nothing."""
    profile = profile_of(name, models / name)
    assert profile.language is not None
    language = replace(profile.language, adapters=_adapters(name, models))
    profile = replace(profile, language=language)
    override = ModelOverride(engine_args={"dtype": "float32", **MORE_ARGUMENTS.get(name, {})})
    planned = plan_engine(profile, [HOST], override=override)
    assert isinstance(planned, EnginePlan), planned
    return Planned(profile=profile, language=language, override=override, plan=planned)


def _adapters(name: str, models: Path) -> tuple[Adapter, ...]:
    if name != LLAMA:
        return ()
    config = json.loads((models / ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))
    return (Adapter(name=ADAPTER, path=models / ADAPTER, rank=config["r"], base=config["base_model_name_or_path"]),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What came back: the fields are ``Written``'s."""

    text: str
    new_tokens: tuple[int, ...]
    finish: str
    prompt_tokens: int


def expected(wanted: Written) -> Said:
    """What an engine has to say, token for token: what ``transformers.generate`` wrote."""
    return Said(
        text=wanted.text,
        new_tokens=wanted.new_tokens,
        finish=wanted.finish,
        prompt_tokens=len(wanted.prompt_tokens),
    )

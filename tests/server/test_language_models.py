"""Language models through the real vLLM in the real Triton: what they write is what ``transformers.generate`` writes with the
same weights, token for token, and their key-value cache is as large as was planned.

Each engine is started once (half a minute) and stopped when the next one is wanted; what it logged is kept.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from modelium.brain.engine.plan import plan_engine
from modelium.brain.placement.memory import kv_bytes_per_token
from modelium.values import (
    Adapter,
    Device,
    DeviceKind,
    EnginePlan,
    Footprint,
    JsonValue,
    LanguageModel,
    ModelOverride,
    Placement,
    Runtime,
)
from tests.models.language import ADAPTER, GPT2, LANGUAGE_MODELS, LATENT, LLAMA, MIXTURE, PICTURES, Written, continuations
from tests.server.conftest import ASK_S, LOAD_S, Triton, profile_of, started

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

GIB = 2**30
HOST = Device(id="host", kind=DeviceKind.HOST, index=-1, name="host", total_bytes=16 * GIB, used_bytes=0, budget_bytes=8 * GIB)
# Some CPUs have a faster kernel for MLA, which knows bfloat16 only; this one is the same everywhere.
MORE_ARGUMENTS: dict[str, dict[str, JsonValue]] = {LATENT: {"attention_backend": "CPU_MLA"}}
BLOCKS = {LLAMA: 128, GPT2: 128, MIXTURE: 128, LATENT: 16, PICTURES: 128}  # vLLM's own on the CPU, in tokens
# Counted by hand: layers × KV heads × 2 × head size × 4 bytes; for MLA layers × (512 + 64) × 4.
BYTES_PER_TOKEN = {LLAMA: 1024, GPT2: 1536, MIXTURE: 1024, LATENT: 4608, PICTURES: 1024}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What was planned for a model, and how many tokens its engine said that it has room for."""

    language: LanguageModel
    plan: EnginePlan
    logged_tokens: int


@dataclass
class Engines:
    """One engine at a time; what is known of the earlier ones stays."""

    triton: Triton
    known: dict[str, Engine] = field(default_factory=dict)
    running: str = ""

    async def run(self, name: str) -> Engine:
        """Have the model loaded, whichever was before."""
        if self.running != name:
            await self.stop()
            self.known[name] = await self._start(name)
        return self.known[name]

    async def seen(self, name: str) -> Engine:
        """The same, but a model that ran before need not run now."""
        return self.known.get(name) or await self.run(name)

    async def stop(self) -> None:
        if self.running:
            await self.triton.unload(self.running)
            self.running = ""

    async def _start(self, name: str) -> Engine:
        profile = profile_of(name, self.triton.models / name)
        assert profile.language is not None
        language = replace(profile.language, adapters=adapters_of(name, self.triton.models))
        profile = replace(profile, language=language)
        # In float32 the order of summing decides nothing.
        override = ModelOverride(engine_args={"dtype": "float32", **MORE_ARGUMENTS.get(name, {})})
        plan = plan_engine(profile, [HOST], override=override)
        assert isinstance(plan, EnginePlan), plan
        placement = Placement(
            runtime=Runtime.VLLM,
            device_id="host",
            device_kind=DeviceKind.HOST,
            device_index=-1,
            footprint=Footprint(estimated_bytes=plan.total_bytes),
            max_batch_size=0,
            engine=plan,
        )
        self.triton.repository.write(profile, placement, override=override)
        log = self.triton.server.log_path
        before = log.stat().st_size
        await self.triton.client.load(name, timeout_s=LOAD_S)
        self.running = name
        said = re.findall(r"KV cache size: ([\d,]+) tokens", log.read_bytes()[before:].decode(errors="replace"))
        assert len(said) == 1, f"{name} says {said} about its cache; see {log}"
        return Engine(language=language, plan=plan, logged_tokens=int(said[0].replace(",", "")))


def adapters_of(name: str, models: Path) -> tuple[Adapter, ...]:
    if name != LLAMA:
        return ()
    config = json.loads((models / ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))
    return (Adapter(name=ADAPTER, path=models / ADAPTER, rank=config["r"], base=config["base_model_name_or_path"]),)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engines(tmp_path_factory: pytest.TempPathFactory, language_models: Path) -> AsyncIterator[Engines]:
    async with started(tmp_path_factory.mktemp("language"), language_models) as triton:
        made = Engines(triton=triton)
        yield made
        await made.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What came back: the fields are ``Written``'s."""

    text: str
    new_tokens: tuple[int, ...]
    finish: str
    prompt_tokens: int


async def write(triton: Triton, model: str, wanted: Written, *, adapter: str = "") -> Said:
    """Greedy decoding after a prompt. The tokens are those of the logprobs: the sampled one is the first of each position."""
    parameters: dict[str, JsonValue] = {"temperature": 0, "max_tokens": wanted.max_new_tokens, "logprobs": 1}
    if adapter:
        parameters["lora_name"] = adapter
    inputs = {
        "text_input": np.array([wanted.prompt.encode()], dtype=np.object_),
        "sampling_parameters": np.array([json.dumps(parameters).encode()], dtype=np.object_),
        **{
            name: np.array([True])
            for name in ("exclude_input_in_output", "return_finish_reason", "return_logprobs", "return_num_input_tokens")
        },
    }
    if wanted.image is not None:
        inputs["image"] = np.array([base64.b64encode(wanted.image.read_bytes())], dtype=np.object_)
    answers = [answer async for answer in triton.client.stream(model, inputs, timeout_s=ASK_S)]
    (answer,) = answers
    positions = json.loads(answer["logprobs"][0])
    return Said(
        text=answer["text_output"][0].decode(),
        new_tokens=tuple(int(next(iter(position))) for position in positions),
        finish=answer["finish_reason"][0].decode(),
        prompt_tokens=int(answer["num_input_tokens"][0]),
    )


def expected(wanted: Written) -> Said:
    return Said(
        text=wanted.text,
        new_tokens=wanted.new_tokens,
        finish=wanted.finish,
        prompt_tokens=len(wanted.prompt_tokens),
    )


@pytest.mark.parametrize(
    ("model", "adapter"),
    [(LLAMA, ""), (LLAMA, ADAPTER), (GPT2, ""), (MIXTURE, ""), (LATENT, ""), (PICTURES, "")],
    ids=lambda name: name or "alone",
)
async def test_greedy_text_is_that_of_transformers_token_for_token(engines: Engines, model: str, adapter: str) -> None:
    await engines.run(model)
    every = continuations(engines.triton.models, adapter or model)
    said = await asyncio.gather(*(write(engines.triton, model, wanted, adapter=adapter) for wanted in every))  # in one batch
    for wanted, one in zip(every, said, strict=True):
        assert one == expected(wanted), wanted.prompt


@pytest.mark.parametrize("model", LANGUAGE_MODELS)
async def test_a_token_costs_the_cache_what_was_computed(engines: Engines, model: str) -> None:
    engine = await engines.seen(model)
    a_token, block = kv_bytes_per_token(engine.language, kv_dtype_bytes=4), BLOCKS[model]
    assert a_token == engine.plan.kv_bytes_per_token == BYTES_PER_TOKEN[model]
    given = engine.plan.engine_args["kv_cache_memory_bytes"]
    assert isinstance(given, int)
    assert engine.logged_tokens == given // (a_token * block) * block
    assert engine.logged_tokens == engine.plan.kv_tokens

"""What of the published models runs where with nothing configured, and how the plans look beside their vendors' own.

What enters: the collection (``tests/data/published``). What leaves: a table of the generators by fleet, once with
``vllm.fit_context: false`` and once as by default; what the plans take and give beside an expert's who has the whole device;
and plans beside published recipes. ``python bench/fitting.py [--models]``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modelium.brain.engine.devices import place_engine
from modelium.brain.engine.kv_cache import kv_bytes
from modelium.brain.runtimes.choice import choose_runtime
from modelium.values import (
    Capabilities,
    Device,
    DeviceKind,
    EnginePlan,
    ModelOverride,
    ModelProfile,
    Policies,
)
from tests.published import analysis_of, collection

GIB = 2**30
WITH_VLLM = Capabilities(backends=frozenset({"python", "onnxruntime", "vllm"}))
FLEETS = {"1 × 24 GiB": (1, 24), "1 × 80 GiB": (1, 80), "8 × 80 GiB": (8, 80)}
# What their publishers, or vLLM's own collection of recipes, say to start them with.
RECIPES = (
    (
        "gpt-oss-120b",
        (1, 80),
        "one 80-GiB card, no arguments (2 cards are faster)",
        "https://docs.vllm.ai/projects/recipes/en/latest/OpenAI/GPT-OSS.html",
    ),
    (
        "Qwen3-Coder-480B-A35B-Instruct",
        (8, 141),
        "--tensor-parallel-size 8 --max-model-len 32000",
        "https://docs.vllm.ai/projects/recipes/en/latest/Qwen/Qwen3-Coder-480B-A35B.html",
    ),
    (
        "Qwen3-Next-80B-A3B-Instruct",
        (4, 80),
        "--tensor-parallel-size 4 (4 × A100/A800 or H200)",
        "https://docs.vllm.ai/projects/recipes/en/latest/Qwen/Qwen3-Next.html",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A model on a fleet. ``plan``: None where it is too big."""

    name: str
    plan: EnginePlan | None

    @property
    def word(self) -> str:
        """Whole, or how much of it, or nothing."""
        if self.plan is None:
            return "too big"
        devices = f" on {len(self.plan.devices)}" if len(self.plan.devices) > 1 else ""
        full = getattr(self.plan, "full_context", self.plan.max_model_len)
        if self.plan.max_model_len < full:
            return f"{self.plan.max_model_len:,} of {full:,}{devices}"
        return f"whole{devices}"


def fleet(count: int, gib: int) -> list[Device]:
    """Equal GPUs, of which models may use nine tenths, as by default."""
    return [
        Device(
            id=f"cuda:{index}",
            kind=DeviceKind.CUDA,
            index=index,
            name=f"a GPU of {gib} GiB",
            total_bytes=gib * GIB,
            used_bytes=0,
            budget_bytes=gib * GIB * 9 // 10,
        )
        for index in range(count)
    ]


def generators() -> Iterator[ModelProfile]:
    """Those of the collection that vLLM serves."""
    for name in sorted(collection(), key=str.lower):
        profile = analysis_of(name)
        if not isinstance(profile, ModelProfile) or profile.language is None:
            continue
        if choose_runtime(profile, WITH_VLLM, ModelOverride()).engine:
            yield profile


def place(profile: ModelProfile, devices: Sequence[Device], policies: Policies) -> Row:
    """With nothing configured."""
    found = place_engine(profile, devices, ModelOverride(), policies)
    return Row(name=profile.name, plan=found[0].engine if found else None)


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", action="store_true", help="a line for each model")
    shown = parser.parse_args()
    models = list(generators())
    fits = Policies()
    whole = replace(fits, fit_context=False) if hasattr(fits, "fit_context") else fits
    print(f"{len(models)} published generators that vLLM serves; what runs with nothing configured\n")
    print(f"{'fleet':12} {'fit_context: false':>20} {'by default':>20}   of them with their whole context")
    tables = {}
    for name, size in FLEETS.items():
        devices = fleet(*size)
        before = [place(model, devices, whole) for model in models]
        after = [place(model, devices, fits) for model in models]
        tables[name] = after
        ran, runs = (sum(row.plan is not None for row in rows) for rows in (before, after))
        full = sum(row.word.startswith("whole") for row in after)
        print(f"{name:12} {_share(ran, len(models)):>20} {_share(runs, len(models)):>20}   {full}")
    if shown.models:
        print()
        for index, model in enumerate(models):
            print(f"{model.name:46}" + "".join(f"{rows[index].word:>28}" for rows in tables.values()))
    _beside_an_expert(models, fits)
    print("\nBeside published recipes")
    known = {model.name.lower(): model for model in models}
    for name, size, said, source in RECIPES:
        row = place(known[name.lower()], fleet(*size), fits)
        plan = row.plan
        print(f"\n{name} on {size[0]} × {size[1]} GiB\n  recipe   {said}\n           {source}")
        if plan is None:
            print("  planned  too big")
            continue
        args = {key: value for key, value in plan.engine_args.items() if key not in ("disable_log_stats", "dtype")}
        print(f"  planned  {row.word}, " + ", ".join(f"{key} {value}" for key, value in args.items()))
        print(
            f"           weights {plan.weight_bytes / GIB:.1f}, cache {plan.kv_bytes / GIB:.1f} for {plan.kv_tokens:,} tokens, "
            f"activations {plan.activation_bytes / GIB:.1f}, graphs {plan.graph_bytes / GIB:.1f} GiB on each device"
        )


def _share(count: int, of: int) -> str:
    return f"{count} ({count / of:.0%})"


def _beside_an_expert(models: Sequence[ModelProfile], policies: Policies) -> None:
    """Throughput and memory beside those of an engine that has the whole device of 80 GiB."""
    speeds, shares = [], []
    for model in models:
        plan = place(model, fleet(1, 80), policies).plan
        if plan is not None:
            typical = typical_bytes(model)
            mine = max(1, min(plan.max_num_seqs, plan.kv_bytes // typical))
            experts = max(1, min(256, (72 * GIB - plan.total_bytes + plan.kv_bytes) // typical))
            speeds.append((speed(plan, mine, typical) / speed(plan, experts, typical), model.name))
            shares.append((plan.total_bytes / (80 * GIB), model.name))
    print("\nOn one device of 80 GiB, beside an engine that takes nine tenths of it and 256 sequences at most")
    for what, found in (("throughput, of the expert's", speeds), ("memory, of the device", shares)):
        low, high = min(found), max(found)
        median = statistics.median(value for value, _ in found)
        print(f"  {what:28} median {median:.2f}, {low[0]:.2f} ({low[1]}) to {high[0]:.2f} ({high[1]})")


def speed(plan: EnginePlan, sequences: int, typical: int) -> float:
    """Tokens of a step over what it reads: the weights, each sequence's cache, and 2 GiB, for what a step costs by itself."""
    return sequences / (plan.weight_bytes + 2 * GIB + sequences * typical)


def typical_bytes(model: ModelProfile) -> int:
    """Of the cache of a request of 2,048 tokens."""
    assert model.language is not None
    return max(1, kv_bytes(model.language, tokens=2048, sequences=1, kv_dtype_bytes=2, in_flight_tokens=16_384))


if __name__ == "__main__":
    main()

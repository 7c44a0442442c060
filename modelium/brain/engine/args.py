"""Engine arguments: those that a user chose enter, what is wrong with them leaves, before vLLM takes a minute to say it.

The names are recorded from vLLM's own source, version by version (``engine_arg_fields.py``).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelium.brain.engine.arg_fields import TABLE
from modelium.values import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineArg:
    """One field of ``AsyncEngineArgs``: what it takes (``int``, ``None`` …; ``any``: a type of vLLM's own), and who has it."""

    kinds: frozenset[str]
    versions: tuple[str, ...]


def _read(table: str) -> dict[str, EngineArg]:
    rows = (line.split() for line in table.splitlines() if line)
    return {name: EngineArg(kinds=frozenset(kinds.split("|")), versions=tuple(versions)) for name, kinds, *versions in rows}


ENGINE_ARGS: Mapping[str, EngineArg] = _read(TABLE)
VLLM_VERSIONS = tuple(
    sorted({version for arg in ENGINE_ARGS.values() for version in arg.versions}, key=lambda v: [int(n) for n in v.split(".")])
)
RUNTIME_VLLM = VLLM_VERSIONS[-1]  # the one that `modelium runtime install` installs

# What nobody may set by hand, and what to do instead.
_OWNED = {
    "model": "Modelium writes it: it is the model's own folder",
    "served_model_name": "a model is called by its folder's name",
    "trust_remote_code": "say allow_custom_code: true beside engine_args",
    "enable_lora": "it is on as soon as a LoRA adapter's folder lies beside the model's",
    "device_ids": "say device: beside engine_args, or let Modelium choose",
} | dict.fromkeys(
    ("pipeline_parallel_size", "data_parallel_size", "data_parallel_size_local", "nnodes", "node_rank", "master_addr"),
    "an engine is spread over the GPUs of this machine by tensor_parallel_size alone",
)

_OWNED |= {
    "prefill_context_parallel_size": _OWNED["pipeline_parallel_size"],
    "decode_context_parallel_size": _OWNED["pipeline_parallel_size"],
    "num_gpu_blocks_override": "the cache is planned in bytes: say kv_cache_memory_bytes",
} | dict.fromkeys(
    ("cpu_offload_gb", "cpu_offload_params", "kv_offloading_size"),
    "what it would take of the host's memory is in no plan, and what it saves on the GPU neither",
)
# What the plan writes, or counts with: null would take its place, and vLLM would then choose for itself.
_PLANNED = frozenset(
    {
        "block_size",
        "disable_log_stats",
        "dtype",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_dtype",
        "kv_cache_memory_bytes",
        "max_lora_rank",
        "max_loras",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_seqs",
        "tensor_parallel_size",
    }
)
_POSITIVE = frozenset(
    {
        "block_size",
        "kv_cache_memory_bytes",
        "max_cpu_loras",
        "max_logprobs",
        "max_lora_rank",
        "max_loras",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_seqs",
        "num_gpu_blocks_override",
        "tensor_parallel_size",
    }
)
_FRACTIONS = frozenset({"gpu_memory_utilization"})
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "None": "null",
    "list": "a list",
    "dict": "a mapping",
}


def find_fault(name: str, value: JsonValue, *, versions: Sequence[str] = (RUNTIME_VLLM,)) -> str | None:
    """What is wrong with ``name: value`` for every vLLM of ``versions``, as a sentence; None when nothing is.

    1. Modelium decides it.
    2. No vLLM of ``versions`` has it.
    3. Null, where Modelium plans a value.
    4. It takes another kind of value: a text that looks like a number is refused here, not coerced.
    5. It is out of range, where the range is plain.
    """
    if name in _OWNED:  # 1
        return f"not to be set by hand: {_OWNED[name]}"
    arg = ENGINE_ARGS.get(name)
    if arg is None or not set(arg.versions) & set(versions):  # 2
        return _unknown(name, arg, versions)
    if value is None and name in _PLANNED:  # 3
        return "must not be null: without it, Modelium plans it"
    if not _is_json(value):
        return "has a number that JSON cannot carry"
    if "any" not in arg.kinds and not _kinds_of(value) & arg.kinds:  # 4
        kinds = arg.kinds - {"None"} if name in _PLANNED else arg.kinds
        return f"must be {_listed(kinds)}, not {value!r}"
    if isinstance(value, int | float) and not isinstance(value, bool):  # 5
        if name in _POSITIVE and value < 1:
            return f"must be at least 1, not {value}"
        if name in _FRACTIONS and not 0 < value <= 1:
            return f"must be above 0 and at most 1, not {value}"
    return None


def _unknown(name: str, arg: EngineArg | None, versions: Sequence[str]) -> str:
    asked = f"vLLM {versions[0]}" if len(versions) == 1 else f"no vLLM from {versions[0]} to {versions[-1]}"
    if arg is not None:
        return f"unknown engine argument: {asked} does not have it ({', '.join(arg.versions)} had)"
    known = [known for known, arg in ENGINE_ARGS.items() if set(arg.versions) & set(versions) and known not in _OWNED]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    lacks = f"{asked} does not have it" if len(versions) == 1 else f"{asked} has it"
    return f"unknown engine argument: {lacks}" + (f"; did you mean {near[0]!r}?" if near else "")


def _kinds_of(value: JsonValue) -> set[str]:
    match value:
        case None:
            return {"None"}
        case bool():
            return {"bool"}
        case int():
            return {"int", "float"}
        case float():
            return {"float"}
        case str():
            return {"str"}
        case list():
            return {"list"}
        case _:
            return {"dict"}


def _is_json(value: JsonValue) -> bool:
    """YAML knows ``.nan`` and ``.inf``, JSON does not."""
    match value:
        case float():
            return math.isfinite(value)
        case list():
            return all(_is_json(item) for item in value)
        case dict():
            return all(_is_json(item) for item in value.values())
        case _:
            return True


def _listed(kinds: frozenset[str]) -> str:
    return " or ".join(words for kind, words in _WORDS.items() if kind in kinds)

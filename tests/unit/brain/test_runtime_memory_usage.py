"""Choice of the runtime, estimates, and use from Triton's counters."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.brain import usage as use
from modelium.brain.engine.memory import overhead
from modelium.brain.placement.memory import estimate, estimate_footprint
from modelium.brain.plan import plan
from modelium.brain.runtimes.choice import SUPPORTS, choose_runtime
from modelium.values import (
    Capabilities,
    Device,
    DeviceKind,
    Footprint,
    ModelOverride,
    ModelProfile,
    OnnxGraph,
    Placement,
    Runtime,
    Task,
    Tensor,
)
from tests.unit.brain.languages import FULL, group, language, llm
from tests.unit.brain.worlds import MIB, gpu, host, profile, wanted, world

_X = Tensor(name="x", datatype="FP32", dims=(-1, 4))
_ONNX = profile("o", task=Task.TENSORS, onnx=OnnxGraph(inputs=(_X,), outputs=(_X,), dynamic_batch=True, opset=17))
_LLM = llm("llm", 10**8, language(group(FULL, 2, 4, 64)))
_BASIC = Capabilities()
_WITH_VLLM = Capabilities(backends=frozenset({"python", "onnxruntime", "vllm"}))


@pytest.mark.parametrize(
    ("model", "capabilities", "override", "runtime", "rule"),
    [
        (_ONNX, _BASIC, ModelOverride(), Runtime.ONNXRUNTIME, "runtime.2"),
        (_ONNX, Capabilities(onnx_enabled=False), ModelOverride(), None, "runtime.6"),
        (_LLM, _WITH_VLLM, ModelOverride(), Runtime.VLLM, "runtime.3"),
        (_LLM, _BASIC, ModelOverride(), Runtime.PYTHON, "runtime.4"),
        (_LLM, Capabilities(backends=_WITH_VLLM.backends, vllm_enabled=False), ModelOverride(), Runtime.PYTHON, "runtime.4"),
        (profile(), _WITH_VLLM, ModelOverride(), Runtime.PYTHON, "runtime.4"),
        (_LLM, _WITH_VLLM, ModelOverride(runtime=Runtime.PYTHON), Runtime.PYTHON, "runtime.1"),
        (profile(), _BASIC, ModelOverride(runtime=Runtime.RAY), None, "runtime.1"),
        (profile(quantization="gptq"), _BASIC, ModelOverride(), None, "runtime.6"),
        (profile(), Capabilities(backends=frozenset()), ModelOverride(), None, "runtime.6"),
    ],
)
def test_the_runtime_by_the_first_rule_that_holds(
    model: ModelProfile, capabilities: Capabilities, override: ModelOverride, runtime: Runtime | None, rule: str
) -> None:
    choice = choose_runtime(model, capabilities, override)
    assert (choice.runtime, choice.rule) == (runtime, rule)


def test_the_reason_says_why_not_vllm() -> None:
    assert "this Triton has no vllm backend" in choose_runtime(_LLM, _BASIC).reason


def test_minilm_is_estimated_near_what_was_measured() -> None:
    minilm = profile(parameters=22_713_216, weight_bytes=90_852_864, max_length=256, embedding_width=384)
    assert 330 * MIB < estimate_footprint(minilm, Runtime.PYTHON, max_batch_size=32) < 600 * MIB  # measured: 313 to 420 MB


_ROWS = OnnxGraph(
    inputs=tuple(Tensor(name=name, datatype="INT64", dims=(-1, -1)) for name in ("input_ids", "attention_mask")),
    outputs=(Tensor(name="states", datatype="FP32", dims=(-1, -1, 384)),),
    dynamic_batch=True,
    opset=17,
)
_VECTOR = Tensor(name="x", datatype="FP32", dims=(-1, 4 * 4096))
_PICTURE = Tensor(name="x", datatype="FP32", dims=(-1, 3, 224, 224))


@pytest.mark.parametrize(
    ("weight_bytes", "graph", "measured"),
    [
        (90_354_353, _ROWS, 209),  # all-MiniLM-L6-v2 exported, asked for 8 x 128 tokens
        (498, replace(_ROWS, inputs=(_X,), outputs=(_X,)), 69),
    ],
)
def test_a_graph_is_estimated_within_15_percent_of_what_was_measured(
    weight_bytes: int, graph: OnnxGraph, measured: int
) -> None:
    bare = profile("o", task=Task.TENSORS, weight_bytes=weight_bytes, onnx=graph, library="onnx")
    found = estimate_footprint(bare, Runtime.ONNXRUNTIME, max_batch_size=32)
    assert found / MIB == pytest.approx(measured, rel=0.15)


def test_a_graph_that_takes_more_works_with_more() -> None:
    sizes = [
        estimate(profile("o", onnx=replace(_ROWS, inputs=(tensor,))), Runtime.ONNXRUNTIME, max_batch_size=32).activations
        for tensor in (_X, _VECTOR, _PICTURE)
    ]
    assert sizes == [16 * MIB, 32 * 4096 * 14 * 4 * 4, 256 * MIB]


def test_an_engines_processes_are_estimated_within_15_percent_of_what_was_measured() -> None:
    """Triton's stub and EngineCore of a model of 0.8 MB, without its cache of 64 MiB."""
    assert overhead(DeviceKind.HOST).bytes / MIB == pytest.approx(520 + 415, rel=0.15)


@pytest.mark.parametrize("model", [profile(parameters=10**7), _ONNX])
def test_a_nurserys_child_is_estimated_without_its_imports(model: ModelProfile) -> None:
    """On the host: a GPU shares nothing with a nursery."""
    alone, born = choose_runtime(model, _BASIC), choose_runtime(model, replace(_BASIC, nursery=True))
    assert (alone.born, born.born) == (False, True)
    runtime = born.runtime
    assert runtime is not None and runtime is alone.runtime
    less = SUPPORTS[runtime].process_bytes - (SUPPORTS[runtime].born_bytes or 0)
    for instances in (1, 3):
        imports, child = (estimate(model, runtime, instances=instances, born=is_born) for is_born in (False, True))
        assert replace(child, process=child.process + less * instances) == imports
    on_gpu = DeviceKind.CUDA
    assert estimate(model, runtime, device=on_gpu, born=True) == estimate(model, runtime, device=on_gpu)


@pytest.mark.parametrize("runtime", [Runtime.VLLM, Runtime.RAY])
def test_what_no_nursery_forks_is_estimated_as_ever(runtime: Runtime) -> None:
    assert SUPPORTS[runtime].born_bytes is None
    assert estimate(profile(), runtime, born=True) == estimate(profile(), runtime)


def test_what_was_measured_without_a_nursery_says_nothing_about_a_child_of_one() -> None:
    def placed_with(nursery: bool, device: Device) -> Placement:
        model = replace(wanted("m"), footprint=Footprint(estimated_bytes=1), learned=learned)
        seen = world(model, devices=(device,), capabilities=Capabilities(nursery=nursery))
        placement = next(each.placement for each in plan(seen).decisions if each.model == "m")
        assert placement is not None
        return placement

    learned: dict[str, int] = {}
    alone, born = placed_with(False, host()), placed_with(True, host())
    assert (alone.born, born.born) == (False, True)
    assert born.footprint.bytes < alone.footprint.bytes
    learned = {alone.manner: 700 * MIB, born.manner: 100 * MIB}
    assert (placed_with(False, host()).footprint.bytes, placed_with(True, host()).footprint.bytes) == (700 * MIB, 100 * MIB)
    assert placed_with(True, gpu()).manner == placed_with(False, gpu()).manner


def test_half_precision_weights_double_on_the_host_and_not_on_a_gpu() -> None:
    half = profile(parameters=10**9, weight_bytes=2 * 10**9, dtype="bfloat16")
    assert estimate(half, Runtime.PYTHON).weights == 4 * 10**9
    assert estimate(half, Runtime.PYTHON, device=DeviceKind.CUDA).weights == 2 * 10**9


def test_what_generates_keeps_the_keys_and_values_of_a_batch() -> None:
    found = estimate(_LLM, Runtime.PYTHON, max_batch_size=4)
    assert found.cache == 4 * 2048 * 2 * 4 * 128 * 4, "tokens, layers, heads, keys and values, float32"
    assert estimate(_LLM, Runtime.PYTHON, device=DeviceKind.CUDA, max_batch_size=4).cache == found.cache // 2
    assert "KV cache" in found.explain()
    assert estimate(profile(parameters=10**9), Runtime.PYTHON).cache == 0


@given(st.integers(0, 10**12), st.integers(1, 64), st.integers(1, 8))
def test_an_estimate_grows_with_the_model_and_its_instances(parameters: int, batch: int, instances: int) -> None:
    model = profile(parameters=parameters, weight_bytes=parameters * 4)
    one = estimate_footprint(model, Runtime.PYTHON, max_batch_size=batch)
    assert estimate_footprint(model, Runtime.PYTHON, max_batch_size=batch, instances=instances) == one * instances
    assert one > parameters * 4


def test_qps_and_idle_time_come_from_the_counters() -> None:
    window = use.start(100.0)
    for second, completed in ((110, 5), (120, 5), (130, 5)):
        window = use.observe(window, completed=completed, now=float(second))
    seen = use.usage(window, in_flight=0, now=130.0)
    assert (seen.qps, seen.last_used_at, seen.requests) == (5 / 30, 110.0, 5)


def test_a_reset_counter_is_not_negative_use() -> None:
    window = use.observe(use.start(0.0), completed=50, now=10.0)
    window = use.observe(window, completed=3, now=20.0)
    assert window.total == 53


def test_a_reload_keeps_the_total_and_starts_the_window_anew() -> None:
    window = use.observe(use.start(0.0), completed=50, now=10.0)
    window = use.observe(use.start(20.0, window), completed=2, now=30.0)
    assert window.total == 52
    assert use.usage(window, in_flight=0, now=30.0).qps == pytest.approx(0.2)


def test_old_use_leaves_the_window() -> None:
    window = use.observe(use.start(0.0), completed=600, now=10.0)
    for second in range(20, 200, 10):
        window = use.observe(window, completed=600, now=float(second))
    assert use.usage(window, in_flight=0, now=190.0).qps == 0.0
    assert len(window.readings) <= 8


def test_a_lease_in_flight_is_never_idle() -> None:
    window = use.start(0.0)
    assert use.usage(window, in_flight=1, now=500.0).idle_s(500.0) == 0.0
    assert use.usage(use.touch(window, 490.0), in_flight=0, now=500.0).idle_s(500.0) == 10.0


def test_the_gap_is_between_the_arrivals_of_requests_not_their_ends() -> None:
    """All that waited for one load end together: told by their ends, a model asked each two seconds is asked once a load."""
    window = use.start(0.0)
    for second in range(0, 60, 2):
        window = use.ask(window, float(second))
    for _ in range(30):
        window = use.touch(window, 61.0)
    assert use.usage(window, in_flight=0, now=61.0).gap_s == pytest.approx(2.0)
    own = use.observe(window, completed=30, now=62.0)
    assert own.gap_s == window.gap_s, "these were the leases'"
    assert use.observe(own, completed=31, now=72.0).asked_at == 72.0, "somebody asked Triton itself"


@pytest.mark.parametrize(("answer_s", "think_s", "gap_s"), [(0.2, 0.05, 1.0), (0.2, 2.0, 2.0), (5.0, 2.0, 2.0)])
def test_what_a_client_waits_for_is_no_gap(answer_s: float, think_s: float, gap_s: float) -> None:
    """A client that asks again when it has its answer is as eager behind a load of a minute as without."""
    window, now = use.start(0.0), 0.0
    for number in range(60):
        window = use.ask(window, now)
        if number % 20 == 0:
            now += 60.0  # a load
            window = use.start(now, window)
        now += answer_s
        window = use.touch(window, now)
        now += think_s
    assert use.usage(window, in_flight=0, now=now).gap_s == pytest.approx(gap_s)


def test_a_page_that_asks_for_ten_things_an_hour_visits_once_an_hour() -> None:
    window = use.start(0.0)
    for second in range(0, 5 * 3600, 3600):
        for number in range(10):
            window = use.touch(use.ask(window, second + number / 100), second + number / 100)
    assert use.usage(window, in_flight=0, now=5 * 3600.0).gap_s == pytest.approx(3600, rel=0.01)


@given(st.lists(st.integers(0, 1000), max_size=40))
def test_the_total_never_falls(readings: list[int]) -> None:
    window, now = use.start(0.0), 0.0
    for completed in readings:
        now += 10.0
        after = use.observe(window, completed=completed, now=now)
        assert after.total >= window.total
        window = after

"""What goes to Ray, how a replica serves it, and in which words it is refused where Ray is not there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelium.brain.runtimes.choice import choose_ray, choose_runtime
from modelium.brain.runtimes.ray import ENABLE, find_obstacle, way_of
from modelium.values import (
    Capabilities,
    ModelOverride,
    ModelProfile,
    OnnxGraph,
    RayWay,
    Runtime,
    Task,
    Tensor,
    WeightFormat,
)
from tests.unit.brain.clusters import APP, IRIS, PACKAGES, WITH_RAY
from tests.unit.brain.languages import FULL, group, language, llm
from tests.unit.brain.worlds import profile

BOOSTED = replace(IRIS, library="xgboost", weight_format=WeightFormat.XGBOOST)
LEAVES = replace(IRIS, library="lightgbm", weight_format=WeightFormat.LIGHTGBM)
PICKLED = replace(IRIS, weight_format=WeightFormat.JOBLIB)
RERANKER = profile("reranker", task=Task.TEXT_RANKING, architecture="Qwen3ForCausalLM")
HEADED = profile("headed", task=Task.TEXT_RANKING)
PAINTER = replace(profile("painter", task=Task.TEXT_TO_IMAGE), library="diffusers", architecture="StableDiffusionPipeline")
LLAMA = llm("llama", 10**8, language(group(FULL, 2, 4, 64)))
MINILM = profile("minilm")
_X = Tensor(name="x", datatype="FP32", dims=(-1, 4))
GRAPH = profile("graph", task=Task.TENSORS, onnx=OnnxGraph(inputs=(_X,), outputs=(_X,), dynamic_batch=True, opset=17))
OFF = replace(WITH_RAY, ray_enabled=False)
BY_HAND = ModelOverride(runtime=Runtime.RAY)


@pytest.mark.parametrize(
    ("model", "way", "words"),
    [
        (APP, RayWay.APP, "an application of Ray Serve"),
        (IRIS, RayWay.SKLEARN, "scikit-learn"),
        (PICKLED, RayWay.SKLEARN, "scikit-learn"),
        (BOOSTED, RayWay.XGBOOST, "XGBoost"),
        (LEAVES, RayWay.LIGHTGBM, "LightGBM"),
        (RERANKER, RayWay.CROSS_ENCODER, "CrossEncoder"),
    ],
)
def test_what_only_ray_serves_goes_there_by_itself(model: ModelProfile, way: RayWay, words: str) -> None:
    choice = choose_runtime(model, WITH_RAY)
    assert (choice.runtime, choice.rule, choice.engine) == (Runtime.RAY, "runtime.5", False)
    assert way_of(model, WITH_RAY) is way and words in choice.reason


def test_a_ranker_that_classifies_needs_no_ray_and_may_have_it() -> None:
    assert choose_runtime(HEADED, OFF).runtime is Runtime.PYTHON is choose_runtime(HEADED, WITH_RAY).runtime
    by_hand = choose_runtime(HEADED, WITH_RAY, BY_HAND)
    assert by_hand.runtime is Runtime.RAY and way_of(HEADED, WITH_RAY, by_hand=True) is RayWay.CROSS_ENCODER


@pytest.mark.parametrize("model", [APP, IRIS, BOOSTED, LEAVES, RERANKER, PAINTER])
def test_without_ray_enabled_such_a_model_is_refused_with_that_very_hint(model: ModelProfile) -> None:
    choice = choose_runtime(model, OFF)
    assert (choice.runtime, choice.rule) == (None, "runtime.6")
    assert ENABLE in choice.reason and "ray: {enabled: true}" in choice.reason


@pytest.mark.parametrize(
    ("capabilities", "model", "words"),
    [
        (replace(WITH_RAY, backends=frozenset({"python"})), IRIS, "the model runtime has no Ray: `modelium runtime install"),
        (replace(WITH_RAY, backends=frozenset({"python"}), ray_missing="Ray 2.60.0 without Serve"), IRIS, "without Serve"),
        (replace(WITH_RAY, ray_packages=PACKAGES - {"scikit-learn"}), IRIS, "no scikit-learn: `modelium runtime install"),
        (replace(WITH_RAY, ray_packages=PACKAGES - {"skops"}), IRIS, "no skops"),
        (replace(WITH_RAY, ray_packages=PACKAGES - {"xgboost-cpu"}), BOOSTED, "no xgboost"),
        (replace(WITH_RAY, ray_packages=PACKAGES - {"lightgbm"}), LEAVES, "no lightgbm"),
        (WITH_RAY, PAINTER, "no diffusers: `uv pip install diffusers`"),
    ],
)
def test_what_the_model_runtime_lacks_is_said_before_a_load_is_tried(
    capabilities: Capabilities, model: ModelProfile, words: str
) -> None:
    choice = choose_runtime(model, capabilities)
    assert choice.runtime is None and words in choice.reason


def test_either_package_of_xgboost_will_do_and_a_runtime_elsewhere_is_not_asked() -> None:
    both = PACKAGES - {"xgboost-cpu"} | {"xgboost"}
    assert choose_runtime(BOOSTED, replace(WITH_RAY, ray_packages=both)).runtime is Runtime.RAY
    assert choose_runtime(PAINTER, replace(WITH_RAY, ray_packages=None)).runtime is Runtime.RAY


@pytest.mark.parametrize(
    ("model", "way", "engine"),
    [
        (LLAMA, RayWay.ENGINE, True),
        (MINILM, RayWay.TASK, False),
        (replace(LLAMA, architecture="FooForCausalLM"), RayWay.TASK, False),
    ],
)
def test_runtime_ray_by_hand_runs_what_would_have_served_it_otherwise(model: ModelProfile, way: RayWay, engine: bool) -> None:
    choice = choose_runtime(model, WITH_RAY, BY_HAND)
    assert (choice.runtime, choice.rule, choice.engine) == (Runtime.RAY, "runtime.1", engine)
    assert way_of(model, WITH_RAY, by_hand=True) is way
    assert choose_runtime(model, WITH_RAY).runtime is not Runtime.RAY


@pytest.mark.parametrize(
    ("model", "capabilities", "words"),
    [
        (GRAPH, WITH_RAY, "an ONNX graph is served by onnxruntime"),
        (MINILM, OFF, "ray.enabled is false"),
        (profile(quantization="gptq"), WITH_RAY, "gptq"),
    ],
)
def test_runtime_ray_by_hand_that_cannot_be_says_why(model: ModelProfile, capabilities: Capabilities, words: str) -> None:
    choice = choose_runtime(model, capabilities, BY_HAND)
    assert choice.runtime is None and words in choice.reason


def test_ray_is_offered_for_what_is_too_big_here_only_where_it_could_serve_it() -> None:
    found = choose_ray(LLAMA, WITH_RAY, "larger than any device of this machine")
    assert found is not None and (found.runtime, found.rule, found.engine) == (Runtime.RAY, "runtime.7", True)
    assert "larger than any device" in found.reason
    assert choose_ray(GRAPH, WITH_RAY, "…") is None and choose_ray(LLAMA, OFF, "…") is None


@pytest.mark.parametrize("model", [APP, IRIS, BOOSTED, LEAVES, RERANKER, PAINTER, LLAMA, MINILM, GRAPH, HEADED])
def test_an_obstacle_is_named_exactly_where_ray_is_not_chosen(model: ModelProfile) -> None:
    for capabilities in (WITH_RAY, OFF, Capabilities(), replace(WITH_RAY, ray_packages=frozenset())):
        by_hand = choose_runtime(model, capabilities, BY_HAND)
        assert (by_hand.runtime is Runtime.RAY) == (not find_obstacle(model, capabilities, by_hand=True))

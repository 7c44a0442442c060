"""Where Ray's models go: on this machine as all others, on a cluster by what its nodes have."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.placement.cluster import GPUS, HOSTS, cluster_devices
from modelium.brain.placement.on_ray import places_on_ray, stage_of
from modelium.brain.placement.rooms import Room
from modelium.values import (
    Device,
    Footprint,
    ModelOverride,
    ModelProfile,
    Placement,
    Policies,
    Ray,
    RayOptions,
    RayWay,
    Runtime,
)
from tests.unit.brain.clusters import APP, HERE, IRIS, cluster, node
from tests.unit.brain.languages import FULL, accelerator, group, language, llm
from tests.unit.brain.worlds import GIB, gpu, host, wanted

SMALL = llm("small", 10**8, language(group(FULL, 4, 4, 64)))
# 40 billion parameters in 80 layers: 75 GiB of weights.
HUGE = llm("huge", 40 * 10**9, language(group(FULL, 80, 8, 128), heads=64, hidden_size=8192, vocabulary=32_000))


def placements(
    profile: ModelProfile,
    ray: Ray,
    *,
    here: tuple[Device, ...] = (),
    override: ModelOverride | None = None,
    policies: Policies | None = None,
    measured: int | None = None,
) -> list[Placement]:
    devices = (*(here or (host(),)), *cluster_devices(ray))
    view = wanted(profile.name, profile=profile, footprint=Footprint(estimated_bytes=GIB, measured_bytes=measured))
    found = places_on_ray(
        view,
        profile,
        [Room(device=device) for device in devices],
        override or ModelOverride(),
        policies or Policies(),
        ray,
        way=RayWay.ENGINE if profile.language is not None else RayWay.TASK,
    )
    return [placement for _, placement in found]


# -- on this machine ---------------------------------------------------------------------------------------------------


def test_here_it_is_placed_like_every_other_model_and_asks_ray_for_nothing() -> None:
    (place,) = placements(IRIS, HERE)
    assert (place.runtime, place.device_id, place.max_batch_size) == (Runtime.RAY, "host", 1024)
    assert place.replicas is not None
    (bundle,) = place.replicas.bundles
    assert (bundle.cpus, bundle.gpus, bundle.memory_bytes, place.replicas.maximum) == (0, 0, 0, 1)


def test_here_replicas_are_pinned_to_the_gpu_that_was_chosen_for_them() -> None:
    best, *_ = placements(IRIS, HERE, here=(gpu(0, used=20 * GIB), gpu(1), host()))
    assert best.device_id == "cuda:1" and best.replicas is not None and best.replicas.visible_devices == "1"


def test_here_an_engine_is_planned_as_in_triton() -> None:
    (place,) = placements(SMALL, HERE, here=(accelerator(0),))
    assert place.runtime is Runtime.RAY and place.engine is not None and place.by_vllm and place.max_batch_size == 0
    assert place.footprint.bytes == place.engine.total_bytes


def test_what_all_replicas_take_is_promised() -> None:
    (one,) = placements(IRIS, HERE)
    (four,) = placements(IRIS, HERE, override=ModelOverride(ray=RayOptions(max_replicas=4)))
    assert four.replicas is not None and (four.replicas.minimum, four.replicas.maximum) == (1, 4)
    assert four.footprint.bytes == 4 * one.footprint.bytes


def test_a_measurement_counts_where_the_number_of_replicas_is_fixed() -> None:
    fixed = ModelOverride(ray=RayOptions(min_replicas=2, max_replicas=2))
    (place,) = placements(IRIS, HERE, override=fixed, measured=123)
    assert place.footprint.bytes == 123
    (scaling,) = placements(IRIS, HERE, override=ModelOverride(ray=RayOptions(max_replicas=2)), measured=123)
    assert scaling.footprint.bytes != 123


def test_what_is_said_of_one_model_wins_over_what_is_said_of_all() -> None:
    policies = Policies(ray=RayOptions(min_replicas=0, max_replicas=2, target_ongoing_requests=5.0, cpus_per_replica=1.0))
    (place,) = placements(IRIS, HERE, policies=policies, override=ModelOverride(ray=RayOptions(max_replicas=3)))
    assert place.replicas is not None
    assert (place.replicas.minimum, place.replicas.maximum, place.replicas.target_ongoing_requests) == (0, 3, 5.0)
    assert place.replicas.bundles[0].cpus == 1.0


def test_a_minimum_above_one_is_a_maximum_as_well() -> None:
    (place,) = placements(IRIS, HERE, override=ModelOverride(ray=RayOptions(min_replicas=3)))
    assert place.replicas is not None and (place.replicas.minimum, place.replicas.maximum) == (3, 3)


def test_a_maximum_of_one_model_is_below_the_minimum_of_all() -> None:
    policies = Policies(ray=RayOptions(min_replicas=5))
    (place,) = placements(IRIS, HERE, policies=policies, override=ModelOverride(ray=RayOptions(max_replicas=2)))
    assert place.replicas is not None and place.replicas.maximum == 2


def test_an_application_has_no_batches() -> None:
    (place,) = placements(APP, HERE)
    assert place.max_batch_size == 0 and place.instance_count == 1


# -- on a cluster ------------------------------------------------------------------------------------------------------


def test_on_a_cluster_its_gpus_come_first_then_its_memory() -> None:
    ray = cluster(node("a", gpus=1), node("b"))
    found = placements(IRIS, ray)
    assert [place.device_id for place in found] == [GPUS, HOSTS]
    on_gpu, in_memory = (place.replicas for place in found)
    assert on_gpu is not None and in_memory is not None
    assert 0 < on_gpu.bundles[0].gpus < 0.1 and on_gpu.bundles[0].cpus == 1
    assert in_memory.bundles[0].gpus == 0 and in_memory.bundles[0].memory_bytes == found[1].footprint.bytes


def test_on_a_cluster_a_device_is_chosen_by_its_name() -> None:
    ray = cluster(node("a", gpus=1))
    (place,) = placements(IRIS, ray, override=ModelOverride(device=HOSTS))
    assert place.device_id == HOSTS
    assert placements(IRIS, ray, override=ModelOverride(device="cuda:0")) == []


def test_a_model_that_no_single_node_can_hold_has_no_place() -> None:
    override = ModelOverride(memory_bytes=100 * GIB)
    assert placements(IRIS, cluster(node("a", gib=64), node("b", gib=64)), override=override) == []
    (place,) = placements(IRIS, cluster(node("a", gib=64), node("b", gib=128)), override=override)
    assert place.footprint.bytes == 100 * GIB


def test_a_small_engine_takes_a_share_of_one_gpu() -> None:
    place = placements(SMALL, cluster(node("a", gpus=4)))[0]
    assert place.device_id == GPUS and place.replicas is not None and place.engine is not None
    (bundle,) = place.replicas.bundles
    assert 0 < bundle.gpus <= 0.2 and "tensor_parallel_size" not in place.engine.engine_args
    assert "distributed_executor_backend" not in place.engine.engine_args


def test_an_engine_too_big_for_a_gpu_takes_several_of_one_node() -> None:
    place = placements(HUGE, cluster(node("a", gpus=4, gpu_gib=48), node("b", gpus=1, gpu_gib=48)))[0]
    assert place.engine is not None and place.replicas is not None
    args = place.engine.engine_args
    assert (args["tensor_parallel_size"], args["distributed_executor_backend"]) == (2, "ray")
    assert "pipeline_parallel_size" not in args
    assert [bundle.gpus for bundle in place.replicas.bundles] == [1, 1]
    assert place.devices == (GPUS,)


def test_an_engine_too_big_for_a_node_becomes_a_pipeline_over_several() -> None:
    ray = cluster(*(node(name, gpus=1, gpu_gib=48) for name in "abcd"))
    place = placements(HUGE, ray)[0]
    assert place.engine is not None and place.replicas is not None
    args = place.engine.engine_args
    assert (args["pipeline_parallel_size"], args["distributed_executor_backend"]) == (2, "ray")
    assert "tensor_parallel_size" not in args and len(place.replicas.bundles) == 2
    per_node = place.footprint.bytes / len(place.replicas.bundles)
    assert per_node <= 48 * GIB and place.footprint.bytes > HUGE.weight_bytes


def test_a_pipeline_rather_than_a_short_context() -> None:
    spoken = HUGE.language
    assert spoken is not None
    long = replace(HUGE, language=replace(spoken, context_length=131_072))
    for nodes, stages in (("a", 1), ("ab", 2)):
        place = placements(long, cluster(*(node(name, gpus=1, gpu_gib=96) for name in nodes)))[0]
        assert place.engine is not None and place.engine.engine_args.get("pipeline_parallel_size", 1) == stages
        assert place.engine.is_shortened is (stages == 1)


def test_one_gpu_is_no_place_for_what_is_twice_its_size() -> None:
    assert all(place.device_id == HOSTS for place in placements(HUGE, cluster(node("a", gpus=1, gpu_gib=24, gib=256))))


@given(st.integers(1, 8))
def test_the_stages_of_a_pipeline_together_are_at_least_the_model(stages: int) -> None:
    assert HUGE.language is not None
    stage = stage_of(HUGE, HUGE.language, stages)
    assert stage.language is not None
    assert stage.parameters * stages >= HUGE.parameters and stage.language.layers * stages >= HUGE.language.layers
    assert stage.parameters <= HUGE.parameters
    vocabulary = HUGE.language.vocabulary * HUGE.language.hidden_size
    assert stage.parameters <= HUGE.parameters / stages + vocabulary + 1


@pytest.mark.parametrize("profile", [IRIS, SMALL])
def test_nothing_is_placed_beyond_a_budget(profile: ModelProfile) -> None:
    for place in placements(
        profile, cluster(node("a", gpus=1, gpu_gib=1, gib=1)), override=ModelOverride(memory_bytes=3 * GIB)
    ):
        assert place.footprint.bytes <= GIB


def test_a_replica_of_its_own_says_what_it_wants_of_a_gpu() -> None:
    override = replace(ModelOverride(), ray=RayOptions(gpus_per_replica=2, cpus_per_replica=4))
    place = placements(IRIS, cluster(node("a", gpus=4)), override=override)[0]
    assert place.replicas is not None
    assert (place.replicas.bundles[0].gpus, place.replicas.bundles[0].cpus) == (2, 4)

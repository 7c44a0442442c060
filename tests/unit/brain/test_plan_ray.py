"""The plan where Ray serves: what waits for Ray, what goes to a cluster because it is too big here, who leaves its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.placement.cluster import GPUS, HOSTS
from modelium.brain.plan import plan
from modelium.brain.runtimes.ray import ENABLE
from modelium.values import (
    Bundle,
    Decision,
    Demand,
    DeviceKind,
    Footprint,
    ModelOverride,
    ModelProfile,
    ModelView,
    Observed,
    Placement,
    Ray,
    RayOptions,
    RayState,
    Replicas,
    Runtime,
    State,
    Usage,
    Verb,
)
from tests.unit.brain.clusters import APP, HERE, IRIS, WITH_RAY, cluster, node, world_with
from tests.unit.brain.languages import LLAMA_8B, LLAMA_70B
from tests.unit.brain.worlds import GIB, NOW, loaded, wanted

OFF = replace(WITH_RAY, ray_enabled=False)
CRASHED = Ray(state=RayState.DOWN, detail="its head has crashed", here=False)
WHOLE = Bundle(cpus=1, gpus=1)
ON_GPU = ModelOverride(device=GPUS, ray=RayOptions(gpus_per_replica=1))


def forest(name: str = "new", demand: Demand = Demand.REQUEST, profile: ModelProfile = IRIS, **changes: object) -> ModelView:
    view = wanted(name, demand=demand, profile=replace(profile, name=name), footprint=Footprint(estimated_bytes=0))
    return replace(view, **changes)  # type: ignore[arg-type]


def served(name: str, *bundles: Bundle, idle_s: float = 400.0, size: int = GIB, **changes: object) -> ModelView:
    """A model of Ray's on a GPU of the cluster."""
    place = Placement(
        runtime=Runtime.RAY,
        device_id=GPUS,
        device_kind=DeviceKind.CUDA,
        device_index=-1,
        footprint=Footprint(estimated_bytes=size),
        max_batch_size=8,
        replicas=Replicas(bundles=bundles or (WHOLE,)),
    )
    view = loaded(name, size, idle_s=idle_s, placement=place, profile=replace(IRIS, name=name))
    return replace(view, **changes)  # type: ignore[arg-type]


def decided(observed: Observed) -> dict[str, Decision]:
    return {decision.model: decision for decision in plan(observed).decisions}


def only(observed: Observed) -> Decision:
    (decision,) = plan(observed).decisions
    return decision


# -- whether there is a Ray --------------------------------------------------------------------------------------------


def test_what_ray_serves_waits_while_ray_is_down_and_the_rest_does_not() -> None:
    made = decided(world_with(CRASHED, forest("iris"), wanted("bert")))
    assert (made["iris"].verb, made["iris"].rule) == (Verb.WAIT, "plan.1")
    assert made["iris"].reason == "Ray is down: its head has crashed; it is loaded when Ray is back"
    assert made["bert"].verb is Verb.LOAD


def test_what_is_too_big_here_waits_for_the_cluster_that_would_hold_it() -> None:
    made = only(world_with(CRASHED, wanted("llama-8b", profile=LLAMA_8B)))
    assert (made.verb, made.rule) == (Verb.WAIT, "plan.1")


@pytest.mark.parametrize("model", [IRIS, APP])
def test_a_ray_that_sleeps_is_no_reason_to_wait(model: ModelProfile) -> None:
    made = only(world_with(HERE, forest(profile=model)))
    assert (made.verb, made.rule) == (Verb.LOAD, "plan.3") and made.placement is not None
    assert (made.placement.runtime, made.placement.device_id) == (Runtime.RAY, "host")


@pytest.mark.parametrize("model", [IRIS, APP])
def test_without_ray_enabled_what_only_ray_serves_is_refused_with_that_hint(model: ModelProfile) -> None:
    made = only(world_with(Ray(), forest(profile=model), capabilities=OFF))
    assert (made.verb, made.rule) == (Verb.REFUSE, "runtime.6") and ENABLE in made.reason


def test_without_ray_enabled_a_choice_by_hand_is_refused_with_that_hint_too() -> None:
    by_hand = {"m": ModelOverride(runtime=Runtime.RAY)}
    made = only(world_with(Ray(), wanted("m"), capabilities=OFF, overrides=by_hand))
    assert (made.verb, made.rule) == (Verb.REFUSE, "runtime.1") and "ray: {enabled: true}" in made.reason


# -- what is too big here ----------------------------------------------------------------------------------------------


def test_a_model_too_big_for_this_machine_goes_to_the_cluster() -> None:
    ray = cluster(node("a", gpus=1), node("b"))
    large = {"m": ModelOverride(memory_bytes=20 * GIB)}
    made = only(world_with(ray, wanted("m"), overrides=large))
    assert made.verb is Verb.LOAD and "larger than any device of this machine" in made.reason
    assert made.placement is not None and (made.placement.runtime, made.placement.device_id) == (Runtime.RAY, GPUS)
    small = only(world_with(ray, wanted("m")))
    assert small.placement is not None and (small.placement.runtime, small.placement.device_id) == (Runtime.PYTHON, "host")


def test_a_language_model_too_big_for_any_gpu_spreads_over_those_of_the_cluster() -> None:
    ray = cluster(*(node(name, gpus=2, gib=256) for name in "ab"))
    made = only(world_with(ray, wanted("llama-70b", profile=LLAMA_70B)))
    assert made.verb is Verb.LOAD and made.placement is not None and made.placement.engine is not None
    assert made.placement.replicas is not None and {bundle.gpus for bundle in made.placement.replicas.bundles} == {1.0}
    assert len(made.placement.replicas.bundles) > 1 and "KV cache" in made.reason


def test_what_a_machine_cannot_hold_is_refused_and_what_a_cluster_cannot_hold_waits_for_it_to_grow() -> None:
    huge = {"m": ModelOverride(memory_bytes=200 * GIB)}
    there = only(world_with(cluster(node("a", gpus=1)), wanted("m"), overrides=huge))
    assert (there.verb, there.rule) == (Verb.WAIT, "plan.2")
    assert there.reason.startswith("too big for any node of the Ray cluster: Ray cluster, 1 node (64.0 GiB)")
    here = only(world_with(HERE, wanted("m"), overrides=huge))
    assert (here.verb, here.rule) == (Verb.REFUSE, "plan.2") and "200.0 GiB on host (budget 8.0 GiB)" in here.reason


def test_a_choice_of_runtime_by_hand_keeps_a_model_on_this_machine() -> None:
    by_hand = {"m": ModelOverride(memory_bytes=20 * GIB, runtime=Runtime.PYTHON)}
    assert only(world_with(cluster(node("a", gpus=1)), wanted("m"), overrides=by_hand)).verb is Verb.REFUSE


# -- when the nodes are full -------------------------------------------------------------------------------------------


def test_nodes_without_room_have_idle_models_evicted_with_that_reason() -> None:
    ray = cluster(node("a", gpus=1, held={"old": (WHOLE,)}))
    made = decided(world_with(ray, served("old"), forest("new"), overrides={"new": ON_GPU}))
    assert (made["old"].verb, made["old"].rule) == (Verb.UNLOAD, "evict.6")
    assert (made["new"].verb, made["new"].rule) == (Verb.WAIT, "plan.5")
    for each in made.values():
        assert "Ray's nodes have no room for 1 CPU, 1 GPU" in each.reason


def test_as_many_go_as_have_to_and_none_where_that_would_not_do() -> None:
    nodes = [node(name, gpus=1, held={name: (WHOLE,)}) for name in "xy"]
    models = (served("x", idle_s=500), served("y"), forest("new"))
    pair = replace(ON_GPU, ray=RayOptions(gpus_per_replica=1, min_replicas=2))
    made = decided(world_with(cluster(*nodes), *models, overrides={"new": ON_GPU}))
    assert [name for name, each in made.items() if each.verb is Verb.UNLOAD] == ["x"], "the longest unused"
    made = decided(world_with(cluster(*nodes), *models, overrides={"new": pair}))
    assert {name for name, each in made.items() if each.verb is Verb.UNLOAD} == {"x", "y"}
    assert "2 × (1 CPU, 1 GPU)" in made["new"].reason
    made = decided(world_with(cluster(nodes[0]), models[0], models[2], overrides={"new": pair}))
    assert made.keys() == {"new"} and (made["new"].verb, made["new"].rule) == (Verb.WAIT, "plan.6")


def test_where_nothing_may_go_it_says_who_is_there() -> None:
    ray = cluster(node("a", gpus=1, held={"busy": (WHOLE,)}))
    made = only(world_with(ray, served("busy", usage=Usage(in_flight=1)), forest("new"), overrides={"new": ON_GPU}))
    assert (made.verb, made.rule) == (Verb.WAIT, "plan.6")
    assert "nothing there may be evicted: busy kept: 1 requests in flight" in made.reason


def test_a_discovery_pushes_nobody_off_a_node() -> None:
    ray = cluster(node("a", gpus=1, held={"old": (WHOLE,)}))
    made = only(world_with(ray, served("old"), forest("new", Demand.DISCOVERY), overrides={"new": ON_GPU}))
    assert (made.verb, made.rule) == (Verb.WAIT, "plan.4") and "it is loaded when somebody asks for it" in made.reason


@pytest.mark.parametrize("state", [State.DRAINING, State.UNLOADING])
def test_room_on_a_node_that_is_on_its_way_back_is_waited_for_without_a_second_victim(state: State) -> None:
    """As on this machine (test_plan.py); else every pass until the first is gone costs another model."""
    ray = cluster(*(node(name, gpus=1, held={name: (WHOLE,)}) for name in ("leaving", "idle")))
    made = decided(world_with(ray, served("leaving", state=state), served("idle"), forest("new"), overrides={"new": ON_GPU}))
    assert made.keys() == {"new"} and (made["new"].verb, made["new"].rule) == (Verb.WAIT, "plan.5")


# -- nothing is promised twice -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [GPUS, HOSTS])
def test_of_two_that_want_the_same_room_the_second_waits(device: str) -> None:
    ray = cluster(node("a", gpus=1, cpus=1.5))
    same = dict.fromkeys(("first", "second"), replace(ON_GPU, device=device))
    made = decided(world_with(ray, forest("second"), forest("first", demand_since=NOW - 5), overrides=same))
    assert (made["first"].verb, made["second"].verb) == (Verb.LOAD, Verb.WAIT)
    assert "Ray's nodes have no room for 1 CPU, 1 GPU" in made["second"].reason


def test_what_loads_has_its_room_before_ray_knows_of_it() -> None:
    ray = cluster(node("a", gpus=1))
    for there in (served("there", state=State.LOADING), served("there", idle_s=0)):
        made = only(world_with(ray, there, forest("new"), overrides={"new": ON_GPU}))
        assert made.verb is Verb.WAIT and "Ray's nodes have no room" in made.reason


def test_shares_of_a_small_gpu_are_not_those_of_a_large_one() -> None:
    """20 GiB are a quarter of 80, and nearly all of 24: Ray puts them where it likes."""
    ray = cluster(node("small", gpus=1, gpu_gib=24), node("large", gpus=1, gpu_gib=80))
    made = only(world_with(ray, forest(), overrides={"new": ModelOverride(device=GPUS, memory_bytes=20 * GIB)}))
    assert made.placement is not None and made.placement.replicas is not None
    (bundle,) = made.placement.replicas.bundles
    assert int(1 / bundle.gpus) * 20 * GIB <= 24 * GIB


_nodes = st.lists(
    st.builds(node, st.just("n"), gpus=st.integers(0, 2), cpus=st.sampled_from([2.0, 4.0]), gib=st.sampled_from([8, 16])),
    min_size=1,
    max_size=3,
)
_overrides = st.builds(
    lambda device, memory, **asked: ModelOverride(device=device, memory_bytes=memory, ray=RayOptions(**asked)),
    st.sampled_from([None, HOSTS, GPUS]),
    st.sampled_from([GIB, 6 * GIB]),
    gpus_per_replica=st.sampled_from([None, 0.5, 1]),
    cpus_per_replica=st.sampled_from([None, 0.0, 2.0]),
    min_replicas=st.sampled_from([None, 0, 2]),
)


@given(_nodes, st.lists(_overrides, min_size=1, max_size=4))
def test_whatever_is_loaded_finds_its_room_on_the_nodes(nodes: list[object], asked: list[ModelOverride]) -> None:
    """Pass after pass, while Ray still says what it said before the first."""
    ray = cluster(*nodes)  # type: ignore[arg-type]
    overrides = {f"m{number}": each for number, each in enumerate(asked)}
    views = {name: forest(name) for name in overrides}
    for _ in overrides:
        for decision in plan(world_with(ray, *views.values(), overrides=overrides)).actions:
            assert decision.verb is Verb.LOAD and decision.placement is not None
            held = {"placement": decision.placement, "bytes_held": decision.placement.footprint.bytes}
            views[decision.model] = replace(views[decision.model], state=State.LOADED, loaded_at=NOW, **held)  # type: ignore[arg-type]
    there = [view.placement.replicas for view in views.values() if view.placement is not None]
    bundles = [bundle for each in there if each is not None for bundle in each.bundles * max(1, each.minimum)]
    assert finds_room([each.total for each in ray.nodes], sorted(bundles, key=lambda bundle: -bundle.gpus))
    for device in (GPUS, HOSTS):
        held_there = sum(view.bytes_held for view in views.values() if view.placement and view.placement.device_id == device)
        budget = next((each.budget_bytes for each in world_with(ray).fleet.devices if each.id == device), 0)
        assert held_there <= budget


def finds_room(left: Sequence[Bundle], bundles: Sequence[Bundle]) -> bool:
    """By trying every node for every bundle."""
    if not bundles:
        return True
    first, *rest = bundles
    for number, each in enumerate(left):
        after = Bundle(
            cpus=each.cpus - first.cpus, gpus=each.gpus - first.gpus, memory_bytes=each.memory_bytes - first.memory_bytes
        )
        if min(after.cpus, after.gpus, after.memory_bytes) >= -1e-6:
            remaining = [*left[:number], after, *left[number + 1 :]]
            if finds_room(remaining, rest):
                return True
    return False

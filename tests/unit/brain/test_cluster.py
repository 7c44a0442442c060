"""A Ray cluster as devices, and what finds room on its nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.placement.cluster import ClusterRoom, cluster_devices
from modelium.values import Bundle, DeviceKind, ModelView, Placement, Ray, RayState, Replicas, Runtime, State
from tests.unit.brain.clusters import HERE, cluster, node
from tests.unit.brain.worlds import GIB, host, loaded, placed


def asking(*bundles: Bundle, count: int = 1) -> Replicas:
    return Replicas(minimum=count, maximum=count, bundles=bundles)


def served(name: str, replicas: Replicas, state: State = State.LOADED) -> ModelView:
    place: Placement = replace(placed(GIB, host(), Runtime.RAY), replicas=replicas)
    return loaded(name, GIB, state=state, placement=place)


HALF = Bundle(cpus=1, gpus=0.5)
WHOLE = Bundle(cpus=1, gpus=1)


def test_a_cluster_is_one_device_of_memory_and_one_of_gpus() -> None:
    nodes = (node("a", gpus=2, gpu_gib=80, gib=64), node("b", gpus=1, gpu_gib=40, gib=32), node("c", gib=16))
    memory, gpus = cluster_devices(cluster(*nodes), gpu_memory_fraction=0.5)
    assert (memory.id, memory.kind, memory.total_bytes, memory.cluster) == ("ray", DeviceKind.HOST, 112 * GIB, True)
    assert (gpus.id, gpus.total_bytes, gpus.budget_bytes) == ("ray:cuda", 200 * GIB, 100 * GIB)
    assert memory.budget_bytes == memory.total_bytes and "3 GPUs on 3 nodes" in gpus.name


@pytest.mark.parametrize("ray", [HERE, Ray(), Ray(state=RayState.DOWN, here=False), replace(cluster(node("a")), here=True)])
def test_a_ray_that_is_down_or_is_this_machine_adds_no_device(ray: Ray) -> None:
    assert cluster_devices(ray) == ()


def test_nodes_without_gpus_add_no_device_of_gpus() -> None:
    assert [device.id for device in cluster_devices(cluster(node("a")))] == ["ray"]


def test_a_replica_needs_its_share_on_one_node() -> None:
    room = ClusterRoom(cluster(node("a", gpus=1), node("b", gpus=1)))
    assert room.fits(asking(Bundle(gpus=1), count=2))
    assert not room.fits(asking(Bundle(gpus=2)))  # there are two, but not together
    assert not room.fits(asking(Bundle(cpus=17)))
    assert not room.fits(asking(Bundle(memory_bytes=65 * GIB)))
    assert room.fits(asking(Bundle(memory_bytes=64 * GIB), count=2))


def test_shares_of_one_gpu_add_up_to_one() -> None:
    room = ClusterRoom(cluster(node("a", gpus=1)))
    room.take(asking(HALF))
    assert room.fits(asking(HALF)) and not room.fits(asking(WHOLE))
    room.take(asking(HALF))
    assert not room.fits(asking(HALF))


def test_what_is_left_of_several_gpus_is_no_gpu() -> None:
    room = ClusterRoom(cluster(node("a", gpus=2)))
    room.take(asking(Bundle(gpus=0.6), count=2))
    assert not room.fits(asking(Bundle(gpus=0.8)))


def test_what_ray_does_not_show_of_a_model_yet_is_promised_all_the_same() -> None:
    ray = cluster(node("a", gpus=1))
    assert not ClusterRoom(ray, [served("loading", asking(WHOLE), State.LOADING)]).fits(asking(WHOLE))
    assert not ClusterRoom(ray, [served("loaded", asking(WHOLE))]).fits(asking(WHOLE))


@pytest.mark.parametrize("state", [State.LOADING, State.LOADED])
def test_what_ray_shows_of_a_model_is_not_taken_a_second_time(state: State) -> None:
    ray = cluster(node("a", gpus=2, held={"one": (WHOLE,)}))
    assert ClusterRoom(ray, [served("one", asking(WHOLE), state)]).fits(asking(WHOLE))
    # Of its two replicas it shows one: the other will come.
    assert not ClusterRoom(ray, [served("one", asking(WHOLE, count=2), state)]).fits(asking(WHOLE))


@pytest.mark.parametrize("state", [State.DRAINING, State.UNLOADING])
def test_what_leaves_is_on_its_way_back_and_not_free_yet(state: State) -> None:
    room = ClusterRoom(cluster(node("a", gpus=1, held={"one": (WHOLE,)})), [served("one", asking(WHOLE), state)])
    assert not room.fits(asking(WHOLE)) and room.would_fit(asking(WHOLE), without=())


def test_what_has_left_since_ray_was_asked_is_on_its_way_back() -> None:
    room = ClusterRoom(cluster(node("a", gpus=1, held={"gone": (WHOLE,)})))
    assert not room.fits(asking(WHOLE)) and room.would_fit(asking(WHOLE), without=())


def test_room_of_those_who_would_go_counts_where_they_are() -> None:
    nodes = (node("a", gpus=1, held={"one": (WHOLE,)}), node("b", gpus=1, free=Bundle(cpus=16)))  # b's is somebody else's
    room = ClusterRoom(cluster(*nodes), [served("one", asking(WHOLE))])
    assert not room.would_fit(asking(WHOLE), without=())
    assert room.would_fit(asking(WHOLE), without=["one"])
    assert not room.would_fit(asking(Bundle(gpus=2)), without=["one"])
    assert not room.fits(asking(WHOLE))  # asking changes nothing


def test_of_a_ray_that_sleeps_nothing_is_known_and_everything_finds_room() -> None:
    room = ClusterRoom(HERE)
    room.take(asking(WHOLE))
    assert room.fits(asking(Bundle(gpus=100))) and room.would_fit(asking(Bundle(gpus=100)), without=())


def test_what_is_asked_is_said_in_words() -> None:
    room = ClusterRoom(cluster(node("a")))
    assert room.describe(asking(HALF, count=2)) == "2 × (1 CPU, 0.5 GPU)"
    assert room.describe(asking(Bundle(cpus=2))) == "2 CPU"
    assert room.describe(asking(Bundle(memory_bytes=GIB))) == "memory"


_bundles = st.builds(
    Bundle,
    cpus=st.sampled_from([0.0, 0.5, 1.0, 4.0]),
    gpus=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]),
    memory_bytes=st.integers(0, 40).map(lambda gib: gib * GIB),
)
_asked = st.lists(_bundles, min_size=1, max_size=3).map(lambda bundles: asking(*bundles))
_nodes = st.lists(
    st.builds(node, st.just("n"), gpus=st.integers(0, 4), cpus=st.sampled_from([4.0, 16.0]), gib=st.integers(8, 64)),
    min_size=1,
    max_size=4,
)


@given(_nodes, st.lists(_asked, max_size=8))
def test_what_was_taken_is_never_more_than_there_is(nodes: list[object], asked: list[Replicas]) -> None:
    ray = cluster(*nodes)  # type: ignore[arg-type]
    room = ClusterRoom(ray)
    taken: list[Bundle] = []
    for each in asked:
        if room.fits(each):
            room.take(each)
            taken += each.bundles
    for part in ("cpus", "gpus", "memory_bytes"):
        there = sum(getattr(each.total, part) for each in ray.nodes)
        assert sum(getattr(bundle, part) for bundle in taken) <= there + 1e-6


@given(_nodes, _asked, _bundles)
def test_what_fits_beside_others_fits_alone(nodes: list[object], first: Replicas, second: Bundle) -> None:
    ray = cluster(*nodes)  # type: ignore[arg-type]
    room = ClusterRoom(ray)
    room.take(first)
    if room.fits(asking(second)):
        assert ClusterRoom(ray).fits(asking(second))


@given(_nodes, st.lists(_asked, min_size=1, max_size=6), st.data())
def test_however_much_of_it_ray_shows_the_same_is_left(nodes: list[object], asked: list[Replicas], data: st.DataObject) -> None:
    """Of models that were placed one after the other Ray shows none, some or all: nothing is counted twice or not at all."""
    ray = cluster(*nodes)  # type: ignore[arg-type]
    room, views = ClusterRoom(ray), []
    for number, each in enumerate(asked):
        if room.fits(each):
            room.take(each)
            views.append(served(f"model {number}", each))
    unseen = ClusterRoom(ray, views)
    one = asking(data.draw(_bundles))
    assert unseen.fits(one) == room.fits(one)

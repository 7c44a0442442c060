"""Ray as the rest of Modelium uses it: which Ray a configuration means, a cluster that is joined, one that is started here.

Dashboards are real servers; `ray start` is a small program that looks like it, under the guardian that guards the real one.
"""

from __future__ import annotations

import asyncio
import json
import stat
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modelium.config import Settings
from modelium.errors import RayUnavailable
from modelium.ray import ELSEWHERE, RayService
from modelium.ray.connection import connection_file
from modelium.ray.joined import JoinedRay, is_here
from modelium.ray.own import OwnRay
from modelium.runtime_env import RuntimeReport, read_ray
from modelium.values import Bundle, Ray, RayFacts, RayNode, RayState
from tests.patience import PATIENCE_S
from tests.unit.ray.ray_stand_ins import ENDS_AT_ONCE, HEAD, VERSION, StandInDashboard, actor, dashboard, joins, node, runtime

FACTS = RayFacts(version=VERSION)
SERVE = {"ray": VERSION, "fastapi": "1", "uvicorn": "1", "aiohttp-cors": "1"}


def settings_of(tmp_path: Path, *, mode: str = "external", **ray: Any) -> Settings:
    triton = {"mode": mode, "state_directory": tmp_path / "state", "runtime_directory": tmp_path / "runtime"}
    return Settings.model_validate({"ray": ray, "triton": triton})


def joined(tmp_path: Path, there: StandInDashboard, version: str = VERSION, **changes: Any) -> JoinedRay:
    ray = settings_of(tmp_path, address="head:6379", dashboard_url=there.url).ray
    return JoinedRay(ray, **({"runtime": None, "state": tmp_path / "state", "version": version} | changes))


@asynccontextmanager
async def running(service: RayService) -> AsyncIterator[list[str]]:
    """While it runs: what it called, in order."""
    called: list[str] = []
    task = asyncio.create_task(service.run(on_up=lambda: called.append("up"), on_down=called.append))
    try:
        yield called
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def becomes(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 — a reading tells nobody that it is done
            await asyncio.sleep(0)


# -- which Ray ---------------------------------------------------------------------------------------------------------


async def test_without_ray_enabled_there_is_none(tmp_path: Path) -> None:
    service = RayService.of(settings_of(tmp_path), FACTS)
    assert service.view() == Ray() and service.view().state is RayState.OFF
    with pytest.raises(RayUnavailable, match=r"Ray is not enabled \(ray\.enabled\)"):
        await service.ready(timeout_s=1)
    async with running(service) as called:
        await asyncio.sleep(0)
        assert called == []


@pytest.mark.parametrize(
    ("packages", "words"),
    [
        ({}, "Ray is not in the model runtime: `modelium runtime install --with ray`"),
        ({"ray": VERSION}, "has Ray 2.60.0 without Ray Serve (fastapi is missing): `modelium runtime install --with ray`"),
        ({"ray": VERSION, "fastapi": "1", "uvicorn": "1"}, "aiohttp-cors is missing"),
    ],
)
def test_a_runtime_without_a_whole_ray_says_what_installs_it(tmp_path: Path, packages: dict[str, str], words: str) -> None:
    facts = read_ray(RuntimeReport(directory=tmp_path, packages=packages))
    assert words in str(facts.missing) and facts.packages == packages.keys()
    assert RayService.of(settings_of(tmp_path, enabled=True), facts).view().state is RayState.OFF


def test_a_whole_ray_lacks_nothing(tmp_path: Path) -> None:
    facts = read_ray(RuntimeReport(directory=tmp_path, packages=SERVE))
    assert (facts.version, facts.missing) == (VERSION, None)


def test_a_ray_of_our_own_sleeps_and_one_elsewhere_has_not_answered_yet(tmp_path: Path) -> None:
    own = RayService.of(settings_of(tmp_path, mode="embedded", enabled=True), FACTS).view()
    assert (own.state, own.version, own.here, own.nodes) == (RayState.ASLEEP, VERSION, True, ())
    chosen: dict[str, Any] = {"enabled": True, "address": "head:6379"}
    theirs = RayService.of(settings_of(tmp_path, **chosen), FACTS).view()
    assert (theirs.state, theirs.here, theirs.detail) == (RayState.DOWN, False, "it has not answered yet")
    assert RayService.of(settings_of(tmp_path, **chosen, on_this_machine=True), FACTS).view().here


def test_where_triton_is_elsewhere_a_cluster_has_to_be_named(tmp_path: Path) -> None:
    service = RayService.of(settings_of(tmp_path, enabled=True), RayFacts(missing=ELSEWHERE))
    assert service.view().state is RayState.OFF
    assert 'ray: {address: "HOST:6379"}' in ELSEWHERE.remedy and "ray.address is auto" in ELSEWHERE.what


@pytest.mark.parametrize(
    ("address", "here"), [("127.0.0.1", True), ("127.0.0.2", True), ("192.0.2.7", False), ("", False), ("2001:db8::1", False)]
)
def test_a_node_is_here_by_its_address(address: str, here: bool) -> None:
    assert is_here(RayNode(id="a", address=address, total=Bundle(), free=Bundle())) is here


# -- a cluster of somebody else's --------------------------------------------------------------------------------------


async def test_another_version_is_said_before_any_load(tmp_path: Path) -> None:
    async with dashboard(version="2.59.1") as there:
        with pytest.raises(RayUnavailable) as caught:
            await joined(tmp_path, there).start()
        for words in (
            "head:6379 runs Ray 2.59.1",
            f"the model runtime has {VERSION}",
            "triton/constraints.txt, or the cluster",
        ):
            assert words in str(caught.value)
        assert not connection_file(tmp_path / "state").exists(), "no entry is sent there"
        await joined(tmp_path, there, version="").start()  # Triton elsewhere: its Ray cannot be asked


async def test_a_dashboard_without_its_head_is_no_cluster(tmp_path: Path) -> None:
    async with dashboard(reaches_head=False) as there:
        with pytest.raises(RayUnavailable, match="the head of the Ray cluster at head:6379 does not answer its own dashboard"):
            await joined(tmp_path, there).start()


async def test_entries_are_told_where_it_is_until_it_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "theirs")
    async with dashboard(token="theirs", nodes=[node("a", "192.0.2.7")]) as there:
        cluster = joined(tmp_path, there)
        await cluster.start()
        told = json.loads(connection_file(tmp_path / "state").read_text())
        wanted = {"address": "head:6379", "dashboard": there.url, "token": "theirs", "http_host": "", "http_port": 0}
        assert told == wanted and [each.id for each in cluster.nodes] == ["a"]
        await cluster.stop()
        assert not connection_file(tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("ips", "said", "here"),
    [
        (["127.0.0.1"], None, True),
        (["192.0.2.7", "192.0.2.8"], True, True),
        (["192.0.2.7"], True, True),
        (["127.0.0.1"], False, False),
    ],
)
async def test_a_cluster_is_here_when_all_of_it_is_or_it_is_said(
    tmp_path: Path, ips: list[str], said: bool | None, here: bool
) -> None:
    async with dashboard(nodes=[node(ip, ip) for ip in ips]) as there:
        service = RayService(joined(tmp_path, there), FACTS, on_this_machine=said)
        async with running(service) as called:
            await service.ready(timeout_s=PATIENCE_S)
            view = service.view()
            assert (called, view.state, view.here, view.version) == (["up"], RayState.UP, here, VERSION)
            assert [each.address for each in view.nodes] == ips
            assert (service.starts, service.restarts) == (1, 0)


async def test_a_cluster_that_this_machine_is_a_part_of_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Its memory would be planned twice; a node that offers nothing is none of it."""
    nodes = [node("me", "127.0.0.1"), node("b", "192.0.2.7")]
    async with dashboard(nodes=nodes) as there:
        with pytest.raises(RayUnavailable, match=r"this machine offers 8 CPUs .* --num-cpus=0 --num-gpus=0 --memory=0"):
            await joined(tmp_path, there).start()
        nodes[0] = node("me", "127.0.0.1", cpus=0, memory=0)
        service = RayService(joined(tmp_path, there), FACTS)
        async with running(service):
            await service.ready(timeout_s=PATIENCE_S)
            assert [each.address for each in service.view().nodes] == ["192.0.2.7"] and not service.view().here


async def test_what_our_entries_deployed_is_known_by_their_models(tmp_path: Path) -> None:
    ours = [actor(f"SERVE_REPLICA::iris@mine-{n}.1#model#x", CPU=1.0) for n in (1, 2)]
    others = [actor("SERVE_REPLICA::iris@theirs-1.1#model#x", CPU=1.0), actor("SERVE_REPLICA::iris#model#x", CPU=1.0)]
    async with dashboard(actors=[*ours, *others]) as there:
        service = RayService(joined(tmp_path, there), FACTS, owner="mine")
        async with running(service):
            await service.ready(timeout_s=PATIENCE_S)
            (found,) = service.view().nodes
    assert found.held == {"iris": (Bundle(cpus=1), Bundle(cpus=1))} and found.free.cpus == 8 - 4


async def test_its_nodes_are_read_again_and_a_reading_that_fails_changes_nothing(tmp_path: Path) -> None:
    async with dashboard() as there:
        service = RayService(joined(tmp_path, there), FACTS, read_every_s=0.005)
        async with running(service) as called:
            await service.ready(timeout_s=PATIENCE_S)
            there.nodes = [node("a"), node("b")]
            await becomes(lambda: len(service.view().nodes) == 2)
            there.instead["/nodes"] = (500, "")
            asked = len(there.tokens)
            await becomes(lambda: len(there.tokens) > asked + 2)
            assert service.view().state is RayState.UP and len(service.view().nodes) == 2 and called == ["up"]


async def test_who_waits_for_a_ray_that_is_down_is_told_why(tmp_path: Path) -> None:
    async with dashboard(version="2.59.1") as there:
        service = RayService(joined(tmp_path, there), FACTS)
        with pytest.raises(RayUnavailable, match="Ray was not up within 0 s"):
            await service.ready(timeout_s=0.01)
        waiting = asyncio.create_task(service.ready(timeout_s=PATIENCE_S))
        await asyncio.sleep(0)
        async with running(service) as called:
            with pytest.raises(RayUnavailable, match=r"Ray is down: the cluster at head:6379 runs Ray 2\.59\.1"):
                await waiting
            assert len(called) == 1 and "2.59.1" in called[0]
            assert service.view().state is RayState.DOWN and service.view().nodes == () and service.starts == 0


async def test_an_embedded_triton_makes_this_machine_a_node_of_the_cluster(tmp_path: Path) -> None:
    async with dashboard(nodes=[node("a", "192.0.2.7")]) as there:
        cluster = joined(tmp_path, there, runtime=runtime(tmp_path / "runtime", joins(there.url)))
        await cluster.start()
        try:
            assert [(each.id, each.address) for each in cluster.nodes] == [("a", "192.0.2.7"), ("me", "127.0.0.1")]
            (record,) = [json.loads(path.read_text()) for path in (tmp_path / "state").glob("ray-node.json")]
            assert record["owner"], "the next start finds what this one leaves"
        finally:
            await cluster.stop()
        assert not connection_file(tmp_path / "state").exists()


async def test_a_machine_that_is_a_node_already_is_not_made_one_twice(tmp_path: Path) -> None:
    async with dashboard(nodes=[node("a", "127.0.0.1")]) as there:
        await joined(tmp_path, there, runtime=tmp_path / "no runtime at all").start()


async def test_a_machine_that_cannot_join_says_where_it_is_written(tmp_path: Path) -> None:
    async with dashboard(nodes=[node("a", "192.0.2.7")]) as there:
        cluster = joined(tmp_path, there, runtime=runtime(tmp_path / "runtime", ENDS_AT_ONCE))
        with pytest.raises(RayUnavailable, match=r"this machine cannot join the Ray cluster at head:6379; see .*ray-node\.log"):
            await cluster.start()
        assert "no room in /dev/shm" in (tmp_path / "state" / "ray-node.log").read_text()
        await cluster.stop()


# -- one of our own ----------------------------------------------------------------------------------------------------


def own(tmp_path: Path, program: str) -> OwnRay:
    ray = settings_of(tmp_path, mode="embedded").ray
    return OwnRay(ray, runtime=runtime(tmp_path / "runtime", program), state=tmp_path / "state")


async def test_it_is_started_when_a_model_needs_it_and_nothing_stays(tmp_path: Path) -> None:
    cluster = own(tmp_path, HEAD)
    service = RayService(cluster, FACTS)
    file = connection_file(tmp_path / "state")
    async with running(service) as called:
        await asyncio.sleep(0)
        assert (called, service.view().state) == ([], RayState.ASLEEP)
        await service.ready(timeout_s=PATIENCE_S)
        assert (service.view().state, service.view().here) == (RayState.UP, True)
        told = json.loads(file.read_text())
        assert stat.S_IMODE(file.stat().st_mode) == 0o600 and len(told["token"]) == 64 and told["http_port"] > 0
        assert {told["address"].partition(":")[0], told["http_host"]} == {"127.0.0.2"}

        # Its end is told with its last words, and what it left is taken away.
        request = urllib.request.Request(told["dashboard"] + "/end", headers={"Authorization": f"Bearer {told['token']}"})
        with pytest.raises(OSError, match=r".+"):
            await asyncio.to_thread(urllib.request.urlopen, request, None, 10)
        await becomes(lambda: len(called) > 1)
        assert called == ["up", "Modelium's own Ray ended; its last words: the head has had enough"]
        assert service.view().state is RayState.DOWN and not file.exists()
    assert cluster.log_path.read_text().startswith("a word of the head's")


async def test_a_head_that_ends_at_once_leaves_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(RayUnavailable) as caught:
        await own(tmp_path, ENDS_AT_ONCE).start()
    assert "ended while it started: ValueError: no room in /dev/shm; see " in str(caught.value)
    assert str(tmp_path / "state" / "ray.log") in str(caught.value) and not connection_file(tmp_path / "state").exists()

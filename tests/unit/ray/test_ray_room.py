"""The room ``modelium/ray``: what a dashboard's answers mean, how Ray is started, and how an entry in Triton finds it.

The dashboard is a real server on loopback whose answers have the shape of Ray 2.60's.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.errors import RayUnavailable
from modelium.guarded.addresses import Address
from modelium.guarded.guardian import RUN_MARK
from modelium.ray.connection import VARIABLE, Connection, connection_file, forget_connection, write_connection
from modelium.ray.dashboard import Dashboard, _Given, _Node, _node_of
from modelium.ray.launch import HOST, HeadLaunch, head_command, node_command, ray_environment
from modelium.resources import templates_directory
from modelium.runtime_env import RuntimeReport
from modelium.values import Bundle
from tests.unit.ray.ray_stand_ins import GIB, VERSION, actor, dashboard, group, node, silent_node, worker

MIB = 2**20
REPORT = RuntimeReport(directory=Path("/rt"), python=Path("/rt/bin/python3"))


# -- what the dashboard says -------------------------------------------------------------------------------------------


async def test_the_version_is_rays_and_not_that_of_its_rest_api() -> None:
    async with dashboard() as there:
        assert await Dashboard(there.url + "/").version() == VERSION


async def test_a_node_is_what_ray_promised_of_it_and_what_is_really_taken() -> None:
    workers = [
        worker(1, CPU=1.0, GPU=0.5, memory=GIB),
        worker(2, CPU=0.5),
        {"pid": 3, "workerType": "DRIVER", "usedResources": {}},
    ]
    busy = node("a", "10.0.0.1", gpus=[(24_000, 1_000), (16_000, 500)], workers=workers, used=3 * GIB)
    async with dashboard(nodes=[busy, node("b", "10.0.0.2")]) as there:
        first, second = await Dashboard(there.url).nodes()
    assert (first.id, first.address) == ("a", "10.0.0.1")
    assert first.total == Bundle(cpus=8, gpus=2, memory_bytes=32 * GIB)
    assert first.free == Bundle(cpus=6.5, gpus=1.5, memory_bytes=31 * GIB)
    assert first.used_bytes == 3 * GIB
    assert (first.gpu_bytes, first.gpu_used_bytes) == (16_000 * MIB, 1_500 * MIB), "the smallest, and all of them together"
    assert second.free == second.total and second.gpu_bytes == second.gpu_used_bytes == second.total.gpus == 0


async def test_a_node_that_died_is_none() -> None:
    async with dashboard(nodes=[node("a"), node("b", state="DEAD")]) as there:
        assert [each.id for each in await Dashboard(there.url).nodes()] == ["a"]


async def test_a_node_whose_agent_is_silent_yet_has_its_address_from_the_head() -> None:
    """Else a Ray that has just started here would be taken for a cluster elsewhere."""
    async with dashboard(nodes=[silent_node("a", "127.0.0.2")]) as there:
        (found,) = await Dashboard(there.url).nodes()
    assert (found.address, found.total.cpus, found.used_bytes) == ("127.0.0.2", 8, 0)


async def test_what_is_free_is_what_nobody_was_given() -> None:
    """Actors and groups as the head knows them at once; of workers, which are told late, those that run tasks."""
    replica = "SERVE_REPLICA::iris@4f0c-7.1#model#2djmky6u"
    rank: dict[str, Any] = {
        "CPU_group_0_af02": 1.0,
        "GPU_group_0_af02": 1.0,
        "bundle_group_af02": 0.001,
    }  # Ray 2.60's own words
    actors = [
        actor(replica, CPU=1.0, GPU=0.5),
        actor("SERVE_CONTROLLER_ACTOR", internal=0.001),
        actor("somebody's", on="b", CPU=3.0),
        actor("waits", on="", CPU=5.0),
        actor("SERVE_REPLICA::llm@4f0c-9.2#model#onlouv6r", group="af02", **rank),
    ]
    groups = [group("SERVE_REPLICA::llm@4f0c-9.2#model#onlouv6r", a={"CPU": 1.0, "GPU": 1.0}, b={"CPU": 1.0, "GPU": 1.0})]
    tasks = [worker(1, CPU=2.0) | {"actorId": "f" * 32}, worker(2, CPU=1.0, GPU=0.5) | {"actorId": "4a711dee0e66f95f"}]
    gpus = [(80_000, 0), (80_000, 0)]
    async with dashboard(
        nodes=[node("a", gpus=gpus, workers=tasks), node("b", gpus=gpus)], actors=actors, groups=groups
    ) as there:
        first, second = await Dashboard(there.url).nodes()
    assert (first.free.cpus, first.free.gpus) == (8 - 1 - 1 - 2, 2 - 0.5 - 1)
    assert (second.free.cpus, second.free.gpus) == (8 - 3 - 1, 2 - 1)
    one = Bundle(cpus=1, gpus=1)
    assert first.held == {"iris@4f0c-7.1": (Bundle(cpus=1, gpus=0.5),), "llm@4f0c-9.2": (one,)}
    assert second.held == {"llm@4f0c-9.2": (one,)}


_amounts = st.floats(0, 64, allow_subnormal=False)
_given = st.lists(
    st.builds(lambda c, g, m: _Given("a", Bundle(cpus=c, gpus=g, memory_bytes=int(m))), _amounts, _amounts, _amounts),
    max_size=5,
)


@given(_given, st.integers(0, 8), st.floats(0, 64))
def test_free_is_never_below_nothing_nor_above_what_there_is(taken: list[_Given], gpus: int, cpus: float) -> None:
    found = _node_of(_Node.model_validate(node(gpus=[(1000, 0)] * gpus, cpus=cpus)), taken)
    for part in ("cpus", "gpus", "memory_bytes"):
        assert 0 <= getattr(found.free, part) <= getattr(found.total, part)


# -- when it says nothing ----------------------------------------------------------------------------------------------


async def test_a_token_is_shown_and_one_that_is_missing_is_asked_for() -> None:
    async with dashboard(token="secret") as there:
        assert await Dashboard(there.url, "secret").version() == VERSION
        assert there.tokens == ["Bearer secret"]
        with pytest.raises(RayUnavailable, match=r"wants its token: set RAY_AUTH_TOKEN"):
            await Dashboard(there.url).nodes()
        assert there.tokens[-1] == "", "nothing is shown where there is nothing"
        assert not await Dashboard(there.url).healthy()


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (403, "", "wants its token"),
        (500, "oh", "answers /nodes?view=summary with HTTP 500"),
        (200, "<html>", "does not answer: "),
        (200, "[]", "is not Ray's dashboard"),
        (200, '{"data": {}}', "says something unknown at /nodes: data.summary"),
        (200, '{"data": {"summary": [{"mem": "much"}]}}', "something unknown at /nodes: data.summary.0.mem"),
    ],
)
async def test_an_answer_that_is_none_is_said_with_the_place(status: int, text: str, words: str) -> None:
    async with dashboard(instead={"/nodes": (status, text)}) as there:
        with pytest.raises(RayUnavailable) as caught:
            await Dashboard(there.url).nodes()
        assert words in str(caught.value) and there.url in str(caught.value)


async def test_nobody_there_is_said_and_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = Dashboard(f"http://127.0.0.1:{taken.getsockname()[1]}")
    with pytest.raises(RayUnavailable, match="does not answer: "):
        await nobody.version()
    assert not await nobody.healthy()


async def test_a_dashboard_is_healthy_while_it_reaches_the_head() -> None:
    async with dashboard() as there:
        asking = Dashboard(there.url)
        assert await asking.healthy()
        there.reaches_head = False
        assert not await asking.healthy()
        assert await asking.version() == VERSION, "the dashboard itself is there"


# -- how it is started -------------------------------------------------------------------------------------------------


def test_a_head_is_started_on_loopback_alone_with_ports_of_its_own() -> None:
    addresses = {name: Address(host=HOST, port=port) for name, port in (("gcs", 1), ("dashboard", 2), ("client", 3))}
    assert head_command(REPORT, HeadLaunch(directory=Path("/tmp/r"), object_store_bytes=80 * MIB, **addresses)) == [
        "/rt/bin/python3", "/rt/bin/ray", "start", "--block", "--disable-usage-stats", "--head",
        f"--node-ip-address={HOST}", "--port=1", "--include-dashboard=true", f"--dashboard-host={HOST}", "--dashboard-port=2",
        "--ray-client-server-port=3", "--object-store-memory=83886080", "--temp-dir=/tmp/r", "--num-cpus=64", "--num-gpus=0",
        "--include-log-monitor=false", "--no-monitor",
    ]  # fmt: skip
    assert HOST.startswith("127.") and HOST not in ("127.0.0.1", "localhost"), "Ray would take these for the machine's own"


def test_a_node_that_joins_offers_nothing() -> None:
    assert node_command(REPORT, "head:6379", Path("/tmp/r")) == [
        "/rt/bin/python3", "/rt/bin/ray", "start", "--block", "--disable-usage-stats", "--address=head:6379", "--num-cpus=0",
        "--num-gpus=0", "--memory=0", "--object-store-memory=83886080", "--temp-dir=/tmp/r", "--include-log-monitor=false",
    ]  # fmt: skip


def test_ray_has_this_environment_without_what_would_lead_it_astray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "RAY_ADDRESS", "VIRTUAL_ENV", RUN_MARK):
        monkeypatch.setenv(name, "astray")
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin")
    for name, value in {"MINE": "kept", "OMP_NUM_THREADS": "3", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)
    environment = ray_environment(REPORT, chosen={"MINE": None, "RAY_DEDUP_LOGS": "1"})
    assert not {"astray", "secret"} & set(environment.values())
    assert (environment["OMP_NUM_THREADS"], environment["RAY_DEDUP_LOGS"]) == ("3", "1")
    assert (environment["PATH"], environment["MINE"]) == ("/rt/bin:/usr/bin", "kept")
    assert (environment["HF_HUB_OFFLINE"], environment["RAY_USAGE_STATS_ENABLED"], environment["DO_NOT_TRACK"]) == (
        "1",
        "0",
        "1",
    )
    assert not environment.keys() & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
    guarded = ray_environment(REPORT, "secret")
    assert (guarded["RAY_AUTH_MODE"], guarded["RAY_AUTH_TOKEN"]) == ("token", "secret")
    assert guarded.keys() - environment.keys() == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}


def test_a_token_goes_to_ray_only_where_it_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "theirs")
    assert "RAY_AUTH_TOKEN" not in ray_environment(REPORT)
    assert ray_environment(REPORT, "ours")["RAY_AUTH_TOKEN"] == "ours"


# -- how an entry finds it ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def entry() -> Iterator[ModuleType]:
    """``modelium_ray.connection`` of the template, which reads the file inside Triton."""
    place = str(templates_directory() / "ray" / "1")
    sys.path.insert(0, place)
    yield importlib.import_module("modelium_ray.connection")
    sys.path.remove(place)


def test_both_sides_have_the_same_connection(entry: ModuleType) -> None:
    assert [each.name for each in fields(Connection)] == [each.name for each in fields(entry.Connection)]
    assert entry._FILE == VARIABLE


_words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.builds(Connection, address=_words, dashboard=_words, token=_words, http_host=_words, http_port=st.integers(0, 65535)))
def test_what_is_written_is_what_an_entry_reads(entry: ModuleType, written: Connection) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(connection_file(Path(directory))))
        write_connection(Path(directory), written)
        read = entry.find("auto", "")
    assert asdict(read) == asdict(written)
    assert read.here == bool(written.http_port)
    assert asdict(entry.Connection(**json.loads(read.as_json()))) == asdict(written), "and what its guard is told"


def test_the_file_is_for_this_user_alone_and_appears_whole(tmp_path: Path) -> None:
    path = connection_file(tmp_path)
    path.with_suffix(".new").write_text("of a start that was killed")
    path.write_text("{}")
    path.chmod(0o644)
    before = path.stat().st_ino
    previous = os.umask(0)
    try:
        write_connection(tmp_path, Connection(address="a:1", dashboard="http://a:2", token="secret"))
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.stat().st_ino != before
    assert [each.name for each in tmp_path.iterdir()] == ["ray.json"]
    forget_connection(tmp_path)
    forget_connection(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_entry_says_that_ray_does_not_run(entry: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(connection_file(tmp_path)))
    with pytest.raises(RuntimeError, match=r"^Ray is not running$"):
        entry.find("auto", "")


def test_an_entry_that_names_a_cluster_reads_no_file(
    entry: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(connection_file(tmp_path)))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "theirs")
    found = entry.find("head:6379", "http://head:8265")
    assert (found.address, found.dashboard, found.token, found.here) == ("head:6379", "http://head:8265", "theirs", False)
    monkeypatch.delenv(VARIABLE)
    alone = entry.find("auto", "")
    assert (alone.address, alone.here) == ("auto", False), "without Modelium Ray finds it by itself"

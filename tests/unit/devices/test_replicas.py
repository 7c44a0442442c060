"""Ray's replicas on this machine, found among real processes that carry their name and title: which model's, of which Triton,
and all that is below them."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelium.devices import Devices, Process, find_process, processes_of
from modelium.devices.processes import alive
from modelium.devices.replicas import find_replicas
from modelium.resources import templates_directory

# Two children, one with a child of its own. Each says its id once it is a program of its own: until then it looks like the
# replica that it was forked from. (``forks``: one that never becomes one.)
PROGRAM = """
case $1 in
    leaf) echo $$; exec sleep 60 ;;
    middle) echo $$; bash "$0" leaf & wait ;;
    forks) (echo $BASHPID; bash "$0" leaf; :) & bash "$0" leaf & wait ;;
    *) bash "$0" middle & bash "$0" leaf & wait ;;
esac
"""
BELOW = 3


@dataclass(frozen=True, slots=True)
class Started:
    """``all``: itself and what is below it, by id and start."""

    process: subprocess.Popen[str]
    all: tuple[Process, ...]

    @property
    def pids(self) -> set[int]:
        return {each.pid for each in self.all}


Start = Callable[..., Started]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process with that title, which the kernel knows by the name of a replica (or ``name``), and ends it."""
    bash = shutil.which("bash")
    assert bash is not None
    started: list[Started] = []

    def begin(title: str, name: str = "ray::ServeReplica:m", how: str = "") -> Started:
        program, script = tmp_path / name, tmp_path / "program.sh"
        if not program.exists():
            program.symlink_to(bash)
        if not script.exists():
            script.write_text(PROGRAM)
        process = subprocess.Popen([title, script, how], executable=program, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        pids = (process.pid, *(int(process.stdout.readline()) for _ in range(BELOW)))
        started.append(Started(process, tuple(found for pid in pids if (found := find_process(pid)) is not None)))
        assert len(started[-1].all) == 1 + BELOW
        return started[-1]

    yield begin
    for each in started:
        for process in each.all:
            if alive(process):
                os.kill(process.pid, signal.SIGKILL)
        each.process.communicate()


@pytest.fixture
def mark() -> str:
    """Of a Triton that is only this test's."""
    return uuid.uuid4().hex[:12]


def pids_of(mark: str) -> dict[str, list[set[int]]]:
    return {name: [{each.pid for each in one.processes} for one in found] for name, found in find_replicas(mark).items()}


def test_a_replica_is_found_with_all_that_is_below_it(start: Start, mark: str) -> None:
    one = start(f"ray::ServeReplica:iris@{mark}-123:model")
    (found,) = find_replicas(mark)["iris"]
    assert found.processes[0].pid == one.process.pid, "its own first"
    assert len(found.processes) == 1 + BELOW
    assert set(found.processes) == set(one.all)
    assert Devices(host_memory=None, gpu_memory_fraction=0.9).replicas(mark) == {"iris": (found,)}


def test_replicas_are_counted_by_model(start: Start, mark: str) -> None:
    first, second = (start(f"ray::ServeReplica:iris@{mark}-{pid}:model") for pid in (1, 22))
    other = start(f"ray::ServeReplica:org--my_model.v2@{mark}-1:model")
    found = pids_of(mark)
    assert found.keys() == {"iris", "org--my_model.v2"} and found["org--my_model.v2"] == [other.pids]
    assert sorted(found["iris"], key=min) == sorted([first.pids, second.pids], key=min)
    together = processes_of(find_replicas(mark)["iris"])
    assert {each.pid for each in together} == first.pids | second.pids and len(together) == 2 * (1 + BELOW)


@pytest.mark.parametrize("rest", ["", ".infer", ".handle_request_with_rejection", " and more"])
def test_a_replica_at_work_is_the_same_one(start: Start, mark: str, rest: str) -> None:
    start(f"ray::ServeReplica:iris@{mark}-123:model{rest}")
    assert find_replicas(mark).keys() == {"iris"}


def test_a_replica_of_another_triton_is_not_ours(start: Start, mark: str) -> None:
    for other in (f"{mark}0", f"0{mark}", mark[:-1], "other"):
        start(f"ray::ServeReplica:iris@{other}-123:model")
    assert find_replicas(mark) == {}
    assert find_replicas(f"{mark}0").keys() == {"iris"}


def test_an_unknown_mark_finds_nothing(start: Start) -> None:
    start("ray::ServeReplica:iris@-123:model")
    assert find_replicas("") == {} and find_replicas(uuid.uuid4().hex) == {}


def test_what_only_speaks_of_a_replica_is_none(start: Start, mark: str) -> None:
    title = f"ray::ServeReplica:iris@{mark}-123:model"
    start(title, name="grep")  # by its title
    start(f"grep {title}")  # by its name in the kernel
    for wrong in (
        f"ray::ServeReplica:iris@{mark}:model",
        f"ray::ServeReplica:iris@{mark}-x:model",
        f"ray::ServeReplica:{mark}-1:",
    ):
        start(wrong)
    start(title.replace("ServeReplica", "ServeController"), name="ray::ServeController")
    assert find_replicas(mark) == {}


def test_one_that_ended_is_gone_though_nobody_reaped_it(start: Start, mark: str) -> None:
    one = start(f"ray::ServeReplica:iris@{mark}-123:model")
    os.kill(one.process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, one.process.pid, os.WEXITED | os.WNOWAIT)
    assert find_replicas(mark) == {}


def test_what_a_replica_forks_is_a_part_of_it(start: Start, mark: str) -> None:
    """An application with multiprocessing: else it is counted as a replica, and its memory twice."""
    one = start(f"ray::ServeReplica:iris@{mark}-123:model", how="forks")
    found = find_replicas(mark)["iris"]
    assert sorted(each.pid for each in processes_of(found)) == sorted(one.pids)
    assert len(found) == 1


def test_the_title_is_what_ray_makes_of_an_entrys_application(start: Start, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray calls the actor of a deployment ``ServeReplica:APPLICATION:DEPLOYMENT``, and its process ``ray::`` that."""
    monkeypatch.syspath_prepend(templates_directory() / "ray" / "1")
    template = importlib.import_module("modelium_ray.settings")
    given = {"way": "task", "owner": mark, "replicas": '{"min": 1, "max": 1, "target_ongoing_requests": 2, "bundles": []}'}
    settings = template.Settings.of(given, {"input": []}, directory="/r/my-model.v2/1", name="my-model.v2")
    deployment = importlib.import_module("modelium_ray.deployment")._DEPLOYMENT
    one = start(f"ray::ServeReplica:{settings.application}:{deployment}")
    assert pids_of(mark) == {"my-model.v2": [one.pids]}

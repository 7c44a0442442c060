"""What an entry deploys on Ray, by value, and in which words it fails: with a stand-in for the module ``ray``."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.devices import find_process
from modelium.ray.connection import VARIABLE, Connection, connection_file, write_connection
from modelium.resources import templates_directory
from tests.unit.templates.ray_module import ApplicationStatus, StandInRay, install

BUNDLE = {"cpus": 1.0, "gpus": 0.5, "memory_bytes": 0}
HERE = Connection(address="127.0.0.2:1", dashboard="http://127.0.0.2:2", token="secret", http_host="127.0.0.2", http_port=3)


@pytest.fixture(scope="module")
def module() -> Iterator[Any]:
    place, writes = str(templates_directory() / "ray" / "1"), sys.dont_write_bytecode
    sys.path.insert(0, place)
    yield importlib.import_module
    sys.path.remove(place)
    sys.dont_write_bytecode = writes


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> StandInRay:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED", "RAY_DEDUP_LOGS", VARIABLE):
        monkeypatch.setenv(name, "")  # put back what they were
        monkeypatch.delenv(name)
    return install(monkeypatch)


def deployment(module: Any, *, way: str = "task", batch: int = 8, address: str = "head:6379", **replicas: Any) -> Any:
    wanted = {"min": 1, "max": 1, "target_ongoing_requests": 2, "bundles": [BUNDLE], "visible_devices": "", "device": "cpu"}
    settings = module("modelium_ray.settings").Settings.of(
        {
            "way": way,
            "owner": "4f0c",
            "ray_address": address,
            "model_path": "/models/m",
            "replicas": json.dumps(wanted | replicas),
        },
        {"input": [{"name": "TEXT"}, {"name": "PARAMETERS"}], "max_batch_size": batch},
        directory=str(templates_directory() / "ray" / "1"),
        name="m",
    )
    return module("modelium_ray.deployment").Deployment(settings, say=lambda words: None)


def deployed(ray: StandInRay) -> Any:
    ((name, state),) = ray.applications.items()
    me = find_process(os.getpid())
    assert me is not None and name == f"m@4f0c-{me.pid}.{me.created_at}"
    return state.target


# -- what is deployed --------------------------------------------------------------------------------------------------


def test_a_task_is_one_deployment_with_what_was_planned_for_it(module: Any, ray: StandInRay) -> None:
    made = deployment(module)
    made.start()
    target = deployed(ray)
    assert target.target is module("modelium_ray.replica").TaskReplica
    given_, device, rows = target.bound
    assert (given_["model_path"], device, rows) == ("/models/m", "cpu", 8)
    assert target.chosen["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 0.5}
    assert (target.chosen["num_replicas"], target.chosen["max_ongoing_requests"]) == (1, 16)
    assert target.chosen["max_constructor_retry_count"] == 1, "what a constructor says once it will say again"
    assert not target.chosen.keys() & {"autoscaling_config", "placement_group_bundles"}
    assert made.handle.name == made.application and made.route == ""
    assert made.end() and ray.deleted == [made.application] and not ray.connected


def test_between_a_minimum_and_a_maximum_serve_scales(module: Any, ray: StandInRay) -> None:
    deployment(module, min=0, max=4, target_ongoing_requests=5).start()
    chosen = deployed(ray).chosen
    wanted = {"min_replicas": 0, "max_replicas": 4, "initial_replicas": 1, "target_ongoing_requests": 5.0}
    assert chosen["autoscaling_config"] == wanted and "num_replicas" not in chosen


def test_an_engine_over_several_gpus_has_a_group_of_them(module: Any, ray: StandInRay) -> None:
    rank = {"cpus": 1.0, "gpus": 1.0, "memory_bytes": 0}
    deployment(module, way="engine", batch=0, bundles=[rank, rank | {"memory_bytes": 5}]).start()
    target = deployed(ray)
    assert target.target is module("modelium_ray.replica").EngineReplica
    assert target.chosen["placement_group_bundles"] == [{"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 1.0, "memory": 5}]
    assert target.chosen["placement_group_strategy"] == "PACK"
    assert target.chosen["ray_actor_options"]["num_gpus"] == 0, "the GPUs are for vLLM's own actors"


def test_memory_is_asked_for_where_it_was_planned_by_name(module: Any, ray: StandInRay) -> None:
    deployment(module, bundles=[BUNDLE | {"memory_bytes": 7}]).start()
    assert deployed(ray).chosen["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 0.5, "memory": 7}


def test_here_replicas_read_the_entry_and_see_the_gpus_that_were_chosen(
    module: Any, ray: StandInRay, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    write_connection(tmp_path, HERE)
    monkeypatch.setenv(VARIABLE, str(connection_file(tmp_path)))
    deployment(module, address="auto", visible_devices="1,3", device="cuda").start()
    assert (ray.init["address"], os.environ["RAY_AUTH_TOKEN"], os.environ["RAY_AUTH_MODE"]) == (HERE.address, "secret", "token")
    environment = ray.init["runtime_env"]
    assert environment.keys() == {"env_vars"} and environment["env_vars"]["PYTHONPATH"] == str(
        templates_directory() / "ray" / "1"
    )
    assert environment["env_vars"]["CUDA_VISIBLE_DEVICES"] == "1,3"
    # Bytecode is welcome: a replica without would compile its library at each start.
    assert "PYTHONDONTWRITEBYTECODE" not in environment["env_vars"]


def test_on_a_cluster_the_entry_travels_and_ray_chooses_the_gpus(module: Any, ray: StandInRay) -> None:
    deployment(module).start()
    environment = ray.init["runtime_env"]
    assert environment["working_dir"] == str(templates_directory() / "ray" / "1")
    assert not environment["env_vars"].keys() & {"PYTHONPATH", "CUDA_VISIBLE_DEVICES"}


def test_what_dead_processes_of_this_owner_left_is_deleted_and_nothing_else(module: Any, ray: StandInRay) -> None:
    gone, parent = 2**22 + 1, find_process(os.getppid())  # above every process id
    assert parent is not None
    kept = [f"m@4f0c-{parent.pid}.{parent.created_at}", f"m@other-{gone}.1", f"m@4f0c-{gone}x.1", "m"]
    # Another process has the id of the second one now.
    left = [f"m@4f0c-{gone}.1", f"m@4f0c-{parent.pid}.{parent.created_at + 1}", f"other@4f0c-{gone}.1"]
    ray.applications = dict.fromkeys([*left, *kept])
    made = deployment(module)
    made.start()
    assert ray.deleted == left and ray.applications.keys() == {*kept, made.application}


# -- how it fails ------------------------------------------------------------------------------------------------------

TRACEBACK = """The deployment failed to start 1 times in a row.
\x1b[36mray::ServeReplica:m@4f0c-7:model.initialize_and_get_metadata()\x1b[39m (pid=7, ip=127.0.0.2)
  File "/e/1/modelium_ray/replica.py", line 37, in __init__
    _see(given["model_path"])
RuntimeError: the node n1 of the Ray cluster does not see /models/m: mount the models there
ray.exceptions.RayTaskError: ray::ServeReplica:m (pid=7): it is told again
"""


@pytest.mark.parametrize("status", [ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY])
def test_a_replica_that_does_not_start_is_said_in_its_own_words(
    module: Any, ray: StandInRay, status: ApplicationStatus
) -> None:
    ray.messages, ray.status = ["Deploying app failed.", TRACEBACK], status
    made = deployment(module)
    with pytest.raises(RuntimeError) as caught:
        made.start()
    assert str(caught.value) == "RuntimeError: the node n1 of the Ray cluster does not see /models/m: mount the models there"
    assert made.end() and ray.applications == {}


def test_a_ray_that_cannot_be_used_is_one_sentence_and_leaves_nothing(module: Any, ray: StandInRay) -> None:
    ray.refuses = ConnectionError("\nno head at head:6379\nand forty lines more")
    made = deployment(module)
    with pytest.raises(RuntimeError, match=r"^Ray at head:6379 cannot be used: no head at head:6379$"):
        made.start()
    assert made.end() and ray.deleted == []


@pytest.mark.parametrize(
    ("messages", "cause"),
    [
        (["torch.OutOfMemoryError: CUDA out of memory."], "torch.OutOfMemoryError: CUDA out of memory."),
        (["ValueError: first", "x\n  KeyError: 'last'\n"], "KeyError: 'last'"),
        (["ray.exceptions.RuntimeEnvSetupError: no such file"], "ray.exceptions.RuntimeEnvSetupError: no such file"),
        (["it  takes\nits time", ""], "it takes its time"),
        ([], ""),
    ],
)
def test_the_cause_is_the_last_error_that_is_not_rays_own(module: Any, messages: list[str], cause: str) -> None:
    assert module("modelium_ray.deployment").cause_of(messages) == cause


NO_ROOM = (
    "Deployment 'm' in application 'a' has 1 replicas that have taken more than 30s to be scheduled. This may be due to "
    "waiting for the cluster to auto-scale or for a runtime environment to be installed. Resources required for each replica: "
    '{"CPU": 64.0}, total resources available: {"CPU": 2.0}. Use `ray status` for more details.'
)
NO_ROOM_FOR_A_GROUP = NO_ROOM.replace('{"CPU": 64.0}', '[{"CPU": 1.0}, {"CPU": 2.0}]')
HAS_ROOM = [
    NO_ROOM.replace('{"CPU": 64.0}', "{}").replace('{"CPU": 2.0}', "{}"),  # on this machine replicas ask for nothing
    NO_ROOM.replace("64.0", "2.0"),
    NO_ROOM.replace('{"CPU": 64.0}', "UNKNOWN").replace('{"CPU": 2.0}', "UNKNOWN"),
    NO_ROOM.replace('{"CPU": 64.0}', "[1]"),
    NO_ROOM.replace('{"CPU": 64.0}', '[{"CPU": 1.0}, {"CPU": 1.0}]'),
]
SLOW_START = (
    "Deployment 'm' in application 'a' has 1 replicas that have taken more than 30s to initialize.\n"
    "This may be caused by a slow __init__ or reconfigure method."
)


@pytest.mark.parametrize(
    ("messages", "waiting"),
    [
        (["", NO_ROOM], NO_ROOM),
        ([SLOW_START, NO_ROOM], NO_ROOM),
        ([NO_ROOM_FOR_A_GROUP], NO_ROOM_FOR_A_GROUP),
        ([SLOW_START, ""], ""),
        (HAS_ROOM, ""),
        ([], ""),
    ],
)
def test_a_replica_that_is_slow_to_start_does_not_wait_for_room(module: Any, messages: list[str], waiting: str) -> None:
    """An engine may take minutes: only the time that a load may take ends it."""
    assert module("modelium_ray.deployment").waits_for_room(messages) == waiting


@given(st.lists(st.text(), max_size=4))
def test_whatever_ray_says_a_cause_is_one_line(module: Any, messages: list[str]) -> None:
    cause = module("modelium_ray.deployment").cause_of(messages)
    assert len(cause.splitlines()) <= 1 and len(cause) <= max([400, *map(len, messages)])

"""What Modelium and the nursery say of each other: they run in two environments, so neither can import it from the other."""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modelium_nursery import client, imports, orders, places, register, serving

from modelium.controller import endings
from modelium.guarded import GuardedProgram
from modelium.triton import launch, nurseries
from modelium.values import Runtime


def test_both_start_a_nursery_by_the_same_words() -> None:
    assert nurseries._BOOT == client._BOOT


def test_both_look_for_the_same_socket() -> None:
    assert nurseries._socket_name("python") == places.socket_name("python")
    assert places.VARIABLE in launch._OURS
    assert f"python{nurseries._COMING}" == places.coming(Path(), "python").name


def test_a_child_says_that_it_has_taken_down_its_model_by_the_name_that_is_looked_for() -> None:
    assert endings.TAKEN_DOWN == serving.TAKEN_DOWN
    assert len(serving.TAKEN_DOWN) <= 15, "the kernel keeps no more"


def test_what_one_remembers_the_other_imports(tmp_path: Path) -> None:
    nurseries._remember(tmp_path, "python", ["torch.nn"])
    imports.remember(tmp_path, "python", ["transformers.models.bert"])
    nurseries._remember(tmp_path, "python", ["torch.nn", "torch.fft"])
    assert imports.remembered(tmp_path, "python") == ["torch.nn", "torch.fft", "transformers.models.bert"]
    assert orders.importable(["torch.fft"]) == ["torch.fft"]


def test_many_may_remember_at_the_same_time(tmp_path: Path) -> None:
    names = [f"torch.m{number}" for number in range(200)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: nurseries._remember(tmp_path, "python", [name]), names))
    assert sorted(imports.remembered(tmp_path, "python")) == sorted(names)


def test_both_keep_the_register_in_the_same_place() -> None:
    assert (nurseries._CHILDREN, nurseries._OWN) == (register.CHILDREN, register.OWN)


def test_how_a_nursery_ended_is_said_in_words() -> None:
    assert nurseries._how(None) == "was ended, since its guardian was killed"
    assert nurseries._how(-9) == "was killed by signal 9"
    assert nurseries._how(1) == "ended with exit code 1"


def test_a_nursery_is_importing_until_a_process_below_its_keeper_serves(tmp_path: Path) -> None:
    found = nurseries.Nurseries(tmp_path)
    found.expect(Runtime.PYTHON, ["torch"])
    assert found.importing() == {}, "nobody keeps one"
    keeper = found._wanted["python"].program = GuardedProgram(tmp_path / "record.json", grace_s=0)
    keeper.pid = os.getpid()
    found.directory.mkdir()
    register.Register(found.directory).enter_own()
    assert found.importing() == {}, "it does not listen yet: models load without it"
    (found.directory / nurseries._socket_name("python")).touch()
    before = found.importing()["python"]
    assert before <= time.monotonic()
    with subprocess.Popen(["sleep", "1000000"]) as generation:
        try:
            assert before <= found.importing()["python"] <= time.monotonic(), "it imports since it was forked"
            (found.directory / register.OWN / str(generation.pid)).touch()
            assert found.importing() == {}
        finally:
            generation.kill()
    assert set(found.importing()) == {"python"}, "it was killed, and its keeper starts another one"

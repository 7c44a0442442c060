"""What Modelium and the nursery say of each other: they run in two environments, so neither can import it from the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modelium_nursery import client, imports, orders, places, serving

from modelium.controller import endings
from modelium.triton import launch, nurseries


def test_both_start_a_nursery_by_the_same_words() -> None:
    assert nurseries._BOOT == client._BOOT


def test_both_look_for_the_same_socket() -> None:
    assert nurseries._socket_name("python") == places.socket_name("python")
    assert places.VARIABLE in launch._OURS


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

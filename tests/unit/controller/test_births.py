"""Which loads are said to wait for a nursery."""

from __future__ import annotations

from dataclasses import replace

import pytest
from modelium_nursery import client

from modelium.controller import births
from modelium.controller.births import awaiting
from modelium.values import Runtime, State, Task
from tests.unit.gateway.stand_in import profile_of, status_of

LOADING = status_of(profile_of(Task.FILL_MASK), state=State.LOADING)
NOW = LOADING.decisions[0].at + 10.0  # since its load was decided
IMPORTING = {"python": NOW - 3.4}


def test_a_load_waits_while_the_nursery_of_its_runtime_imports() -> None:
    assert awaiting(LOADING, IMPORTING, NOW).waits_for == "the nursery of python, which imports (since 3 s)"
    assert awaiting(LOADING, {}, NOW) == LOADING
    assert awaiting(LOADING, {"vllm": NOW}, NOW) == LOADING


@pytest.mark.parametrize("state", [state for state in State if state is not State.LOADING])
def test_nothing_else_waits_for_it(state: State) -> None:
    status = replace(LOADING, state=state)
    assert awaiting(status, IMPORTING, NOW) == status


def test_of_what_ray_serves_no_nursery_is_said() -> None:
    status = status_of(profile_of(Task.FILL_MASK), state=State.LOADING, runtime=Runtime.RAY)
    assert awaiting(status, IMPORTING, NOW) == status


def test_a_stub_waits_for_a_minute_and_so_long_it_is_said() -> None:
    began = LOADING.decisions[0].at
    assert client._BORN_WITHIN_S == births._WAITED_S
    assert awaiting(LOADING, IMPORTING, began + births._WAITED_S).waits_for
    assert not awaiting(LOADING, IMPORTING, began + births._WAITED_S + 0.1).waits_for
    assert awaiting(replace(LOADING, decisions=()), IMPORTING, NOW).waits_for, "nobody knows when that load began"

"""The table of states, and the instants of the next tries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.lifecycle import TRANSITIONS, advance, back_off, next_try
from modelium.errors import IllegalTransition
from modelium.values import State


@given(st.sampled_from(State), st.sampled_from(State))
def test_a_transition_is_in_the_table_or_raises(current: State, following: State) -> None:
    if following is current or following in TRANSITIONS[current]:
        assert advance("m", current, following) is following
    else:
        with pytest.raises(IllegalTransition, match=f"m: {current} cannot become {following}"):
            advance("m", current, following)


def test_every_state_has_a_row_and_a_way_out() -> None:
    assert set(TRANSITIONS) == set(State)
    assert all(row - {state} for state, row in TRANSITIONS.items())


@pytest.mark.parametrize("state", [state for state in State if state.occupies])
def test_a_dying_triton_takes_every_occupying_state_to_unloaded(state: State) -> None:
    assert advance("m", state, State.UNLOADED) is State.UNLOADED


def test_memory_is_only_free_after_the_unload_was_verified() -> None:
    with pytest.raises(IllegalTransition):
        advance("m", State.DRAINING, State.LOADING)
    with pytest.raises(IllegalTransition):
        advance("m", State.UNLOADING, State.LOADING)


def test_waits_double_and_end_in_quarantine() -> None:
    tries = [next_try(failures=n, retries=3, backoff_s=1.0, now=100.0) for n in range(1, 6)]
    assert tries == [101.0, 102.0, 104.0, None, None]


@given(st.integers(1, 50), st.integers(0, 50), st.floats(0.01, 10))
def test_the_next_try_is_never_in_the_past(failures: int, retries: int, backoff_s: float) -> None:
    at = next_try(failures=failures, retries=retries, backoff_s=backoff_s, now=7.0)
    assert at is None if failures > retries else at is not None and at > 7.0


@given(st.integers(1, 10_000), st.floats(0.01, 1000))
def test_who_is_tried_for_ever_waits_ever_longer_and_at_most_a_minute(times: int, first_s: float) -> None:
    wait_s = back_off(times, first_s=first_s)
    assert 0 < wait_s <= back_off(times + 1, first_s=first_s) <= 60
    assert back_off(1, first_s=first_s) == min(60, first_s)

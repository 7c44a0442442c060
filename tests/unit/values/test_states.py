"""What each state means, asked by name; ``brain.lifecycle`` must agree with it."""

from __future__ import annotations

import pytest

from modelium.brain.lifecycle import TRANSITIONS
from modelium.values import State, Tone

_MEANINGS = {
    "INCOMPLETE": {"is_hindered"},
    "UNSUPPORTED": {"is_broken", "is_hindered"},
    "UNLOADED": {"is_listed", "may_load"},
    "LOADING": {"is_listed", "occupies", "stays", "is_moving"},
    "LOADED": {"is_listed", "serves", "still_answers", "occupies", "stays"},
    "DRAINING": {"is_listed", "serves", "still_answers", "occupies", "leaves", "is_moving"},
    "UNLOADING": {"is_listed", "still_answers", "occupies", "leaves", "is_moving"},
    "FAILED": {"is_listed", "is_broken", "is_hindered", "may_load"},
}
_PREDICATES = sorted(name for name, value in vars(State).items() if isinstance(value, property) and name[0] != "_")


@pytest.mark.parametrize("state", State)
def test_each_state_means_what_users_read(state: State) -> None:
    asked = {name for name in _PREDICATES if name != "tone" and getattr(state, name)}
    assert asked == _MEANINGS[state.value]
    assert isinstance(state.tone, Tone)


def test_the_transitions_agree_with_the_meanings() -> None:
    assert {state for state, following in TRANSITIONS.items() if State.LOADING in following} >= {s for s in State if s.may_load}
    assert not [s for s in State if s.leaves and State.LOADING in TRANSITIONS[s]], "its memory must be back before"

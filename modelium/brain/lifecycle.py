"""State is a table: which state may follow which, and when a failed load is tried again.

What enters: a state and the one that is to follow, or a count of failures. What leaves: the new state, or the instant of
the next try.
"""

from __future__ import annotations

from modelium.errors import IllegalTransition
from modelium.values import State

_LONGEST_BACK_OFF_S = 60.0
_UNSERVED = frozenset({State.INCOMPLETE, State.UNSUPPORTED, State.UNLOADED})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.INCOMPLETE: _UNSERVED | {State.FAILED},  # FAILED: it was in quarantine before Modelium was restarted
    State.UNSUPPORTED: _UNSERVED | {State.FAILED},
    State.UNLOADED: _UNSERVED | {State.LOADING, State.LOADED, State.FAILED},  # LOADED: Triton had it already (adopted)
    # UNLOADED: Triton went away meanwhile; DRAINING: its folder was removed meanwhile, or a user wants it out.
    State.LOADING: frozenset({State.LOADED, State.DRAINING, State.FAILED, State.UNLOADED}),
    State.LOADED: frozenset({State.DRAINING, State.LOADING, State.UNLOADED, State.FAILED}),  # LOADING: its process died
    State.DRAINING: frozenset({State.LOADED, State.UNLOADING, State.UNLOADED, State.FAILED}),  # LOADED: a request came
    State.UNLOADING: frozenset({State.UNLOADED, State.FAILED}),
    State.FAILED: _UNSERVED | {State.LOADING, State.LOADED},
}


def advance(model: str, current: State, following: State) -> State:
    """The following state; raises ``IllegalTransition`` when the table does not have it. Staying is always legal."""
    if following is not current and following not in TRANSITIONS[current]:
        raise IllegalTransition(f"{model}: {current} cannot become {following}")
    return following


def next_try(*, failures: int, retries: int, backoff_s: float, now: float) -> float | None:
    """When a model that failed ``failures`` times in a row is tried again; None: not until its folder changes.

    The waits double: with ``backoff_s`` 1 they are 1, 2, 4 … seconds, ``retries`` of them.

    >>> [next_try(failures=n, retries=3, backoff_s=1, now=0) for n in (1, 2, 3, 4)]
    [1, 2, 4, None]
    """
    if failures > retries:
        return None
    return now + backoff_s * (1 << (failures - 1))


def back_off(times: int, *, first_s: float) -> float:
    """How long to wait after what is nobody's failure, and is tried for ever: twice as long each time, at most a minute.

    >>> [back_off(times, first_s=1) for times in (1, 2, 3, 100)]
    [1, 2, 4, 60.0]
    """
    return min(_LONGEST_BACK_OFF_S, first_s * (1 << min(times - 1, 10)))

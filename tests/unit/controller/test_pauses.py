"""How late a timer came: a blocked loop is seen, and forgotten after a minute."""

from __future__ import annotations

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from modelium.controller.pauses import Pauses


async def test_a_loop_that_was_held_is_seen() -> None:
    pauses = Pauses()
    watching = asyncio.create_task(pauses.watch())
    await asyncio.sleep(0)  # it waits now
    began = time.monotonic()
    while time.monotonic() < began + 0.5:
        pass
    for _ in range(5):  # turns of the loop: its timer is due
        await asyncio.sleep(0)
    assert pauses.longest_s() > 0.4
    watching.cancel()


def test_before_the_first_there_is_none() -> None:
    assert Pauses().longest_s() == 0


@given(st.lists(st.tuples(st.floats(0.01, 20), st.floats(-0.1, 5)), min_size=1))
def test_the_longest_is_that_of_the_last_minute(steps: list[tuple[float, float]]) -> None:
    pauses, now, all_of_them = Pauses(), 0.0, []
    for step_s, late_s in steps:
        now += step_s
        pauses.note(now, late_s)
        all_of_them.append((now, late_s))
        assert pauses.longest_s() == max(0.0, *(late for when, late in all_of_them if when > now - 60))
